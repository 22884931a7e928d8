#!/usr/bin/env bash
# bash read.sh [FLAGS]: the reading room, a page on this machine only; it needs no GPU.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../../common/environment.sh"
find_environment
exec "$PYTHON" "$here/read.py" "$@"
