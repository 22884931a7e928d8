#!/usr/bin/env bash
# Pillow 13.0.0 destroys a 16-bit film that it turns smoothly. An image of mode I;16 can be rotated, and one would
# guess that BILINEAR gives what it gives for the same values in mode F, rounded, or an error, as other functions raise
# for this mode. Instead it mixes bytes: a square of 4095 rotated by 10 degrees has no value above 255, and a thirtieth
# of its mean, without a warning. NEAREST is right, resize is right, and so is any filter at 90 degrees, where none is
# needed: a test with right angles sees nothing.
#
#   bash findings/pillow_rotates_16_bits.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from PIL import Image

film = np.zeros((64, 64), np.uint16)
film[16:48, 16:48] = 4095
sixteen, real = Image.fromarray(film), Image.fromarray(film.astype(np.float32))
assert sixteen.mode == "I;16"
largest = {}
for degrees in (10, 90):
    for name in ("NEAREST", "BILINEAR"):
        turned = [np.asarray(image.rotate(degrees, Image.Resampling[name])) for image in (sixteen, real)]
        largest[degrees, name] = [int(pixels.max()) for pixels in turned]
        means = [round(float(pixels.mean())) for pixels in turned]
        print(f"{degrees} degrees {name}: largest {largest[degrees, name]}, mean {means} as I;16 and F")
resized = np.asarray(sixteen.resize((100, 100), Image.Resampling.BILINEAR)).max()
wrong = largest.pop((10, "BILINEAR"))
if resized != 4095 or any(pair != [4095, 4095] for pair in largest.values()):
    sys.exit("changed: what was right")
if not (wrong[0] < 256 and wrong[1] == 4095):
    sys.exit(f"changed: BILINEAR by 10 degrees gives {wrong}")
print("as seen: 12-bit values become bytes")
PYTHON
