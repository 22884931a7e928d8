#!/usr/bin/env bash
# OpenCV 5.0.0 gives points in two shapes: findNonZero returns (n, 2), where 4.14 returned (n, 1, 2), while
# findContours, convexHull and approxPolyDP still return (n, 1, 2). So `cv2.findNonZero(mask)[:, 0]`, the usual
# way to the points, is now the n columns alone, without an error. `.reshape(-1, 2)` means the same in both.
#
#   bash findings/opencv5_points.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
for version in 4.14.0.94 5.0.0.93; do
    "$python" -m pip install --quiet --disable-pip-version-check "opencv-python-headless==$version" numpy==2.2.6
    "$python" - <<'PYTHON' | tee -a "$folder/seen"
import cv2
import numpy as np

mask = np.zeros((5, 6), np.uint8)
mask[1, 2] = mask[1, 3] = mask[3, 4] = 1
points = cv2.findNonZero(mask)
contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
print(cv2.__version__, "findNonZero", points.shape, "its [:, 0]", points[:, 0].tolist(),
      "findContours", max(contour.shape for contour in contours))
PYTHON
done
expected="4.14.0 findNonZero (3, 1, 2) its [:, 0] [[2, 1], [3, 1], [4, 3]] findContours (2, 1, 2)
5.0.0 findNonZero (3, 2) its [:, 0] [2, 3, 4] findContours (2, 1, 2)"
[ "$(cat "$folder/seen")" = "$expected" ] || { echo "changed"; exit 1; }
echo "as seen: OpenCV 5 gives findNonZero's points without the axis in the middle"
