#!/usr/bin/env bash
# bash export.sh [FLAGS]: pack trained systems, each in one file; it needs no GPU.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../../common/environment.sh"
find_environment
exec "$PYTHON" "$here/export.py" "$@"
