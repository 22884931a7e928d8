#!/usr/bin/env bash
# bash predict.sh INPUT OUTPUT [GPU] [FLAGS]: a trained system on new films; GPU: a number (default 0) or cpu.
# Several (0,1) share the films. Flags may stand anywhere, and the GPU before or after INPUT and OUTPUT.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
words=() flags=()
while [ $# -gt 0 ]; do
    case "$1" in
        --system | --bundle | --backend | --shard | --gpu) flags+=("${@:1:2}") && shift ;;
        -*) flags+=("$1") ;;
        *) words+=("$1") ;;
    esac
    [ $# -eq 0 ] || shift
done
gpus='^(cpu(,cpu)*|[0-9]+(,[0-9]+)*)$'
if [ ${#words[@]} -eq 3 ] && [[ "${words[0]}" =~ $gpus ]] && [[ ! "${words[2]}" =~ $gpus ]]; then
    words=("${words[@]:1:2}" "${words[0]}")
fi
exec bash "$here/../../common/launch.sh" "$here/predict.py" "${words[2]:-0}" "${words[@]:0:2}" "${flags[@]}"
