#!/usr/bin/env bash
# highdicom 0.28.2 counts one segment too few in a LABELMAP Segmentation. One would guess that number_of_segments is the
# number of segments that were described, and equals the length of segment_numbers. It writes a further item
# "Background" (number 0) into SegmentSequence of a LABELMAP, leaves it out of segment_numbers, and subtracts it from the
# count although it had not been counted: one lesion is number_of_segments 0 and segment_numbers [1], two are 1 and
# [1, 2]. So a reader that asks "are there segments?" passes over a lesion, and one that walks SegmentSequence takes the
# background for a finding. BINARY and FRACTIONAL agree with themselves.
#
#   bash findings/highdicom_labelmap_counts.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid


def film():
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "", "", "", ""
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "", "", "", ""
    made.ReferringPhysicianName, made.Modality = "", "CR"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.ImagerPixelSpacing = [0.2, 0.2]
    made.PixelData = np.zeros((16, 16), "<u2").tobytes()
    return made


def described(count):
    return [
        hd.seg.SegmentDescription(
            number, f"lesion {number}", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "MANUAL"
        )
        for number in range(1, count + 1)
    ]


for kind, count in ("BINARY", 1), ("FRACTIONAL", 1), ("LABELMAP", 1), ("LABELMAP", 2):
    mask = np.zeros((16, 16), np.uint8)
    for number in range(1, count + 1):
        mask[3 * number : 3 * number + 2, 2:9] = number
    made = hd.seg.Segmentation(
        [film()], mask, kind, described(count), generate_uid(), 2, generate_uid(), 1, "maker", "model", "1", "1"
    )
    file = io.BytesIO()
    made.save_as(file)
    file.seek(0)
    read = hd.seg.segread(file)
    labels = [item.SegmentLabel for item in read.SegmentSequence]
    numbers = list(read.segment_numbers)
    print(kind, "described:", count, "number_of_segments:", read.number_of_segments, "segment_numbers:", numbers, labels)
    less = kind == "LABELMAP"
    expected = (count - less, list(range(1, count + 1)), count + less)
    if (read.number_of_segments, numbers, len(labels)) != expected:
        sys.exit("changed")
print("as seen: a LABELMAP counts one segment too few")
PYTHON
