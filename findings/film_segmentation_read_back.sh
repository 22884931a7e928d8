#!/usr/bin/env bash
# A DICOM Segmentation of a chest film, written by highdicom 0.28.2, and two ways to read it. The film has Imager Pixel
# Spacing and, as films do, no frame of reference. One would guess that get_volume() explains that such an object is no
# volume: an error of SQLite comes up instead, "no such column: FrameLUT.ImagePositionPatient_0". And one would guess
# that SimpleITK 2.5.7 reads a BINARY mask's bits as 0 and 1, as pydicom does: it gives 0 and 255, so that a comparison
# with 1 finds nothing, and spacing 1.0, for the film's is not in the object.
#
#   bash findings/film_segmentation_read_back.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    highdicom==0.28.2 SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import sys

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

PATH = f"{sys.argv[1]}/segmentation.dcm"
film = Dataset()
film.file_meta = FileMetaDataset()
film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
film.SOPClassUID, film.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
film.StudyInstanceUID, film.SeriesInstanceUID = generate_uid(), generate_uid()
film.PatientName, film.PatientID, film.PatientBirthDate, film.PatientSex = "", "", "", ""
film.StudyDate, film.StudyTime, film.StudyID, film.AccessionNumber = "", "", "", ""
film.ReferringPhysicianName, film.Modality, film.ImagerPixelSpacing = "", "DX", [0.2, 0.2]
film.Rows, film.Columns, film.SamplesPerPixel, film.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
film.PixelData = np.zeros((16, 16), "<u2").tobytes()

mask = np.zeros((16, 16), bool)
mask[2:5, 2:9] = True
lesion = hd.seg.SegmentDescription(
    1, "lesion", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "MANUAL"
)
hd.seg.Segmentation(
    [film], mask, "BINARY", [lesion], generate_uid(), 2, generate_uid(), 1, "maker", "model", "1", "1"
).save_as(PATH)

try:
    volume = f"a volume {hd.seg.segread(PATH).get_volume().shape}"
except Exception as error:
    volume = f"{type(error).__module__}.{type(error).__name__}: {error}"
image = sitk.ReadImage(PATH)
values = np.unique(sitk.GetArrayFromImage(image)).tolist()
stored = np.unique(pydicom.dcmread(PATH).pixel_array).tolist()
print(f"get_volume: {volume}\nSimpleITK: values {values}, spacing {image.GetSpacing()}; pydicom: values {stored}")
if volume != "sqlite3.OperationalError: no such column: FrameLUT.ImagePositionPatient_0":
    sys.exit("changed: highdicom")
if (values, image.GetSpacing(), stored) != ([0, 255], (1.0, 1.0, 1.0), [0, 1]):
    sys.exit("changed: the values or the spacing")
print("as seen: an error of a database, and 255 for 1")
PYTHON
