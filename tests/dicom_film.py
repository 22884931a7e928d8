"""A small DICOM film, written as a test wants it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)  # 12 bit, 0 to 4080
SHOWN = np.arange(256, dtype=np.uint8).reshape(16, 16)  # what it must look like


def write_film(
    path: Path, pixels: np.ndarray = RAMP, syntax: UID = ExplicitVRLittleEndian, **attributes: object
) -> Path:
    """A film of 12 bits in 16 unless the attributes say otherwise; an attribute of None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["t"])
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(pixels.dtype == np.int16)
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
        if value is None:
            delattr(dataset, name)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


def lookup_table(
    first: int, bits: int, entries: np.ndarray, vr: str = "US", signed: bool = False
) -> Sequence:
    """An item of a modality or VOI LUT sequence (PS3.3 C.11.1, C.11.2)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, bits])
    item.add_new("LUTData", vr, entries.tolist() if vr == "US" else entries.tobytes())
    return Sequence([item])


def smooth(bits: int, signed: bool = False) -> np.ndarray:
    """Shapes and a little noise over the whole range, (256, 224) int16 or uint16."""
    draw = np.random.default_rng(0)
    film = cv2.resize(draw.normal(0, 1, (5, 4)), (224, 256), interpolation=cv2.INTER_CUBIC)
    film = (film - film.min()) / np.ptp(film) + draw.normal(0, 0.002, film.shape)
    film = np.rint((film - film.min()) / np.ptp(film) * (2**bits - 1)) - signed * 2 ** (bits - 1)
    return film.astype(np.int16 if signed else np.uint16)


def by_its_values(pixels: np.ndarray) -> np.ndarray:
    """Grey levels from the smallest to the largest value, before rounding."""
    return (pixels - float(pixels.min())) / np.ptp(pixels.astype(float)) * 255
