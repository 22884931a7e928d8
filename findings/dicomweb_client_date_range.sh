#!/usr/bin/env bash
# dicomweb-client 0.61.2 finds too much in a folder. Its DICOMfileClient answers the same searches as its web client,
# and one would guess that a range of dates, as QIDO-RS has them (20200101-20200102), finds the studies in it, or is
# refused. Instead a filter that it cannot use is dropped, with a line in the log, and the search goes on without it:
# the range returns all studies, those of other years too; so does AccessionNumber. A single date does filter.
#
#   bash findings/dicomweb_client_date_range.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    dicomweb-client==0.61.2 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import logging
import pathlib
import sys

import numpy as np
from dicomweb_client.api import DICOMfileClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

FOLDER = sys.argv[1]
logging.disable(logging.CRITICAL)


def film(number, date):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientBirthDate, made.PatientSex, made.ReferringPhysicianName = "", "", "", ""
    made.PatientID, made.AccessionNumber, made.StudyID, made.Modality = str(number), f"A{number}", "1", "CR"
    made.StudyDate, made.StudyTime, made.SeriesNumber, made.InstanceNumber = date, "120000", 1, 1
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 4, 4, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = np.zeros((4, 4), "<u2").tobytes()
    made["PixelData"].VR = "OW"
    made.save_as(f"{FOLDER}/films/{number}.dcm", enforce_file_format=True)


pathlib.Path(FOLDER, "films").mkdir()
for number, date in enumerate(("20200101", "20200102", "20210505")):
    film(number, date)
client = DICOMfileClient(f"file://{FOLDER}/films", in_memory=True)


def dates(**filters):
    return sorted(study["00080020"]["Value"][0] for study in client.search_for_studies(search_filters=filters))


found = {
    "one date": dates(StudyDate="20200101"),
    "range": dates(StudyDate="20200101-20200102"),
    "accession number": dates(AccessionNumber="A0"),
    "patient": dates(PatientID="0"),
}
print(*found.items(), sep="\n")
everything = ["20200101", "20200102", "20210505"]
if [*found.values()] != [["20200101"], everything, everything, ["20200101"]]:
    sys.exit("changed")
print("as seen: a filter that is not understood finds everything")
PYTHON
