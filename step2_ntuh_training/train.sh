#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: the whole fine-tuning phase, both training folders below in order.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../common/launch.sh" --once "$here/../common/run.py" "$@" --phase step2_ntuh_training
