#!/usr/bin/env bash
# pynetdicom 3.0.4 hides dcmtk's programs: its wheel installs storescp, storescu, echoscu, echoscp, findscu, getscu
# and movescu into the environment's bin, before /usr/bin on the PATH of an active environment, and they take other
# words. dcmtk's `storescp --aetitle PACS --output-directory FOLDER PORT` ends with status 2 and
# "argument port: invalid int value: 'PACS'": here the flag is --ae-title, and --aetitle is passed over in silence.
# So a script that means dcmtk's must name it by its path, or take the environment off the PATH.
#
#   bash findings/pynetdicom_programs.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pynetdicom==3.0.4

for program in storescp storescu echoscp echoscu findscu getscu movescu; do
    [ -x "$folder/venv/bin/$program" ] || { echo "changed: $program is no longer installed"; exit 1; }
done
mkdir "$folder/taken"
status=0
said="$("$folder/venv/bin/storescp" --aetitle PACS --output-directory "$folder/taken" 11112 2>&1)" || status=$?
printf '%s\n' "$said"
case "$status $said" in
    "2 "*"argument port: invalid int value: 'PACS'"*) echo "as seen: status 2, the title is taken for the port" ;;
    *) echo "changed: status $status" && exit 1 ;;
esac
