#!/usr/bin/env bash
# launch.sh [--once] SCRIPT [GPU] [FLAGS...]: run a Python script in the folder where the user stands.
#
# --once: the script starts by itself what needs several processes.
# GPU is a number (default 0), cpu, or several (0,1), for which launch.py starts one process each. A number
# stands first, since between flags it is a value (--epochs 3); cpu and 0,1 may stand anywhere.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
find_environment

once=""
[ "$1" != --once ] || { once=yes && shift; }
script="$1"
shift
gpu=0 words=()
case "${1:-}" in
    "" | -*)
        last=""
        for word in "$@"; do
            if [ "$last" != --gpu ] && [[ "$word" =~ ^(cpu(,cpu)*|[0-9]+(,[0-9]+)+)$ ]]; then
                gpu="$word"
            else
                words+=("$word")
            fi
            last="$word"
        done
        set -- ${words[@]+"${words[@]}"}
        ;;
    *) gpu="$1" && shift ;;
esac
case " $* " in
    *" --help "* | *" -h "*)
        [ -n "$once" ] || set -- --help
        exec "$PYTHON" "$script" "$@" # in one process, however many GPUs are named
        ;;
esac
case "$once$gpu${PET_NNODES:+,}" in
    yes*) exec "$PYTHON" "$script" --gpu "$gpu" "$@" ;;
    *,*) exec "$PYTHON" "$REPOSITORY/common/launch.py" "$script" "$gpu" "$@" ;;
    *) exec "$PYTHON" "$script" --gpu "$gpu" "$@" ;;
esac
