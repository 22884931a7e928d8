#!/usr/bin/env bash
# statsmodels 0.15.0: two systems that never disagree differ with p = 0. McNemar's test with exact=False subtracts 1
# from the difference of the discordant pairs as a continuity correction, and one would guess that without any such
# pair the answer is p = 1 or NaN. It is a statistic of infinity and p = 0.0, which any threshold calls significant;
# without the correction it is NaN, and the exact test says 1. With one pair or more, corrected and exact agree on p =
# 1.
#
#   bash findings/statsmodels_mcnemar_no_discordance.sh      installs in a temporary folder; fails when it changed
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import math
import sys

from statsmodels.stats.contingency_tables import mcnemar


def tests(table):
    ways = {"exact": {}, "corrected": {"exact": False}, "uncorrected": {"exact": False, "correction": False}}
    results = {name: mcnemar(table, **how) for name, how in ways.items()}
    return {name: (float(result.statistic), float(result.pvalue)) for name, result in results.items()}


none, one = tests([[10, 0], [0, 5]]), tests([[10, 1], [0, 5]])
print(f"no discordant pair:  (statistic, p) {none}\none discordant pair: (statistic, p) {one}")
if none["exact"] != (0, 1) or none["corrected"] != (math.inf, 0) or not math.isnan(none["uncorrected"][1]):
    sys.exit("changed: no discordant pair")
if one["exact"][1] != 1 or one["corrected"] != (0, 1):
    sys.exit("changed: one discordant pair")
print("as seen: perfect agreement has p = 0")
PYTHON
