#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: train eff, then vit. GPU: a number (default 0) or cpu; flags: --help
cd "$(dirname "${BASH_SOURCE[0]}")" && exec bash ../../../common/launch.sh train.py "$@"
