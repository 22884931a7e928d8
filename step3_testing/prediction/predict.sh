#!/usr/bin/env bash
# bash predict.sh INPUT OUTPUT [GPU] [FLAGS]: a trained system on new films; GPU: a number (default 0) or cpu.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
words=() # what comes before the flags
while [ $# -gt 0 ] && [[ "$1" != -* ]]; do
    words+=("$1") && shift
done
exec bash "$here/../../common/launch.sh" "$here/predict.py" "${words[2]:-0}" "${words[@]:0:2}" "$@"
