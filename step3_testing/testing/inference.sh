#!/usr/bin/env bash
# bash inference.sh [GPU] [FLAGS]: both systems on the test films; GPU: a number (default 0), several (0,1), or cpu.
cd "$(dirname "${BASH_SOURCE[0]}")" && exec bash ../../common/launch.sh inference.py "$@"
