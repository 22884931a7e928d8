#!/usr/bin/env bash
# pydicom-seg 0.4.1, its newest release, can be installed with pydicom 3.0.1, as pip does where nothing forbids it,
# and can then not be imported: "No module named 'pydicom._storage_sopclass_uids'", a private module of pydicom 2.
# A test that reads a Segmentation with it must pin pydicom below 3, which highdicom and pynetdicom of today refuse.
#
#   bash findings/pydicom_seg_with_pydicom_3.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check pydicom-seg==0.4.1 pydicom==3.0.1
"$python" -m pip check
status=0
said="$("$python" -c "import pydicom_seg" 2>&1)" || status=$?
printf '%s\n' "${said##*$'\n'}"
case "$status $said" in
    "1 "*"No module named 'pydicom._storage_sopclass_uids'"*) echo "as seen: pip is content, the import fails" ;;
    *) echo "changed: status $status" && exit 1 ;;
esac
