#!/usr/bin/env bash
# bash nnunet.sh FOLDER [FLAGS]: write the hospital's prepared films as a dataset of nnU-Net v2.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../common/environment.sh"
find_environment
exec "$PYTHON" "$here/nnunet.py" "$@"
