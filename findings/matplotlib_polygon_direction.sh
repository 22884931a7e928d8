#!/usr/bin/env bash
# matplotlib 3.11.2's Path.contains_points, with which many turn an outline into a mask, gives masks of two sizes for
# one outline. One would guess that the direction in which a reader drew it does not matter. For the square from 2 to 6
# on a grid of pixel centres 20 lie inside when it runs one way, 12 when it runs the other; neither is 25 (all that
# touch), 16 (half-open) or 9 (strictly inside). Only points on the edge differ, which on a pixel grid are many. With a
# tiny radius it is 25 or 9, by direction too.
#
#   bash findings/matplotlib_polygon_direction.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check matplotlib==3.11.2 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from matplotlib.path import Path

corners = [(2, 2), (6, 2), (6, 6), (2, 6)]
centres = np.array([(x, y) for x in range(9) for y in range(9)])
inside = {
    radius: [int(Path(order).contains_points(centres, radius=radius).sum()) for order in (corners, corners[::-1])]
    for radius in (0, 1e-9)
}
print("pixels inside, one way and the other, by radius:", inside)
if inside != {0: [20, 12], 1e-9: [25, 9]}:
    sys.exit("changed")
print("as seen: the direction of an outline changes its area")
PYTHON
