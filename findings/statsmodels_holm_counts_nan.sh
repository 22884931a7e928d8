#!/usr/bin/env bash
# statsmodels 0.15.0 counts a p-value that is missing. multipletests with one NaN among three, as of a metric that
# could not be tested: one would guess that it is left out, as R's p.adjust does, or an error. Holm and Bonferroni
# multiply by three all the same. Benjamini-Hochberg turns every corrected value into NaN, and yet says of p = 0.0001
# that it is rejected: its two answers contradict each other. None of them warns.
#
#   bash findings/statsmodels_holm_counts_nan.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from statsmodels.stats.multitest import multipletests

p = [0.0001, np.nan, 0.04]
got = {}
for method in ("bonferroni", "holm", "fdr_bh"):
    rejected, corrected, *_ = multipletests(p, method=method)
    got[method] = (rejected.tolist(), corrected.round(6).tolist())
    print(method, *got[method])
seen = {
    "bonferroni": ([True, False, False], [0.0003, np.nan, 0.12]),
    "holm": ([True, False, False], [0.0003, np.nan, 0.08]),
    "fdr_bh": ([True, False, False], [np.nan] * 3),
}
for method, (rejected, corrected) in seen.items():
    if got[method][0] != rejected or not np.array_equal(got[method][1], corrected, equal_nan=True):
        sys.exit(f"changed: {method}")
print("as seen: the missing one is counted, or spoils the others")
PYTHON
