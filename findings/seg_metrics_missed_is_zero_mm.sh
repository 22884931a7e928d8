#!/usr/bin/env bash
# seg-metrics 1.2.8 gives a lesion that was missed altogether a perfect distance. With an empty prediction against a
# mask that is not, one would guess NaN, infinity or the diagonal for the Hausdorff distance. Instead hd, hd95, msd
# (mean surface distance), mdsd and stdsd are all 0.0, as for a flawless outline, while Dice is 0. So a model that
# draws nothing has the best mean distance of all. The warning that is logged speaks of precision and recall only.
#
#   bash findings/seg_metrics_missed_is_zero_mm.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check seg-metrics==1.2.8 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import seg_metrics.seg_metrics as sg

truth = np.zeros((40, 40), np.uint8)
truth[5:25, 5:25] = 1
near = np.roll(truth, 2, axis=0)
measured = {
    name: sg.write_metrics(labels=[1], gdth_img=truth, pred_img=drawn, csv_file=None)[0]
    for name, drawn in (("exact", truth), ("two pixels off", near), ("nothing", truth * 0))
}
for name, values in measured.items():
    print(name, {metric: float(values[metric][0]) for metric in ("dice", "hd", "hd95", "msd")})
missed = measured["nothing"]
if any(float(missed[metric][0]) != 0 for metric in ("dice", "hd", "hd95", "msd", "mdsd", "stdsd")):
    sys.exit("changed: an empty prediction")
if float(measured["two pixels off"]["hd"][0]) != 2:
    sys.exit("changed: a mask two pixels off")
print("as seen: nothing drawn has distance 0")
PYTHON
