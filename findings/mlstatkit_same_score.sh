#!/usr/bin/env bash
# MLstatkit 0.1.91 says that a score differs from itself, p = 0. Two identical AUCs leave DeLong's test no variance,
# and one would guess p = 1, NaN or an error. Delong_test returns z = 0 and p = 0.0 together: it goes over to a
# bootstrap, whose p-value is the share of differences beyond zero, and none is. Two different scores that both rank
# all films rightly are significantly different in the same way. By info["method"] it can be told; nothing is raised or
# logged.
#
#   bash findings/mlstatkit_same_score.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    MLstatkit==0.1.91 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(0)
truth = np.arange(100) % 2
score = truth + rng.normal(size=100)
perfect, other = truth.astype(float), truth * 0.5 + 0.1
for name, first, second in (("a score and itself", score, score), ("two perfect scores", perfect, other)):
    z, p, *_, info = Delong_test(truth, first, second)
    print(f"{name}: z = {z}, p = {p}, by {info['method']}")
    if (z, p, info["method"]) != (0, 0, "bootstrap"):
        sys.exit("changed")
z, p, *_, info = Delong_test(truth, score, truth + rng.normal(size=100))
if info["method"] != "delong" or not 0 < p < 1:
    sys.exit("changed: two different scores")
print("as seen: no difference at all has p = 0")
PYTHON
