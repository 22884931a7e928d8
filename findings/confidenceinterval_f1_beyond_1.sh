#!/usr/bin/env bash
# confidenceinterval 1.0.5 gives F1 an interval that ends above 1. From a package whose proportions have Wilson's
# interval one would guess ends within 0 and 1. With 19 of 20 positive films found and one false alarm of 100, the F1
# of 0.95 is given 0.872 to 1.028: a Wald interval by Takahashi, not cut off. And the default average is micro, which
# is the accuracy (0.983, to 1.006), where scikit-learn's f1_score of the same name and arguments says 0.95.
#
#   bash findings/confidenceinterval_f1_beyond_1.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    confidenceinterval==1.0.5 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from confidenceinterval import accuracy_score, f1_score, tpr_score
from sklearn.metrics import f1_score as f1_of_sklearn

truth = np.repeat([1, 0], [20, 100])
called = truth.copy()
called[19], called[20] = 0, 1  # one missed, one false alarm

f1, (low, high) = f1_score(truth, called, average="binary")
micro, (_, micro_high) = f1_score(truth, called)
_, (_, of_sensitivity) = tpr_score(truth, called)
print(f"F1 {f1:.3f} ({low:.3f} to {high:.3f}), sensitivity's upper end {of_sensitivity:.3f}")
print(f"F1 by default {micro:.3f} (to {micro_high:.3f}), scikit-learn's {f1_of_sklearn(truth, called):.3f}")
if round(f1, 3) != 0.95 or not 1.01 < high < 1.03 or not 1 < micro_high < 1.01:
    sys.exit("changed: the interval of F1")
if abs(micro - accuracy_score(truth, called)[0]) > 1e-6 or of_sensitivity > 1:
    sys.exit("changed: the default average, or the interval of a proportion")
print("as seen: F1's interval ends above 1, and without a word F1 is the accuracy")
PYTHON
