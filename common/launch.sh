#!/usr/bin/env bash
# launch.sh SCRIPT [GPU] [FLAGS...]: run a Python script of the current folder on one device.
#
# GPU is a number (default 0) or cpu; anything that starts with - is a flag of the script. A list of GPUs
# (0,1) is passed on as well: the script says what it can do with it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
find_environment

script="$1"
shift
gpu=0
case "${1:-}" in
    "" | -*) ;;
    *) gpu="$1" && shift ;;
esac
exec "$PYTHON" "$script" --gpu "$gpu" "$@"
