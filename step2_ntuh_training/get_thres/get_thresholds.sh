#!/usr/bin/env bash
# bash get_thresholds.sh [GPU] [FLAGS]: thresholds of both systems from their out-of-fold predictions.
cd "$(dirname "${BASH_SOURCE[0]}")" && exec bash ../../common/launch.sh get_thresholds.py "$@"
