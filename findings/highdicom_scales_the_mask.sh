#!/usr/bin/env bash
# highdicom 0.28.2 changes the mask that it is given. One would guess that making a Segmentation only reads
# pixel_array. With segmentation type FRACTIONAL and an array of uint8 it multiplies the caller's own array by 255, in
# place: a mask of 0 and 1 holds 0 and 255 afterwards. So a second Segmentation of the same mask is refused for its
# range, and a sum of pixels taken after saving is 255 times too large. Masks of bool and float, and type BINARY, are
# left alone.
#
#   bash findings/highdicom_scales_the_mask.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
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


def segment(mask, kind):
    lesion = hd.seg.SegmentDescription(
        1, "lesion", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "MANUAL"
    )
    hd.seg.Segmentation(
        [film()], mask, kind, [lesion], generate_uid(), 2, generate_uid(), 1, "maker", "model", "1", "1"
    )
    return mask.max()


def mask(dtype):
    made = np.zeros((16, 16), dtype)
    made[2:5, 2:9] = 1
    return made


for case in ("BINARY", "uint8"), ("FRACTIONAL", "uint8"), ("FRACTIONAL", "bool"), ("FRACTIONAL", "float32"):
    largest = segment(mask(case[1]), case[0])
    print(*case, "largest value of the caller's array afterwards:", largest)
    if largest != (255 if case == ("FRACTIONAL", "uint8") else 1):
        sys.exit("changed")
print("as seen: a uint8 mask comes back scaled")
PYTHON
