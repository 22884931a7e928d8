#!/usr/bin/env bash
# bash train.sh [GPU] [FLAGS]: both students of each system, folder by folder, once step 2 is trained.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/../../common/launch.sh" --once "$here/../../common/run.py" "$@" --phase step2_ntuh_training/student
