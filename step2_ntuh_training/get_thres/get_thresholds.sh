#!/usr/bin/env bash
# bash get_thresholds.sh [GPU] [FLAGS]: thresholds of both systems from their out-of-fold predictions.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../../common/launch.sh" "$here/get_thresholds.py" "$@"
