#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: the whole fine-tuning phase, both training folders below in order.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
bash ntuh_segmentation/train.sh "$@"
bash ntuh_classification/train.sh "$@"
