#!/usr/bin/env bash
# bash demo.sh [GPU]: the whole pipeline on synthetic films, in demo_workspace/, on the CPU unless a GPU is
# named. What an earlier run finished is kept; rm -rf demo_workspace starts anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source common/environment.sh
install requirements.txt

gpu="${1:-cpu}"
export PTX_WORKSPACE="$PWD/demo_workspace"
start=$SECONDS
step() { # title, then the command
    printf '\n=== %s (%d s so far)\n' "$1" "$((SECONDS - start))"
    shift
    "$@"
}

step "Synthetic films, laid out as the SIIM-ACR download and the NTUH export" \
    "$PYTHON" -m common.demo.phantom_sets "$PTX_WORKSPACE/data"
step "All steps from films to metrics" bash run.sh "$gpu" --preset demo
step "Step 3.3 prediction on new films" bash step3_testing/prediction/predict.sh \
    "$PTX_WORKSPACE/data/new" "$PTX_WORKSPACE/predicted" "$gpu"

cat <<END

The films are synthetic: these results show that the pipeline works, nothing about patients.
Results lie in demo_workspace/:
  step3_testing/testing/report.html                  all tables and pictures on one page
  step3_testing/testing/metrics.csv, metrics.json    the metrics above, one row each
  step3_testing/testing/result_eff, result_vit       every test film: probability, decision, map
  predicted                                          findings, overlays and DICOM objects of the new films
  step2_ntuh_training/get_thres/cls_*_5fold_result   thresholds, out-of-fold predictions, ROC
  step*/*/runs                                       training logs and curves
Look at the films in a browser (once: $PYTHON -m pip install -r step3_testing/reading/requirements.txt):
  PTX_WORKSPACE="$PTX_WORKSPACE" bash step3_testing/reading/read.sh
demo: $((SECONDS - start)) s
END
