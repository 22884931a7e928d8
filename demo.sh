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
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
step() { # title, then the command
    printf '\n=== %s (%d s so far)\n' "$1" "$((SECONDS - start))"
    shift
    "$@"
}
both() { # folder: train both systems, as `bash train.sh` does, but side by side with half of the cores each
    local half=$(($(nproc) / 2)) ok=0
    [ "$half" -gt 0 ] || half=1
    OMP_NUM_THREADS=$half bash "$1/train.sh" "$gpu" --preset demo --system vit >"$log" 2>&1 &
    OMP_NUM_THREADS=$half bash "$1/train.sh" "$gpu" --preset demo --system eff || ok=$?
    wait $! || ok=$?
    cat "$log"
    return $ok
}

step "Synthetic films, laid out as the SIIM-ACR download and the NTUH export" \
    "$PYTHON" -m common.demo.phantom_sets "$PTX_WORKSPACE/data"
step "Step 1.1 SIIM-ACR segmentation" both step1_pretraining/step1_segmentation
step "Step 1.2 SIIM-ACR classification" both step1_pretraining/step2_classification
step "Step 2.1 NTUH segmentation" both step2_ntuh_training/ntuh_segmentation
step "Step 2.2 NTUH classification" both step2_ntuh_training/ntuh_classification
step "Step 2.3 thresholds" bash step2_ntuh_training/get_thres/get_thresholds.sh "$gpu"
step "Step 3.1 inference" bash step3_testing/testing/inference.sh "$gpu"
cd step3_testing/testing
step "Step 3.2 metrics" "$PYTHON" bootstrap.py
step "Step 3.3 prediction on new films" \
    bash ../prediction/predict.sh "$PTX_WORKSPACE/data/new" "$PTX_WORKSPACE/predicted" "$gpu"

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
