#!/usr/bin/env bash
# bash common/prepare.sh [FLAGS]: prepare the films ahead of the first stage that needs them.
# `--help` lists the rules of inclusion; it needs no GPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
find_environment
exec "$PYTHON" "$(dirname "${BASH_SOURCE[0]}")/prepare.py" "$@"
