#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: both students of each system, folder by folder, once step 2 is trained.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
bash segmentation/train.sh "$@"
bash classification/train.sh "$@"
