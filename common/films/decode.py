"""One image file -> an 8-bit film and the facts of its header."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array

from common.films.fault import FilmFault, Note
from common.films.grey_scale import grey_to_8_bit
from common.films.header import facts, flatten, get_number, get_text, get_value, get_whole_number
from common.films.own_outputs import refuse_own_object
from common.films.pictures import MOST_PIXELS, decode_picture, is_picture, stretch
from common.films.stored_values import without_unused_bits
from common.films.streams import Stream, decode_12_bit_jpeg

# One plug-in of pydicom for each compression, so that all machines decode alike. GDCM would do JPEG-LS as
# well, but there a damaged film ends the process.
PLUGINS = {
    uid.JPEGBaseline8Bit: "pillow",  # in a quarter of GDCM's time
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "gdcm",
    uid.JPEG2000: "gdcm",
    uid.RLELossless: "pylibjpeg",
}
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


@dataclass(frozen=True)
class Film:
    """A film, decoded.

    Attributes:
        pixels: (height, width) uint8, 0 to 255, air dark; read-only where they are the file's own bytes.
        patient_id: DICOM PatientID, `""` where unknown. Never written anywhere but as a pseudonym.
        age: Years, 0 to 130; None where unknown.
        sex: Sex of the patient, `M`, `F` or None.
        view: View such as `AP` or `LL`: ViewPosition, else coded (ViewCodeSequence), else the only view that
            the descriptions of series and study name; None where unknown.
        spacing: (row, column) spacing in mm, or None. PixelSpacing; without a possible one
            ImagerPixelSpacing, which is at the detector, divided by EstimatedRadiographicMagnificationFactor
            where that is given.
        study: StudyInstanceUID, `""` where unknown. Never written anywhere but as a pseudonym.
        instance: SOPInstanceUID, `""` where unknown. Never written.
        position: `SUPINE`, `PRONE`, `ERECT`, `SEMIERECT` or `RECUMBENT` (coded or as PatientOrientation),
            else PatientPosition such as `HFS`; None where unknown. Row and column directions are none.
        manufacturer: Maker of the device: at most 32 letters, digits and ` .,&()-`; else None.
        date: Date of the study, else of the acquisition or content, `YYYY-MM-DD`; None where unknown.
        burned_in: The header says that text, perhaps a name, is part of the picture.
        modality: A defined term (PS3.3 C.7.3.1.1.1) such as `DX`; None where unknown or `OT`.
        body_part: `CHEST`, another such as `HAND`, or `OTHER`: BodyPartExamined (PS3.16 Annex L), else coded
            (AnatomicRegionSequence), else as protocol, series or study name it; None where unknown.
        orientation: Where a row and a column lead in the patient (PatientOrientation, PS3.3 C.7.6.1.1.1),
            each of the letters `LRAPHF`: (`L`, `F`) of a frontal film as it is hung, with the patient's left
            on the picture's right. None where unknown.
        for_processing: PresentationIntentType says that the grey levels are not for reading.
        notes: What was odd about file or header, and how it was read; they repeat no text of the header.
    """

    pixels: np.ndarray
    patient_id: str = ""
    age: float | None = None
    sex: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None
    study: str = ""
    instance: str = ""
    position: str | None = None
    manufacturer: str | None = None
    date: str | None = None
    burned_in: bool = False
    modality: str | None = None
    body_part: str | None = None
    orientation: tuple[str, str] | None = None
    for_processing: bool = False
    notes: tuple[str, ...] = ()


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
    frame. Compressions (PS3.5 A.4): JPEG of 8 and 12 bits, JPEG Lossless, JPEG-LS, JPEG 2000 and RLE.

    Args:
        content: Bytes of the image file.
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
                notes: list[str] = []
                return Film(decode_picture(content, notes.append), notes=tuple(notes))
            return _decode_dicom(content, is_dicom, replace_saturated)
    except FilmFault:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise FilmFault(f"cannot be read ({type(error).__name__})") from error


def _decode_dicom(content: bytes, has_preamble: bool, replace_saturated: bool) -> Film:
    try:
        # `force`: some archives export without the preamble by which a DICOM file is known.
        dataset = pydicom.dcmread(BytesIO(content), force=True)
    except Exception as error:
        raise FilmFault("is damaged" if has_preamble else "is no DICOM, PNG, JPEG or TIFF file") from error
    if has_preamble and not dataset:  # how pydicom hands back a compressed picture without its end
        raise FilmFault("is cut short")
    if not has_preamble and "SOPClassUID" not in dataset and "Rows" not in dataset:
        raise FilmFault("is no DICOM, PNG, JPEG or TIFF file")
    refuse_own_object(dataset)
    flatten(dataset)
    notes: list[str] = []
    pixels = _to_8_bit(dataset, replace_saturated, notes.append)
    known = facts(dataset, notes.append)
    return Film(pixels, **known, notes=tuple(notes))


# --- pixels -----------------------------------------------------------------------------------------


def _to_8_bit(dataset: Dataset, replace_saturated: bool, note: Note) -> np.ndarray:
    if not get_value(dataset, "PixelData"):
        raise FilmFault("holds no picture")
    syntax = _transfer_syntax(dataset)
    photometric = _check(dataset, syntax)
    stored = _decode(dataset, syntax)
    if photometric.startswith("MONOCHROME"):
        return grey_to_8_bit(dataset, stored, photometric == "MONOCHROME1", replace_saturated, note)
    stored = without_unused_bits(stored, get_whole_number(dataset, "BitsStored"))
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    luminance = cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
    return luminance if luminance.dtype == np.uint8 else stretch(luminance)


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    """The file's transfer syntax; without one, that of an uncompressed file as pydicom could read it."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if not get_value(dataset.file_meta, "TransferSyntaxUID"):
        if dataset.PixelData.startswith(b"\xfe\xff\x00\xe0"):  # an item: compressed, by what nobody says
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
    photometric = get_text(dataset, "PhotometricInterpretation")
    _fill_gaps(dataset, _SAMPLES.get(photometric, 1))
    frames = get_whole_number(dataset, "NumberOfFrames")
    if frames > 1:
        raise FilmFault(f"holds {frames} frames, not one film")
    rows, columns = get_whole_number(dataset, "Rows"), get_whole_number(dataset, "Columns")
    samples = get_whole_number(dataset, "SamplesPerPixel")
    if rows * columns * samples > MOST_PIXELS:
        raise FilmFault(f"claims {columns} x {rows} pixels")
    if photometric not in _SAMPLES:
        raise FilmFault(f"has {'an unknown' if photometric else 'no'} photometric interpretation")
    if samples != _SAMPLES[photometric]:
        raise FilmFault(f"has {samples} samples per pixel, which is not {photometric}")
    allocated = get_whole_number(dataset, "BitsAllocated")
    if allocated not in (8, 16):
        raise FilmFault(f"holds pixels of {allocated} bits, not 8 or 16")
    if get_whole_number(dataset, "BitsStored") > allocated:
        raise FilmFault("has an impossible BitsStored")
    if syntax in _NATIVE:
        share = 2 / 3 if photometric == "YBR_FULL_422" else 1  # where two pixels share their colours
        if len(dataset.PixelData) < rows * columns * samples * share * allocated // 8:
            raise FilmFault("is cut short")
    elif syntax not in PLUGINS or not get_decoder(syntax).is_available:
        raise FilmFault(f"{_name(syntax)}: no decoder")
    elif syntax != uid.RLELossless:
        _check_compressed(dataset, syntax, rows, columns)
    return photometric


