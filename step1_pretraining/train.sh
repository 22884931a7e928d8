#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: the whole pre-training phase, both folders below in order.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
bash step1_segmentation/train.sh "$@"
bash step2_classification/train.sh "$@"
