#!/usr/bin/env bash
# MONAI 1.6.1's GeneralizedDiceLoss does not see false positives on normal films. For a batch whose masks are empty and
# a prediction that covers the whole film one would guess a loss near 1, as DiceLoss gives. It is exactly 0.0, the best
# there is. The weight of a class is one over its squared area, which is infinite here, and takes the largest of the
# finite weights in its place: there is none, so 0. With w_type="uniform" the loss is 1.
#
#   bash findings/monai_generalized_dice_of_normal_films.sh      installs in a temporary folder; fails when it changed
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from monai.losses import DiceLoss, GeneralizedDiceLoss

normal = torch.zeros(2, 1, 16, 16)
losses = {}
for name, loss in {
    "GeneralizedDiceLoss": GeneralizedDiceLoss(sigmoid=True),
    "GeneralizedDiceLoss, uniform": GeneralizedDiceLoss(sigmoid=True, w_type="uniform"),
    "DiceLoss": DiceLoss(sigmoid=True),
}.items():
    losses[name] = loss(torch.full_like(normal, 2.0), normal).item()
    print(f"{name}: {losses[name]:.6f}")
if losses.pop("GeneralizedDiceLoss") != 0:
    sys.exit("changed: GeneralizedDiceLoss")
if min(losses.values()) < 0.99:
    sys.exit("changed: the others")
print("as seen: a film full of false positives costs nothing")
PYTHON
