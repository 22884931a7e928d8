#!/usr/bin/env bash
# Two empty masks, as for a normal film that was called normal: one would guess that a library gives one answer for
# their overlap, 1, 0 or NaN. SimpleITK 2.5.7 gives a Dice of infinity and a Jaccard of 1.797e308, the largest double:
# that one is finite, so a filter by isfinite keeps it, and one normal film makes the mean of a test set 1e306. Its
# Hausdorff distance is an error instead. MedPy 0.5.2 gives a Dice of NaN and a Jaccard of 1.
#
#   bash findings/empty_masks_overlap.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 MedPy==0.5.2 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import math
import sys

import numpy as np
import SimpleITK as sitk
from medpy.metric import binary

empty = np.zeros((8, 8), np.uint8)
image = sitk.GetImageFromArray(empty)
overlap = sitk.LabelOverlapMeasuresImageFilter()
overlap.Execute(image, image)
dice, jaccard = overlap.GetDiceCoefficient(), overlap.GetJaccardCoefficient()
try:
    sitk.HausdorffDistanceImageFilter().Execute(image, image)
    hausdorff = "a value"
except RuntimeError as error:
    hausdorff = str(error).strip().splitlines()[-1].split(": ")[-1]
medpy_dice, medpy_jaccard = float(binary.dc(empty, empty)), float(binary.jc(empty, empty))
print(f"SimpleITK: Dice {dice}, Jaccard {jaccard}, Hausdorff {hausdorff}")
print(f"MedPy: Dice {medpy_dice}, Jaccard {medpy_jaccard}")
if not (dice == math.inf and jaccard == sys.float_info.max and hausdorff == "pixelcount is equal to 0"):
    sys.exit("changed: SimpleITK")
if not (math.isnan(medpy_dice) and medpy_jaccard == 1):
    sys.exit("changed: MedPy")
print("as seen: four answers to one question, one of them huge but finite")
PYTHON
