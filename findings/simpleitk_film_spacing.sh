#!/usr/bin/env bash
# SimpleITK 2.5.7 measures a chest film at its detector, whatever its Pixel Spacing says. One would guess that the
# calibrated Pixel Spacing (0028,0030), where a CR or DX film has one, is the image's spacing, as it is for CT; or,
# where it stands alone, at least then. Instead a film with both has the spacing of Imager Pixel Spacing (0018,1164),
# and a film with Pixel Spacing only has spacing 1.0, without a warning. The same header as CT or Secondary Capture is
# read by its Pixel Spacing. So areas in mm2 of a calibrated film come out larger, or as pixel counts.
#
#   bash findings/simpleitk_film_spacing.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/film.dcm" <<'PYTHON'
import sys

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PATH = sys.argv[1]
CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}


def spacing(modality, **header):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.SOPInstanceUID = CLASSES[modality], generate_uid()
    film.StudyInstanceUID, film.SeriesInstanceUID = generate_uid(), generate_uid()
    film.PatientName, film.PatientID, film.Modality = "", "", modality
    film.Rows, film.Columns, film.SamplesPerPixel, film.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = np.arange(24, dtype="<u2").tobytes()
    film["PixelData"].VR = "OW"
    for keyword, value in header.items():
        setattr(film, keyword, value)
    film.save_as(PATH, enforce_file_format=True)
    return tuple(round(length, 6) for length in sitk.ReadImage(PATH).GetSpacing()[:2])


both = {"ImagerPixelSpacing": [0.4, 0.5], "PixelSpacing": [0.2, 0.3], "PixelSpacingCalibrationType": "FIDUCIAL"}
alone = {"PixelSpacing": [0.2, 0.3]}
projection, other = ((0.5, 0.4), (1.0, 1.0)), ((0.3, 0.2), (0.3, 0.2))
expected = {"CR": projection, "DX": projection, "CT": other, "OT": other}
for modality, seen in expected.items():
    got = (spacing(modality, **both), spacing(modality, **alone))
    print(f"{modality}: both spacings {got[0]}, Pixel Spacing only {got[1]}")
    if got != seen:
        sys.exit(f"changed: {modality} was {seen}")
print("as seen: on CR and DX the calibrated spacing is passed over")
PYTHON
