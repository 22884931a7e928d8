#!/usr/bin/env bash
# bash nnunet.sh FOLDER [FLAGS]: write the hospital's prepared films as a dataset of nnU-Net v2, or, with
# --collect PREDICTIONS, what it predicted of the test films.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../common/environment.sh"
find_environment
exec "$PYTHON" "$here/nnunet.py" "$@"
