#!/usr/bin/env bash
# bash run.sh [GPU] [FLAGS]: all stages from films to report. --check: what it costs; --status: how far it is.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/common/launch.sh" --once "$here/common/run.py" "$@"
