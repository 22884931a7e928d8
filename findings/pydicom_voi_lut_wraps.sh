#!/usr/bin/env bash
# pydicom 3.0.2's apply_voi turns the white of a film black when the LUT has 8-bit entries. PS3.3 C.11.2.1.1 maps
# values above the last one of a VOI LUT to its last entry, and one would guess 255 for all of them with a LUT of 256
# entries of 8 bits. Instead the value is first put into the LUT's own type, so it wraps at 256 before it is clipped:
# 255 gives 255, 256 gives 0, 300 gives 44. With 16-bit entries the same table is right. No warning either way.
#
#   bash findings/pydicom_voi_lut_wraps.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" -W error - <<'PYTHON'
import sys

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi


def through_lut(values, bits):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, bits])
    table.add_new("LUTData", "US", list(range(256)))
    film = Dataset()
    film.BitsAllocated, film.BitsStored, film.PixelRepresentation = 16, 12, 0
    film.PhotometricInterpretation = "MONOCHROME2"
    film.VOILUTSequence = [table]
    return apply_voi(np.array(values, np.uint16), film).tolist()


values = [0, 100, 255, 256, 300, 511, 4095]
narrow, wide = through_lut(values, 8), through_lut(values, 16)
print(f"stored          {values}\n8-bit entries   {narrow}\n16-bit entries  {wide}")
if narrow != [0, 100, 255, 0, 44, 255, 255] or wide != [0, 100, 255, 255, 255, 255, 255]:
    sys.exit("changed")
print("as seen: values beyond an 8-bit LUT wrap instead of being clipped")
PYTHON