def _fill_gaps(dataset: Dataset, samples: int) -> None:
    """Give a header the numbers that other readers assume where they are missing, or there are no frames."""
    if get_number(dataset, "NumberOfFrames") in (None, 0):
        dataset.NumberOfFrames = 1
    for keyword, value in (
        ("SamplesPerPixel", samples),
        ("PixelRepresentation", 0),
        ("PlanarConfiguration", 0),
    ):
        if get_value(dataset, keyword) is None:
            setattr(dataset, keyword, value)


def _check_compressed(dataset: Dataset, syntax: uid.UID, rows: int, columns: int) -> None:
    """Refuse a compressed picture of another size or other samples than the header says.

    Where bits or sign differ, the picture is believed, as decoders do, and the header is mended by it.
    """
    try:
        stream = Stream.of(_frame(dataset))
    except Exception as error:
        raise FilmFault(f"{_name(syntax)}: is cut short or damaged") from error
    if (stream.height, stream.width) != (rows, columns):
        raise FilmFault(f"claims {columns} x {rows} pixels, but holds {stream.width} x {stream.height}")
    if stream.components != dataset.SamplesPerPixel:
        claimed = dataset.SamplesPerPixel
        raise FilmFault(
            f"claims {claimed} samples per pixel, but its {_name(syntax)} holds {stream.components}"
        )
    if stream.bits > 16 or (PLUGINS[syntax] == "pillow" and stream.bits > 8 and not _is_12_bit_jpeg(stream)):
        raise FilmFault(f"{_name(syntax)}, {stream.bits} bits: no decoder")
    if stream.bits > get_whole_number(dataset, "BitsAllocated"):  # then BitsStored is wrong as well
        dataset.BitsStored = stream.bits
    dataset.BitsAllocated = 8 if stream.bits <= 8 else 16
    dataset.BitsStored = min(get_whole_number(dataset, "BitsStored"), dataset.BitsAllocated)
    if stream.signed is not None:
        dataset.PixelRepresentation = int(stream.signed)


