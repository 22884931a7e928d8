#!/usr/bin/env bash
# segmentation-models-pytorch 0.6.0: zero_division does not reach all of its metrics. f1_score of empty masks predicted
# empty is 1.0 by default, and zero_division says what it is to be; one would guess so for each reduction. With
# "macro", "micro-imagewise" and "macro-imagewise" it is 1, or what was asked for. With "micro", which sums first, it
# is NaN, even when zero_division=0 is asked for; iou_score and recall too. A mean over batches with one of normal
# films is NaN then.
#
#   bash findings/smp_micro_is_nan.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    segmentation-models-pytorch==0.6.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import segmentation_models_pytorch as smp
import torch

normal = torch.zeros(2, 1, 8, 8, dtype=torch.long)
counts = smp.metrics.get_stats(normal, normal, mode="binary")
seen = {}
for name in ("f1_score", "iou_score", "recall"):
    score = getattr(smp.metrics, name)
    for reduction in ("micro", "macro", "micro-imagewise", "macro-imagewise"):
        got = [float(score(*counts, reduction=reduction, zero_division=asked)) for asked in (1.0, 0.0)]
        seen[name, reduction] = got
        print(name, reduction, "asked for 1 and 0, got", got)
for (name, reduction), got in seen.items():
    if str(got) != ("[nan, nan]" if reduction == "micro" else "[1.0, 0.0]"):
        sys.exit(f"changed: {name} {reduction}")
print("as seen: micro alone is NaN")
PYTHON
