#!/usr/bin/env bash
# bash test.sh [--all] [PYTEST ARGUMENTS]: install what is needed, then run the tests (no GPU needed).
# --all: also those that need a browser, the programs of a DICOM archive, or minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source common/environment.sh
install requirements.txt tests/requirements.txt
start=$SECONDS
status=0
"$PYTHON" -m ruff check --quiet . || status=1
"$PYTHON" -m ruff format --quiet --check . || status=1
"$PYTHON" -m mypy & # beside the tests, which wait now and then
types=$!
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # two tests run at a time
# No other process takes the place of one that crashed: it would crash at the same test, and the other one wait
"$PYTHON" -m pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder "$@" || status=1
wait "$types" || status=1
echo "tests: $((SECONDS - start)) s"
exit $status
