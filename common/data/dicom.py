"""One image file -> an 8-bit film and the facts of its header."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi

from common.data.faults import FilmFault


@dataclass(frozen=True)
class Film:
    """A radiograph.

    Attributes:
        pixels: (height, width) uint8, air dark.
        patient_id: DICOM PatientID, `""` where unknown. Never written anywhere but as a pseudonym.
        age: Years; None where unknown.
        sex: `M`, `F` or None.
        view: ViewPosition such as `AP`, or None.
        spacing: (row, column) spacing in mm, or None.
    """

    pixels: np.ndarray
    patient_id: str = ""
    age: float | None = None
    sex: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None


def read_film(path: Path, replace_saturated: bool = False) -> Film:
    """Read a DICOM file, or a PNG (8 or 16 bit, grey), as an 8-bit film.

    Args:
        path: The file.
        replace_saturated: Give saturated stored values (0 in MONOCHROME1, the largest in MONOCHROME2:
            markers and borders) the film's median first, as the original did.

    Raises:
        FilmFault: It cannot be read; the message says why.
    """
    if path.suffix.lower() == ".png":
        return Film(_read_png(path))
    try:
        with warnings.catch_warnings():  # pydicom warns of every oddity of a header that it can live with
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            return Film(
                pixels=_to_8_bit(dataset, replace_saturated),
                patient_id=str(dataset.get("PatientID") or "").strip(),
                age=_age(dataset),
                sex=dataset.get("PatientSex") if dataset.get("PatientSex") in ("M", "F") else None,
                view=_code(dataset.get("ViewPosition")),
                spacing=_spacing(dataset),
            )
    except FilmFault:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise FilmFault(f"cannot be decoded ({type(error).__name__})") from error


def _read_png(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise FilmFault("cannot be decoded (PNG)")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2GRAY)
    return pixels if pixels.dtype == np.uint8 else _stretch(pixels.astype(np.float32))


def _to_8_bit(dataset: pydicom.Dataset, replace_saturated: bool) -> np.ndarray:
    """Rescale or modality LUT, then window or VOI LUT (else min-max), then inversion of MONOCHROME1."""
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if not photometric.startswith("MONOCHROME"):
        raise FilmFault(f"is no grey-scale film (photometric interpretation {photometric or 'missing'!r})")
    stored = dataset.pixel_array
    if stored.ndim != 2:
        raise FilmFault(f"holds {stored.shape[0]} frames, not one film")
    if replace_saturated:
        saturated = 0 if photometric == "MONOCHROME1" else 2 ** int(dataset.BitsStored) - 1
        stored = np.where(stored == saturated, np.median(stored).astype(stored.dtype), stored)
    values = apply_modality_lut(stored, dataset)
    if "VOILUTSequence" in dataset:
        item = dataset.VOILUTSequence[0]
        top = 2.0 ** int(item.LUTDescriptor[2]) - 1
        film = _quantise(apply_voi(values.astype(np.int32), dataset).astype(np.float32) / top)
    elif _first(dataset.get("WindowWidth")) is not None and _first(dataset.get("WindowCenter")) is not None:
        film = _quantise(_window(values, dataset))
    else:
        film = _stretch(values.astype(np.float32))
    return 255 - film if photometric == "MONOCHROME1" else film


def _window(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """DICOM PS3.3 C.11.2.1.2: the first window's function, as a value from 0 to 1."""
    center, width = float(_first(dataset.WindowCenter)), float(_first(dataset.WindowWidth))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    values = values.astype(np.float32)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if width < 1:
        raise FilmFault(f"has an impossible window width ({width:g})")
    if width == 1:
        return (values > center - 0.5).astype(np.float32)
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _quantise(share: np.ndarray) -> np.ndarray:
    """0-1 -> 0-255, clipped and rounded."""
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _stretch(values: np.ndarray) -> np.ndarray:
    """Smallest value -> 0, largest -> 255; a film of one value is black."""
    low, high = float(values.min()), float(values.max())
    return _quantise((values - low) / (high - low or 1.0))


def _first(value: object) -> object | None:
    """The first of several values; None when empty."""
    if isinstance(value, MultiValue | list):
        value = value[0] if len(value) else None
    return value


def _code(value: object) -> str | None:
    """A short code such as AP. Anything else may be free text, so it is dropped."""
    text = str(value or "").strip().upper()
    return text if re.fullmatch(r"[A-Z]{1,4}", text) else None


def _age(dataset: pydicom.Dataset) -> float | None:
    """PatientAge (`045Y`, SIIM's `45`, months, weeks, days), else birth to study date; in years."""
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY]?)\s*", str(dataset.get("PatientAge") or ""))
    if match:
        return round(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}[match[2]], 2)
    dates = [str(dataset.get(name) or "") for name in ("PatientBirthDate", "StudyDate")]
    if all(re.fullmatch(r"\d{8}", date) for date in dates):
        birth, study = dates
        age = int(study[:4]) - int(birth[:4]) - (study[4:] < birth[4:])
        return float(age) if 0 <= age <= 130 else None
    return None


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Pixel spacing, else imager spacing (at the detector), (row, column) in mm."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        value = dataset.get(name)
        if isinstance(value, MultiValue) and len(value) == 2:
            row, column = float(value[0]), float(value[1])
            if 0 < row < 10 and 0 < column < 10:
                return row, column
    return None
