#!/usr/bin/env bash
# SimpleITK 2.5.7 turns a MONOCHROME1 film over, and leaves its tag. One would guess that the stored values are
# returned, as pydicom 3.0.2 does, since the image's own (0028,0004) still says MONOCHROME1 after reading: whoever
# inverts by that tag inverts twice. What it subtracts from is the largest value that Bits Stored can hold, and the
# rescale comes after: with slope 2 and intercept -1000 a stored 0 becomes 7190. A signed MONOCHROME1 film is not read
# at all: RuntimeError, "invalid logic", though the same pixels as MONOCHROME2 are.
#
#   bash findings/simpleitk_monochrome1.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/film.dcm" <<'PYTHON'
import sys

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

PATH = sys.argv[1]


def film(photometric, signed=0, **header):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientID, made.Modality = "", "", "CR"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 1, 4, 1, photometric
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, signed
    made.PixelData = np.array([0, 1, 100, 2047], "<u2").tobytes()
    made["PixelData"].VR = "OW"
    for keyword, value in header.items():
        setattr(made, keyword, value)
    made.save_as(PATH, enforce_file_format=True)


def read():
    image = sitk.ReadImage(PATH)
    return image.GetMetaData("0028|0004").strip(), sitk.GetArrayFromImage(image).ravel().tolist()


film("MONOCHROME1")
stored, (tag, values) = pydicom.dcmread(PATH).pixel_array.ravel().tolist(), read()
film("MONOCHROME1", RescaleSlope=2, RescaleIntercept=-1000, RescaleType="US")
rescaled = read()[1]
film("MONOCHROME2", signed=1)
signed = read()[1]
film("MONOCHROME1", signed=1)
try:
    refused = f"read as {read()[1]}"
except RuntimeError as error:
    refused = "invalid logic" if "invalid logic" in str(error) else str(error)
seen = (stored, tag, values, rescaled, signed, refused)
print(f"pydicom {stored}\nSimpleITK {values}, tag {tag}\nrescaled {rescaled}\nsigned: {signed}, MONOCHROME1: {refused}")
if seen != (
    [0, 1, 100, 2047],
    "MONOCHROME1",
    [4095, 4094, 3995, 2048],
    [7190, 7188, 6990, 3096],
    [0, 1, 100, 2047],
    "invalid logic",
):
    sys.exit("changed")
print("as seen: inverted already, still tagged MONOCHROME1")
PYTHON
