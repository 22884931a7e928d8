#!/usr/bin/env bash
# bash inference.sh [GPU] [FLAGS]: both systems on the test films; GPU: a number (default 0), several (0,1), or cpu.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../../common/launch.sh" "$here/inference.py" "$@"
