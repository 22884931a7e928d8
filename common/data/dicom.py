"""One image file -> an 8-bit film and the facts of its header."""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array

from common.data.faults import FilmFault
from common.data.own_outputs import refuse_own_object
from common.data.pictures import MOST_PIXELS, decode_picture, is_picture, stretch

# One plug-in of pydicom for each compression, so that all machines decode alike. GDCM would do JPEG-LS as
# well, but there a damaged film ends the process.
PLUGINS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "gdcm",
    uid.JPEG2000: "gdcm",
    uid.RLELossless: "pylibjpeg",
}
_OPENCV = int(cv2.__version__.split(".")[0])  # from 5 on its tables take 16 bits
_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
_SAMPLES = {  # samples per pixel of the photometric interpretations, PS3.3 C.7.6.3.1.2
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
_FUNCTIONAL_GROUPS = ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence")
_POSTURES = {  # PS3.16 CID 19 and 20, in SNOMED CT and in the SNOMED RT codes of older devices
    "10904000": "ERECT",
    "C86043": "ERECT",
    "F-10440": "ERECT",
    "102538003": "RECUMBENT",
    "F-10450": "RECUMBENT",
    "102539006": "SEMIERECT",
    "F-10460": "SEMIERECT",
    "40199007": "SUPINE",
    "F-10340": "SUPINE",
    "1240000": "PRONE",
    "F-10310": "PRONE",
}
_VIEWS = {  # PS3.16 CID 4010, likewise, and the words of technicians
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-10214": "PA",
    "R-40888": "PA",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399067008": "LAT",
    "R-102CD": "LAT",
    "399182000": "OBL",
    "R-102C1": "OBL",
    "399356000": "RAO",
    "R-10218": "RAO",
    "R-40985": "RAO",
    "399135007": "LAO",
    "R-10220": "LAO",
    "399038007": "RPO",
    "R-10210": "RPO",
    "399006002": "LPO",
    "R-10212": "LPO",
    **{word: word for word in ("AP", "PA", "LAT", "OBL")},
    "LATERAL": "LAT",
    "OBLIQUE": "OBL",
}
_MODALITIES = (  # PS3.3 C.7.3.1.1.1, those of pictures; OT (other) says nothing
    "BI|BMD|CFM|CR|CT|DG|DX|ES|GM|HC|IO|IVOCT|IVUS|KER|LEN|LS|MG|MR|NM|OAM|OCT|OP|OPM|OPT|OPV|PT|PX|RF|RG|"
    "RTIMAGE|SM|TG|US|XA|XC"
)
CHEST, OTHER = "CHEST", "OTHER"
_SNOMED = ("SCT", "SRT", "SNM3", "99SDM")  # coding schemes
_CHEST_CODES = ("816094009", "51185008", "T-D3000", "39607008", "T-28000")  # chest, thorax, lung
_CHEST_WORDS = ("CHEST", "CXR", "LUNG", "LUNGS", "THORAX")
_OTHER_WORDS = (  # of BodyPartExamined (PS3.16 Annex L) and of descriptions
    "ABDOMEN|ABDOMENPELVIS|ANKLE|ARM|BREAST|CALCANEUS|CHESTABDOMEN|CHESTABDPELVIS|CLAVICLE|COCCYX|CSPINE|"
    "ELBOW|EXTREMITY|FEMUR|FINGER|FOOT|FOREARM|HAND|HEAD|HEADNECK|HIP|HUMERUS|JAW|KNEE|LEG|LOWERLEG|LOWERLIMB|"
    "LSPINE|MANDIBLE|NECK|NECKCHEST|PATELLA|PELVIS|PHANTOM|RIB|RIBS|SACRUM|SCAPULA|SHOULDER|SKULL|SPINE|SSPINE|"
    "STERNUM|THIGH|THUMB|TIBIA|TOE|TSPINE|UPPERARM|UPPERLIMB|WHOLEBODY|WRIST"
)


@dataclass(frozen=True)
class Film:
    """A radiograph.

    Attributes:
        pixels: (height, width) uint8, 0 to 255, air dark; read-only where they are the file's own bytes.
        patient_id: DICOM PatientID, `""` where unknown. Never written anywhere but as a pseudonym.
        age: Years; None where unknown.
        sex: `M`, `F` or None.
        view: Such as `AP` or `LL`: ViewPosition, else coded (ViewCodeSequence), else the only view that
            protocol and series name (`AP`, `PA`, `LAT` or `OBL`); None where unknown.
        spacing: (row, column) spacing in mm, or None. PixelSpacing; without it ImagerPixelSpacing, which
            is at the detector, divided by EstimatedRadiographicMagnificationFactor where that is given.
        study: StudyInstanceUID, `""` where unknown. Never written anywhere but as a pseudonym.
        position: `SUPINE`, `PRONE`, `ERECT`, `SEMIERECT` or `RECUMBENT` (coded or as PatientOrientation),
            else PatientPosition such as `HFS`; None where unknown. Row and column directions are none.
        manufacturer: Of the device: at most 32 letters, digits and ` .,&()-`; else None.
        date: Of the study, else of the acquisition or content, `YYYY-MM-DD`; None where unknown.
        burned_in: The header says that text, perhaps a name, is part of the picture.
        modality: A defined term (PS3.3 C.7.3.1.1.1) such as `DX`; None where unknown or `OT`.
        body_part: `CHEST`, another such as `HAND`, or `OTHER`: BodyPartExamined (PS3.16 Annex L), else coded
            (AnatomicRegionSequence), else as protocol, series or study name it; None where unknown.
        orientation: Where a row and a column lead in the patient (PatientOrientation, PS3.3 C.7.6.1.1.1),
            each of the letters `LRAPHF`: (`L`, `F`) of a frontal film as it is hung, with the patient's left
            on the picture's right. None where unknown.
        for_processing: PresentationIntentType says that the grey levels are not for reading.
    """

    pixels: np.ndarray
    patient_id: str = ""
    age: float | None = None
    sex: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None
    study: str = ""
    position: str | None = None
    manufacturer: str | None = None
    date: str | None = None
    burned_in: bool = False
    modality: str | None = None
    body_part: str | None = None
    orientation: tuple[str, str] | None = None
    for_processing: bool = False


def read_film(path: Path, replace_saturated: bool = False) -> Film:
    """Read a DICOM, PNG, JPEG or TIFF file as an 8-bit film, whatever its suffix: `decode_film` of its bytes.

    Raises:
        FilmFault: It cannot be read; the message says why.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FilmFault(f"cannot be read ({type(error).__name__})") from error
    return decode_film(content, replace_saturated)


def decode_film(content: bytes, replace_saturated: bool = False) -> Film:
    """The bytes of a DICOM, PNG, JPEG or TIFF file as an 8-bit film.

    DICOM grey scale (PS3.3 C.11): rescale or modality LUT, then the first VOI LUT, else the first window,
    else smallest to largest value; then inversion of MONOCHROME1. Padding (PS3.3 C.7.5.1.1.2) is neither
    the smallest nor the largest value, and is black. Colour is shown by its luminance, 8 bit as it is,
    16 bit from its smallest to its largest value. Pixels of 8 or 16 bits, fewer of them used or not; one
    frame. Compressions (PS3.5 A.4): JPEG of 8 bits, JPEG Lossless, JPEG-LS, JPEG 2000 and RLE.

    Args:
        content: Of the file.
        replace_saturated: Give saturated stored values (the smallest in MONOCHROME1, the largest in
            MONOCHROME2: markers and borders) the film's median first, as the original did.

    Raises:
        FilmFault: It cannot be decoded; the message says why.
    """
    try:
        with warnings.catch_warnings():  # pydicom warns of every oddity of a header that it can live with
            warnings.simplefilter("ignore")
            if not content:
                raise FilmFault("is empty")
            is_dicom = content[128:132] == b"DICM"  # before the others: the 128 bytes may be a TIFF's header
            if not is_dicom and is_picture(content[:132]):
                return Film(decode_picture(content))
            return _decode_dicom(content, is_dicom, replace_saturated)
    except FilmFault:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise FilmFault(f"cannot be read ({type(error).__name__})") from error


def _decode_dicom(content: bytes, has_preamble: bool, replace_saturated: bool) -> Film:
    try:
        dataset = pydicom.dcmread(BytesIO(content), force=True)
    except Exception as error:
        raise FilmFault("is damaged" if has_preamble else "is no DICOM, PNG, JPEG or TIFF file") from error
    if has_preamble and not dataset:  # how pydicom hands back a compressed picture without its end
        raise FilmFault("is cut short")
    if not has_preamble and "SOPClassUID" not in dataset and "Rows" not in dataset:
        raise FilmFault("is no DICOM, PNG, JPEG or TIFF file")
    refuse_own_object(dataset)
    _flatten(dataset)
    return Film(
        pixels=_to_8_bit(dataset, replace_saturated),
        patient_id=_text(dataset, "PatientID"),
        age=_age(dataset),
        sex=_text(dataset, "PatientSex") if _text(dataset, "PatientSex") in ("M", "F") else None,
        view=_view(dataset),
        spacing=_spacing(dataset),
        study=_text(dataset, "StudyInstanceUID"),
        position=_position(dataset),
        manufacturer=_manufacturer(dataset),
        date=_date(dataset),
        burned_in=_text(dataset, "BurnedInAnnotation").upper() == "YES",
        modality=_modality_of(dataset),
        body_part=_body_part(dataset),
        orientation=_orientation(dataset),
        for_processing=_text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING",
    )


# --- values of the header, which may hold anything --------------------------------------------------


def _get(dataset: Dataset, keyword: str) -> Any:
    """A value; None where it is missing, empty or not readable."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom converts values when they are asked for
        return None
    return None if value is None or value == "" else value


def _text(dataset: Dataset, keyword: str) -> str:
    return str(_get(dataset, keyword) or "").strip()


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = _get(dataset, keyword)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def _number(dataset: Dataset, keyword: str) -> float | None:
    """The first of the values; None where there is none, NaN where it is no number."""
    values = _numbers(dataset, keyword)
    return values[0] if values else None


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values; one NaN where they are no numbers."""
    try:
        value = dataset.get(keyword)
        values = list(value) if isinstance(value, MultiValue | list) else [value]
        return [float(value) for value in values if value is not None and value != ""]
    except Exception:  # of pydicom's conversion as well
        return [math.nan]


def _whole(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number above 0.

    Raises:
        FilmFault: It is not one, or missing without a default.
    """
    value = _number(dataset, keyword)
    if value is None and default is not None:
        return default
    if value is None or not value >= 1 or value != int(value):
        raise FilmFault(f"has no {keyword}" if value is None else f"has an impossible {keyword}")
    return int(value)


def _flatten(dataset: Dataset) -> None:
    """Lift windows, rescaling and spacing of an enhanced object of one frame to where others have them."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in _items(dataset, groups)[:1]:
            for name in _FUNCTIONAL_GROUPS:
                for element in (element for item in _items(group, name)[:1] for element in item):
                    if element.tag not in dataset:
                        dataset.add(element)


# --- pixels -----------------------------------------------------------------------------------------


def _to_8_bit(dataset: Dataset, replace_saturated: bool) -> np.ndarray:
    if not _get(dataset, "PixelData"):
        raise FilmFault("holds no picture")
    syntax = _transfer_syntax(dataset)
    photometric = _check(dataset, syntax)
    stored = _decode(dataset, syntax)
    if photometric.startswith("MONOCHROME"):
        return _grey(dataset, stored, photometric == "MONOCHROME1", replace_saturated)
    stored = _without_unused_bits(stored, _whole(dataset, "BitsStored"))
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    luminance = cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
    return luminance if luminance.dtype == np.uint8 else stretch(luminance)


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    """The file's transfer syntax; without one, that of an uncompressed file as pydicom could read it."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if not _get(dataset.file_meta, "TransferSyntaxUID"):
        if dataset.PixelData.startswith(b"\xfe\xff\x00\xe0"):
            raise FilmFault("does not name its transfer syntax")
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def _name(syntax: uid.UID) -> str:
    """Readable name of a transfer syntax. A private one may hold anything, so it is not repeated."""
    return syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "unknown transfer syntax"


def _check(dataset: Dataset, syntax: uid.UID) -> str:
    """Refuse by the header, before decoding. Returns the photometric interpretation."""
    frames = _whole(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise FilmFault(f"holds {frames} frames, not one film")
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    samples = _whole(dataset, "SamplesPerPixel", 1)
    if rows * columns * samples > MOST_PIXELS:
        raise FilmFault(f"claims {columns} x {rows} pixels")
    photometric = _text(dataset, "PhotometricInterpretation")
    if photometric not in _SAMPLES:
        raise FilmFault(f"has {'an unknown' if photometric else 'no'} photometric interpretation")
    if samples != _SAMPLES[photometric]:
        raise FilmFault(f"has {samples} samples per pixel, which is not {photometric}")
    allocated = _whole(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        raise FilmFault(f"holds pixels of {allocated} bits, not 8 or 16")
    if _whole(dataset, "BitsStored") > allocated:
        raise FilmFault("has an impossible BitsStored")
    if syntax in _NATIVE:
        share = 2 / 3 if photometric == "YBR_FULL_422" else 1
        if len(dataset.PixelData) < rows * columns * samples * share * allocated // 8:
            raise FilmFault("is cut short")
    elif syntax not in PLUGINS or not get_decoder(syntax).is_available:
        raise FilmFault(f"{_name(syntax)}: no decoder")
    elif syntax != uid.RLELossless:
        _check_compressed(dataset, syntax, rows, columns)
    return photometric


def _check_compressed(dataset: Dataset, syntax: uid.UID, rows: int, columns: int) -> None:
    """What the compressed picture itself says must agree with the header: a decoder believes the picture."""
    try:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        height, width, bits = _frame_header(frame)
    except Exception as error:
        raise FilmFault(f"{_name(syntax)}: is cut short or damaged") from error
    if (height, width) != (rows, columns):
        raise FilmFault(f"claims {columns} x {rows} pixels, but holds {width} x {height}")
    if PLUGINS[syntax] == "pillow" and bits > 8:
        raise FilmFault(f"{_name(syntax)}, {bits} bits: no decoder")


def _frame_header(frame: bytes) -> tuple[int, int, int]:
    """Height, width and bits of a JPEG, JPEG-LS (SOF marker) or JPEG 2000 (SIZ marker) picture."""
    if not frame.startswith(b"\xff\xd8"):
        size = frame.index(b"\xff\x4f\xff\x51")  # may be wrapped as JP2
        right, bottom, left, top = struct.unpack_from(">4I", frame, size + 8)
        return bottom - top, right - left, (frame[size + 42] & 0x7F) + 1
    at = 2
    while True:
        marker, length = struct.unpack_from(">2H", frame, at)
        if marker < 0xFF00:
            raise ValueError("no marker where one must be")
        if marker == 0xFFFF:  # a fill byte
            at += 1
        elif marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)):
            bits, height, width = struct.unpack_from(">B2H", frame, at + 4)
            return height, width, bits
        else:
            at += 2 + length


def _decode(dataset: Dataset, syntax: uid.UID) -> np.ndarray:
    """Stored values of 8 or 16 bits, those above BitsStored as they are: (rows, columns), or (..., 3) RGB."""
    bits, allocated = _whole(dataset, "BitsStored"), _whole(dataset, "BitsAllocated")
    below = 0  # unused bits below the others, as old devices left them
    if syntax in _NATIVE or syntax == uid.RLELossless:
        below = min(max(int(_number(dataset, "HighBit") or 0) + 1 - bits, 0), allocated - bits)
    dataset.BitsStored = bits + below
    plugin = PLUGINS.get(syntax, "")
    try:
        with _heard() if plugin == "gdcm" else nullcontext():
            stored = pixel_array(dataset, decoding_plugin=plugin, correct_unused_bits=False, view_only=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the RLE decoder, in Rust, panics with what is no Exception
        cut = "truncated" in str(error).lower()
        reason = "is cut short" if cut else f"cannot be decoded ({type(error).__name__})"
        raise FilmFault(f"{_name(syntax)}: {reason}") from error
    colours = (3,) if _whole(dataset, "SamplesPerPixel", 1) == 3 else ()
    if stored.shape != (_whole(dataset, "Rows"), _whole(dataset, "Columns"), *colours):
        raise FilmFault(f"{_name(syntax)}: its header contradicts its pixels")
    dataset.BitsStored = bits
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return stored >> below if below else stored


def _without_unused_bits(stored: np.ndarray, bits: int) -> np.ndarray:
    """Values whose bits above those in use, which may hold anything, are 0, or the sign's copies."""
    above = max(stored.itemsize * 8 - bits, 0)
    return stored << above >> above


def _in_range(stored: np.ndarray, bits: int) -> tuple[np.ndarray, int, int]:
    """Grey values (rows, columns) without unused bits, which few files hold; the smallest and the largest."""
    lowest, highest = map(int, cv2.minMaxLoc(stored)[:2])
    least = -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0
    if least <= lowest and highest < least + 2**bits:
        return stored, lowest, highest
    return _in_range(_without_unused_bits(stored, bits), bits)


@contextmanager
def _heard() -> Iterator[None]:
    """Hear what GDCM prints, past sys.stderr: of a damaged JPEG Lossless it says so, but decodes something.

    Raises:
        ValueError: It said that.
    """
    with tempfile.TemporaryFile() as printed:
        before = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
        printed.seek(0)
        if b"Corrupt JPEG" in printed.read():
            raise ValueError("corrupt JPEG")


# --- grey scale -------------------------------------------------------------------------------------


def _grey(dataset: Dataset, stored: np.ndarray, inverted: bool, replace_saturated: bool) -> np.ndarray:
    """Stored values -> 0 to 255 by a table of all values there are, in double precision."""
    stored, lowest, highest = _in_range(stored, _whole(dataset, "BitsStored"))
    pattern = stored.view(f"u{stored.itemsize}")  # the bits, whatever their sign
    held = np.arange(lowest, highest + 1)
    levels = held.copy()  # that they stand for
    places = held % 256**stored.itemsize  # among the patterns
    padding = _padding(held, dataset)
    seen = np.zeros(len(held), dtype=bool)
    if padding.any() or replace_saturated or "ModalityLUTSequence" in dataset:
        present = np.zeros(256**stored.itemsize, dtype=bool)
        present[pattern] = True
        seen = present[places]
    else:  # rescaling is a line: its extremes are at the ends
        seen[[0, -1]] = True
    seen &= ~padding
    if not seen.any():
        raise FilmFault("holds nothing but padding")
    if replace_saturated:
        padded = _of_all_patterns(padding, places, stored.itemsize)[pattern]
        levels[held == _saturated(dataset, inverted)] = int(np.median(stored[~padded]))
    values = _modality(levels.astype(np.float64), dataset)
    shown = _voi(values, dataset)
    if shown is None:
        low, high = values[seen].min(), values[seen].max()
        if low == high:
            return np.zeros(stored.shape, dtype=np.uint8)
        shown = (values - low) / (high - low)
    table = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    table = 255 - table if inverted else table
    table[padding] = 0  # after inversion: background is black in both
    if np.array_equal(table, held):
        return pattern.astype(np.uint8, copy=False)
    film = _by_line(stored, held, 255 * (1 - shown if inverted else shown), table)
    return _look_up_all(_of_all_patterns(table, places, stored.itemsize), pattern) if film is None else film


def _by_line(stored: np.ndarray, held: np.ndarray, grey: np.ndarray, table: np.ndarray) -> np.ndarray | None:
    """What `table` makes of the stored values, by a line in half the time; None where that is not the same.

    Args:
        stored: (rows, columns) of 8 or 16 bits, values from `held[0]` to `held[-1]`.
        held: (n,) int64, every value there may be, one apart.
        grey: (n,) float64, of each of them, before it is rounded and clipped to 0-255.
        table: (n,) uint8, after that.
    """
    positive = held[grey >= 0]
    if not len(positive) or min(len(held), stored.size) < 64:  # of so few OpenCV might round otherwise
        return None
    first, last = int(positive[0]), int(positive[-1])
    slope = float(grey[-1] - grey[0]) / max(len(held) - 1, 1)
    start = float(grey[0]) - slope * int(held[0])

    def line(values: np.ndarray) -> np.ndarray:
        if len(positive) < len(held):  # OpenCV takes the absolute value: what is below 0 is clipped before
            values = np.clip(values, first, last)
        return cv2.convertScaleAbs(values, alpha=slope, beta=start)

    same = np.array_equal(line(held.astype(stored.dtype)).ravel(), table)
    return line(stored) if same else None


def _of_all_patterns(values: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """A table of all bit patterns of `size` bytes: 0 but for `values` at their places."""
    table = np.zeros(256**size, dtype=values.dtype)
    table[places] = values
    return table


def _look_up_all(table: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """`table[pattern]`, by OpenCV where it can: eight times faster."""
    return cv2.LUT(pattern, table) if pattern.dtype == np.uint8 or _OPENCV >= 5 else table.take(pattern)


def _padding(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which stored values are padding, bool."""
    value = _number(dataset, "PixelPaddingValue")
    limit = _number(dataset, "PixelPaddingRangeLimit")
    if value is None or not math.isfinite(value):
        return np.zeros(len(levels), dtype=bool)
    ends = [_as_stored(value, dataset)] * 2
    if limit is not None and math.isfinite(limit):
        ends[1] = _as_stored(limit, dataset)
    return (levels >= min(ends)) & (levels <= max(ends))


def _as_stored(value: float, dataset: Dataset) -> int:
    """A value as the pixels hold it: headers give negative ones as unsigned and the reverse."""
    span = 2 ** _whole(dataset, "BitsAllocated")
    value = int(value) % span
    return value - span if _number(dataset, "PixelRepresentation") == 1 and value >= span // 2 else value


def _saturated(dataset: Dataset, inverted: bool) -> int:
    bits = _whole(dataset, "BitsStored")
    lowest = -(2 ** (bits - 1)) if _number(dataset, "PixelRepresentation") == 1 else 0
    return lowest if inverted else lowest + 2**bits - 1


def _modality(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Modality LUT, else rescaling (PS3.3 C.11.1), float64."""
    for item in _items(dataset, "ModalityLUTSequence")[:1]:
        return _look_up(levels, item, dataset)[0]
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise FilmFault("has an impossible rescale slope or intercept")
    return levels * slope + intercept


def _voi(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """VOI LUT, else window (PS3.3 C.11.2), as a value from 0 to 1 before clipping; None without both."""
    for item in _items(dataset, "VOILUTSequence")[:1]:
        grey, bits = _look_up(values, item, dataset)
        return grey / (2**bits - 1)
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    return _window(values, center, width, _text(dataset, "VOILUTFunction") or "LINEAR")


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise FilmFault("has an unknown VOI LUT function")
    if not math.isfinite(center):
        raise FilmFault(f"has an impossible window center ({center:g})")
    if not (math.isfinite(width) and width > 0 and (width >= 1 or function != "LINEAR")):
        raise FilmFault(f"has an impossible window width ({width:g})")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _look_up(values: np.ndarray, item: Dataset, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Values through a LUT (PS3.3 C.11.1.1), float64, and the bits of its entries.

    pydicom's own does not take entries of 8 bits packed in words, nor more than 256 of them.
    """
    try:
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        count = count or 65536
        data = item.LUTData
        if not isinstance(data, bytes):
            data = np.asarray(data, np.uint16).tobytes()
            order = "="
        else:
            order = "<" if dataset.original_encoding[1] is not False else ">"
        table = np.frombuffer(data, np.dtype(f"{order}u2" if len(data) >= 2 * count else "u1"))[:count]
        if len(table) < count or not 8 <= bits <= 16:
            raise ValueError
    except Exception as error:
        raise FilmFault("has a damaged lookup table") from error
    if first > 32767 and values.min() < 0:  # a negative number, read as unsigned
        first -= 65536
    index = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return table[index].astype(np.float64), bits


# --- facts ------------------------------------------------------------------------------------------


def _code(text: str) -> str | None:
    """A short code such as AP. Anything else may be free text, so it is dropped."""
    return text.upper() if re.fullmatch(r"[A-Za-z]{1,4}", text) else None


def _age(dataset: Dataset) -> float | None:
    """PatientAge (`045Y`, SIIM's `45`, months, weeks, days), else birth to study date; in years."""
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", _text(dataset, "PatientAge"))
    if match:
        return round(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}[match[2]], 2)
    dates = [_text(dataset, name) for name in ("PatientBirthDate", "StudyDate")]
    if all(re.fullmatch(r"\d{8}", date) for date in dates):
        birth, study = dates
        age = int(study[:4]) - int(birth[:4]) - (study[4:] < birth[4:])
        return float(age) if 0 <= age <= 130 else None
    return None


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Spacing in the patient's plane as far as known (PS3.3 10.7.1.3), (row, column) in mm."""
    magnification = _number(dataset, "EstimatedRadiographicMagnificationFactor")
    plausible = magnification is not None and 1 <= magnification <= 3
    for name, divisor in (("PixelSpacing", 1.0), ("ImagerPixelSpacing", magnification if plausible else 1.0)):
        values = [number / divisor for number in _numbers(dataset, name)]
        if len(values) == 2 and all(0 < number < 10 for number in values):
            return values[0], values[1]
    return None


def _position(dataset: Dataset) -> str | None:
    """How the patient lay or stood: coded (PS3.3 C.8.11.5), a word, else PatientPosition."""
    for item in _items(dataset, "PatientOrientationCodeSequence")[:1]:
        for code in (*_items(item, "PatientOrientationModifierCodeSequence"), item):
            if _text(code, "CodeValue") in _POSTURES:
                return _POSTURES[_text(code, "CodeValue")]
    for name in ("PatientOrientation", "PatientPosition"):
        word = _text(dataset, name).upper().replace("-", "")
        if word in _POSTURES.values():
            return word
    code = _text(dataset, "PatientPosition")
    return code if re.fullmatch(r"(HF|FF|LF|RF|AF|PF)(S|P|DR|DL|I|)", code) else None


def _view(dataset: Dataset) -> str | None:
    """ViewPosition, else coded (PS3.3 C.8.11.5), else the only one that descriptions name."""
    position = _text(dataset, "ViewPosition")
    if view := _VIEWS.get(position.upper()) or _code(position):
        return view
    for item in _items(dataset, "ViewCodeSequence")[:1]:
        if view := _VIEWS.get(_text(item, "CodeValue")):
            return view
    named = {_VIEWS[word] for word in _words(dataset, "ProtocolName", "SeriesDescription") if word in _VIEWS}
    return named.pop() if len(named) == 1 else None


def _modality_of(dataset: Dataset) -> str | None:
    code = _text(dataset, "Modality").upper()
    return code if re.fullmatch(_MODALITIES, code) else None


def _body_part(dataset: Dataset) -> str | None:
    """Of several that BodyPartExamined names, the chest comes last; of those of free text, it comes first."""
    parts = _parts(dataset, "BodyPartExamined")
    if parts:
        return min(parts, key=CHEST.__eq__)
    for item in _items(dataset, "AnatomicRegionSequence")[:1]:
        if _text(item, "CodeValue") and _text(item, "CodingSchemeDesignator") in _SNOMED:
            return CHEST if _text(item, "CodeValue") in _CHEST_CODES else OTHER
    parts = _parts(dataset, "ProtocolName", "SeriesDescription", "StudyDescription")
    return max(parts, key=CHEST.__eq__, default=None)


def _parts(dataset: Dataset, *keywords: str) -> list[str]:
    """The body parts that descriptions name."""
    words = [CHEST if word in _CHEST_WORDS else word for word in _words(dataset, *keywords)]
    return [word for word in words if word == CHEST or re.fullmatch(_OTHER_WORDS, word)]


def _words(dataset: Dataset, *keywords: str) -> list[str]:
    """The words of descriptions, in capitals. They may be names: only what a table makes of them is kept."""
    return re.findall(r"[A-Z]+", " ".join(_text(dataset, keyword) for keyword in keywords).upper())


def _orientation(dataset: Dataset) -> tuple[str, str] | None:
    value = _get(dataset, "PatientOrientation")
    directions = [str(each).strip().upper() for each in value] if isinstance(value, MultiValue) else []
    if len(directions) != 2 or not all(re.fullmatch(r"[LRAPHF]{1,3}", each) for each in directions):
        return None
    across, down = directions
    one_axis = any(across[0] in axis and down[0] in axis for axis in ("LR", "AP", "HF"))
    return None if one_axis else (across, down)


def _manufacturer(dataset: Dataset) -> str | None:
    text = " ".join(_text(dataset, "Manufacturer").split())
    return text if re.fullmatch(r"[A-Za-z0-9 .,&()-]{1,32}", text) else None


def _date(dataset: Dataset) -> str | None:
    for name in ("StudyDate", "AcquisitionDate", "ContentDate"):
        digits = _text(dataset, name).replace(".", "")  # ACR-NEMA: 2004.08.26
        if re.fullmatch(r"(19|20)\d{6}", digits):
            with suppress(ValueError):  # no such day
                return datetime(int(digits[:4]), int(digits[4:6]), int(digits[6:])).date().isoformat()
    return None
