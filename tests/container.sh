#!/usr/bin/env bash
# bash tests/container.sh [BUILD ARGUMENTS]: build the image of Containerfile with podman or docker, and run a
# tiny pipeline in it, without a network and not as root. No part of test.sh: it needs an engine and GBs.
#   bash tests/container.sh --build-arg TORCH_INDEX=URL     with torch for CPUs
#   ENGINE=docker bash tests/container.sh                   where both are there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

engine=""
for candidate in ${ENGINE:-podman docker}; do
    if [ -z "$engine" ] && command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
        engine="$candidate"
    fi
done
[ -n "$engine" ] || { echo "skipped: there is no container engine that answers (podman or docker)" && exit 0; }

image=pneumothorax-test
"$engine" build --tag "$image" --file Containerfile "$@" .

workspace="$(mktemp -d)"
trap 'rm -rf "$workspace"' EXIT
chmod 777 "$workspace" # the user of the image is none of this machine
inside() { "$engine" run --rm --network none --volume "$workspace:/workspace" "$image" "$@"; }

# Its user cannot change the code, and nothing but code is in it
inside bash -euc '
    [ "$(id -u)" != 0 ]
    [ ! -w . ]
    kinds=(-name LICENSE -o -name requirements.lock)
    for kind in py sh toml j2 js css txt sbatch md; do kinds+=(-o -name "*.$kind"); done
    others="$(find . -type f -not \( "${kinds[@]}" \))"
    [ -z "$others" ] || { echo "in the image, and no code: $others" && exit 1; }
    bash step3_testing/prediction/predict.sh --help >/dev/null
'
# Every step, on phantoms and tiny networks; `install` of demo.sh must find nothing to install
inside bash -euc '
    source common/environment.sh
    install requirements.txt
    python -c "
from pathlib import Path
from common.demo.phantom_sets import write_ntuh, write_siim
write_siim(Path(\"/workspace/data/siim\"), positives=8, negatives=8, seed=1, workers=1)
write_ntuh(Path(\"/workspace/data/ntuh\"), 12, 14, 6, 8, seed=1, workers=1)
"
    tiny="--preset demo --image-size 64 --epochs 1 --batch-size 4 --system vit"
    bash step1_pretraining/train.sh cpu $tiny
    bash step2_ntuh_training/train.sh cpu $tiny
    bash step2_ntuh_training/get_thres/get_thresholds.sh cpu --system vit
    bash step3_testing/testing/inference.sh cpu --system vit
    (cd step3_testing/testing && python bootstrap.py --system vit --replicates 100)
    bash step3_testing/prediction/predict.sh /workspace/data/ntuh/images /workspace/predicted cpu --system vit
'
[ -s "$workspace/step3_testing/testing/report.html" ]
[ -s "$workspace/predicted/findings.csv" ]
# What the container wrote belongs to its user, who removes it
inside bash -c 'rm -rf /workspace/*'
echo "container: built and tried, offline, by $engine"
