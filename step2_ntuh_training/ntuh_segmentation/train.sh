#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: train eff, then vit. GPU: a number (default 0) or cpu; flags: --help
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../../common/launch.sh" "$here/train.py" "$@"
