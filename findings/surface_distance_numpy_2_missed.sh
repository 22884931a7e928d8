#!/usr/bin/env bash
# surface-distance 0.1, the only release on PyPI of what Nikolov's surface Dice is computed with, works with NumPy 2
# until the first lesion is missed. pip is content with both, and for a mask and a prediction that are not empty the
# robust Hausdorff distance comes out right (2 here), so one would guess that it runs under NumPy 2, and that a film
# without a prediction gives infinity, as its code means to. Only that film reaches np.Inf, which NumPy 2 removed: an
# AttributeError, and of two empty masks the Dice, np.NaN, is another. The surface Dice of the two empty masks is NaN.
#
#   bash findings/surface_distance_numpy_2_missed.sh     installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check surface-distance==0.1 numpy==2.4.6
"$python" -m pip check

"$python" - <<'PYTHON'
import sys
import warnings

import numpy as np
import surface_distance as sd

warnings.simplefilter("ignore")  # 0 of 0, below


def said(make):
    try:
        return make()
    except AttributeError as error:
        return f"AttributeError: {error}".split(" was")[0]


mask = np.zeros((40, 40), bool)
mask[5:25, 5:25] = True
near, nothing = np.roll(mask, 2, axis=0), np.zeros_like(mask)
distances = lambda drawn: sd.compute_surface_distances(mask, drawn, (1, 1))  # noqa: E731
both_empty = sd.compute_surface_distances(nothing, nothing, (1, 1))
found = {
    "two pixels off": said(lambda: float(sd.compute_robust_hausdorff(distances(near), 100))),
    "missed": said(lambda: sd.compute_robust_hausdorff(distances(nothing), 100)),
    "two empty masks, Dice": said(lambda: sd.compute_dice_coefficient(nothing, nothing)),
    "two empty masks, surface Dice": said(lambda: float(sd.compute_surface_dice_at_tolerance(both_empty, 1))),
}
for name, value in found.items():
    print(f"{name}: {value}")
expected = [2.0, "AttributeError: `np.Inf`", "AttributeError: `np.NaN`"]
if list(found.values())[:3] != expected or not np.isnan(list(found.values())[3]):
    sys.exit("changed")
print("as seen: it works until a film has no prediction")
PYTHON
