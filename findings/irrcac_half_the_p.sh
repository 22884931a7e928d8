#!/usr/bin/env bash
# irrCAC 0.4.4 tests Brennan and Prediger's coefficient on one side, its other coefficients on two. One would guess
# that the same estimate with the same standard error and interval has the same p-value. For two readers of five films,
# with as many of each class, bp, fleiss and gwet all give 0.6 (SE 0.4, interval from -0.51), but bp's p is 0.104, the
# others' 0.208. So an agreement can turn significant by the choice of a coefficient that is no different.
#
#   bash findings/irrcac_half_the_p.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    irrCAC==0.4.4

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import pandas as pd
from irrCAC.raw import CAC

readings = pd.DataFrame([[1, 1], [2, 2], [1, 2], [2, 2], [1, 1]], columns=["first", "second"])
agreement = CAC(readings)
seen = {}
for method in ("fleiss", "gwet", "bp"):
    estimate = getattr(agreement, method)()["est"]
    numbers = estimate["coefficient_value"], estimate["se"], estimate["confidence_interval"][0], estimate["p_value"]
    seen[method] = tuple(round(float(number), 5) for number in numbers)
    print(method, "coefficient, SE, lower limit, p:", seen[method])
if seen != {name: (0.6, 0.4, -0.51058, p) for name, p in (("fleiss", 0.208), ("gwet", 0.208), ("bp", 0.104))}:
    sys.exit("changed")
print("as seen: half the p-value for the same estimate")
PYTHON