def _frame(dataset: Dataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _is_12_bit_jpeg(stream: Stream) -> bool:
    return stream.sequential and stream.bits == 12 and stream.components == 1


def _decode(dataset: Dataset, syntax: uid.UID) -> np.ndarray:
    """Stored values of 8 or 16 bits, those above BitsStored as they are: (rows, columns), or (..., 3) RGB."""
    bits, allocated = get_whole_number(dataset, "BitsStored"), get_whole_number(dataset, "BitsAllocated")
    below = 0  # unused bits below the others, as old devices left them
    if syntax in _NATIVE or syntax == uid.RLELossless:
        below = min(max(int(get_number(dataset, "HighBit") or 0) + 1 - bits, 0), allocated - bits)
    plugin = PLUGINS.get(syntax, "")
    try:
        with _heard() if plugin == "gdcm" or (plugin == "pillow" and allocated == 16) else nullcontext():
            stored = _by_plugin(dataset, plugin)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the RLE decoder, in Rust, panics with what is no Exception
        cut = "truncated" in str(error).lower()
        reason = "is cut short" if cut else f"cannot be decoded ({type(error).__name__})"
        raise FilmFault(f"{_name(syntax)}: {reason}") from error
    colours = (3,) if dataset.SamplesPerPixel == 3 else ()
    if stored.shape != (get_whole_number(dataset, "Rows"), get_whole_number(dataset, "Columns"), *colours):
        raise FilmFault(f"{_name(syntax)}: its header contradicts its pixels")
    dataset.BitsStored = bits  # as it was: `_by_plugin` names all bits
    # OpenCV takes the machine's own byte order only.
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return stored >> below if below else stored


def _by_plugin(dataset: Dataset, plugin: str) -> np.ndarray:
    """What a plug-in of pydicom makes of the pixels; told of all bits, since it would cut values down."""
    if plugin == "pillow" and dataset.BitsAllocated == 16:
        return decode_12_bit_jpeg(_frame(dataset), dataset.Rows, dataset.Columns)
    dataset.BitsStored = dataset.BitsAllocated
    return pixel_array(dataset, decoding_plugin=plugin, correct_unused_bits=False, view_only=True)


@contextmanager
def _heard() -> Iterator[None]:
    """Hear what GDCM prints, past sys.stderr: of a damaged JPEG Lossless it says so, but decodes something.

    Raises:
        ValueError: It said that.
    """
    # A file, not a pipe, which would fill up and block while nobody reads it.
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
