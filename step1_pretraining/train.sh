#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: the whole pre-training phase, both folders below in order.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../common/launch.sh" --once "$here/../common/run.py" "$@" --phase step1_pretraining
