#!/usr/bin/env bash
# SciPy 1.17.1 measures the distance to a mask that is empty, and finds it close by. distance_transform_edt gives each
# pixel its distance to the nearest zero; where there is none, as for the complement of an empty mask, one would guess
# infinity, NaN or an error. It gives small, plausible numbers: the distances to a pixel that does not exist, just
# above the corner of the array (1 for the first pixel, 5 for the last of 4 x 4). A Hausdorff distance built on it is
# finite for a missed lesion. The two sisters give -1 (cdt) and 1.3e154 (bf).
#
#   bash findings/scipy_distance_to_nothing.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from scipy import ndimage

whole = np.ones((4, 4))
edt = ndimage.distance_transform_edt(whole)
rows, columns = np.indices(whole.shape)
phantom = np.hypot(rows + 1, columns)
cdt, bf = ndimage.distance_transform_cdt(whole), ndimage.distance_transform_bf(whole)
print("edt", edt.round(2).tolist(), "cdt", np.unique(cdt), "bf", np.unique(bf), sep="\n")
if not (np.allclose(edt, phantom) and (cdt == -1).all() and (bf > 1e150).all() and np.isfinite(bf).all()):
    sys.exit("changed")
print("as seen: distances to a pixel at row -1, column 0")
PYTHON
