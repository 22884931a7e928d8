#!/usr/bin/env bash
# bash listen.sh [GPU] --caller AE_TITLE [FLAGS]: receive films by DICOM; GPU: a number (default 0) or cpu.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../../common/launch.sh" "$here/listen.py" "$@"
