#!/usr/bin/env bash
# torchmetrics 1.9.0's AUROC depends on the scale of the scores, and on how the films are cut into batches. AUROC is a
# rank: one would guess that the area of a map in pixels does as a score, as it does for scikit-learn. As soon as one
# score of an update lies outside 0 to 1, BinaryAUROC takes all of that update for logits and puts them through a
# sigmoid, which is 1 in float32 from about 17 on: areas of 120 to 9000 pixels are all the same, and an AUROC of 1
# becomes 0.667. And since each update decides for itself, four scores give 0.75 in one piece, and 0.25 in two, of which
# one happens to lie within 0 to 1.
#
#   bash findings/torchmetrics_auroc_of_areas.sh     installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.14.1 scikit-learn==1.9.1

"$python" - <<'PYTHON'
import sys

import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC


def auroc(scores, positive, films_at_once):
    metric = BinaryAUROC()
    for i in range(0, len(scores), films_at_once):
        metric.update(scores[i : i + films_at_once], positive[i : i + films_at_once])
    return round(float(metric.compute()), 3)


areas, lesion = torch.tensor([0.0, 120, 340, 5000, 9000]), torch.tensor([0, 0, 0, 1, 1])
scores, positive = torch.tensor([0.9, 0.2, 2.0, -1.0]), torch.tensor([0, 1, 1, 0])
found = {
    "areas in pixels": auroc(areas, lesion, 5),
    "by scikit-learn": roc_auc_score(lesion, areas),
    "four scores at once": auroc(scores, positive, 4),
    "by scikit-learn again": roc_auc_score(positive, scores),
    "the same two by two": auroc(scores, positive, 2),
}
for name, value in found.items():
    print(f"{name}: {value}")
if list(found.values()) != [0.667, 1.0, 0.75, 0.75, 0.25]:
    sys.exit("changed")
print("as seen: not a rank of the films alone")
PYTHON
