#!/usr/bin/env bash
# MONAI 1.6.1 leaves a missed lesion out of HD95, and not out of HD. With an empty prediction HausdorffDistanceMetric
# gives infinity, and one would guess that percentile=95 gives infinity as well. It gives NaN, and aggregate() leaves
# NaN out of the mean: of one film missed and one outlined exactly the mean HD is infinite and the mean HD95 is 0.0,
# perfect. Even percentile=100, which is the maximum, gives NaN.
#
#   bash findings/monai_hd95_skips_missed.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    monai==1.6.1 torch==2.13.0 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import math
import sys

import torch
from monai.metrics import HausdorffDistanceMetric

nothing = torch.zeros(1, 1, 16, 16)
lesion = nothing.clone()
lesion[..., 4:9, 4:9] = 1
seen = {}
for percentile in (None, 100, 95):
    metric = HausdorffDistanceMetric(include_background=True, percentile=percentile)
    each = metric(y_pred=torch.cat([nothing, lesion]), y=torch.cat([lesion, lesion])).flatten().tolist()
    seen[percentile] = each, metric.aggregate().item()
    print(f"percentile {percentile}: missed and exact {each}, mean {seen[percentile][1]}")
if seen.pop(None) != ([math.inf, 0.0], math.inf):
    sys.exit("changed: without a percentile")
if not all(math.isnan(each[0]) and each[1] == 0 and mean == 0 for each, mean in seen.values()):
    sys.exit("changed: with a percentile")
print("as seen: the mean HD95 is that of the films that were found")
PYTHON
