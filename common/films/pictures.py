"""One PNG, JPEG or TIFF file -> an 8-bit film."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from common.films.annotations import unsaid
from common.films.fault import FilmFault, Note
from common.films.own_outputs import refuse_own_picture

MOST_PIXELS = 100_000_000  # of a film: five times the largest detector; more is a damaged or hostile header
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _WHITE_IS_ZERO = 258, 262, 274, 0  # TIFF 6.0

# By their first bytes. The plug-ins, not Image.open, which decides by itself what too many pixels are.
_READERS: dict[bytes, tuple[str, Callable[[BytesIO], ImageFile.ImageFile]]] = {
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImagePlugin.PngImageFile),
    b"\xff\xd8\xff": ("JPEG", JpegImagePlugin.JpegImageFile),
    b"II*\0": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"MM\0*": ("TIFF", TiffImagePlugin.TiffImageFile),
}
_AS_SHOWN: dict[object, Callable[[np.ndarray], np.ndarray]] = {  # by the orientation (TIFF 6.0, EXIF 3.0)
    2: np.fliplr,
    3: lambda film: np.rot90(film, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda film: np.rot90(film, -1),
    7: lambda film: np.rot90(film, 2).T,
    8: np.rot90,
}
TURNED = "its orientation tag was followed, as viewers do"


def is_picture(start: bytes) -> bool:
    """Whether a file that starts with these 8 bytes or more is a PNG, JPEG or TIFF."""
    return start.startswith(tuple(_READERS))


def decode_picture(content: bytes, note: Note = unsaid) -> np.ndarray:
    """The bytes of a PNG, JPEG or TIFF file as an 8-bit film.

    Up to 8 bits: as stored, colour by its luminance (ITU-R BT.601). 16 bits: the smallest value becomes 0,
    the largest 255. Transparency is ignored. Pixels lie as viewers show them, by the orientation tag (EXIF,
    TIFF): masks are drawn on what is shown.

    Args:
        content: Content of the file.
        note: Hears that an orientation tag was followed.

    Returns:
        (height, width) uint8, 0 to 255.

    Raises:
        FilmFault: It is none of them, has several pages, more than `MOST_PIXELS`, other than 1 to 8 or 16
            bits a sample, is cut short or damaged.
    """
    for start, (name, reader) in _READERS.items():
        if content.startswith(start):
            return _read(content, name, reader, note)
    raise FilmFault("is no PNG, JPEG or TIFF file")


def _read(
    content: bytes, name: str, reader: Callable[[BytesIO], ImageFile.ImageFile], note: Note
) -> np.ndarray:
    try:
        with warnings.catch_warnings(), reader(BytesIO(content)) as image:
            warnings.simplefilter("ignore")
            _check(image, content)
            return _to_8_bit(image, content, note)
    except FilmFault:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        cut = "truncated" in str(error).lower()
        raise FilmFault(f"is cut short ({name})" if cut else f"cannot be decoded ({name})") from error


def _check(image: Image.Image, content: bytes) -> None:
    """Refuse by the header, before any memory is taken for the pixels."""
    refuse_own_picture(image.info)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise FilmFault(f"claims {width} x {height} pixels")
    depth = _depth(image, content)
    if depth not in (1, 2, 4, 8, 16):
        raise FilmFault(f"holds {depth}-bit pixels, neither 8 nor 16")
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise FilmFault(f"holds {pages} pages, not one film")


def _to_8_bit(image: Image.Image, content: bytes, note: Note) -> np.ndarray:
    deep = _depth(image, content) == 16
    white_is_zero = _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    orientation = _tag(image, _ORIENTATION)
    image.load()  # all of it, so that a file cut short is noticed; Pillow forgets the tags in doing so
    film = stretch(_deep_pixels(image, content)) if deep else np.asarray(image.convert("L"))
    if deep and white_is_zero:  # Pillow inverts it up to 8 bits only
        film = 255 - film
    if not isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow and OpenCV turn a TIFF, and no other
        orientation = image.getexif().get(_ORIENTATION)
        if orientation in _AS_SHOWN:
            film = np.ascontiguousarray(_AS_SHOWN[orientation](film))
    if orientation in _AS_SHOWN:
        note(TURNED)
    if film.ndim != 2:  # tags of a TIFF that contradict each other
        raise FilmFault("its header contradicts its pixels")
    return film


def _deep_pixels(image: Image.Image, content: bytes) -> np.ndarray:
    """Grey or luminance of 16 bits, (height, width). Pillow reads colour of 16 bits as 8, OpenCV does not."""
    bands = len(image.getbands())
    if bands == 1:
        return np.asarray(image)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it prints of unknown tags
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    return pixels[..., 0] if bands == 2 else cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2GRAY)


def _depth(image: Image.Image, content: bytes) -> int:
    """Bits a sample."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        return content[24]  # of IHDR, which is always first
    bits = _tag(image, _BITS_PER_SAMPLE)
    return max(bits) if isinstance(bits, tuple) else bits or 8


def _tag(image: Image.Image, number: int) -> tuple[int, ...] | int | None:
    return image.tag_v2.get(number) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def stretch(values: np.ndarray) -> np.ndarray:
    """Smallest value -> 0, largest -> 255, rounded, as uint8; an image of one value is black."""
    low, high = float(values.min()), float(values.max())
    # An image of one value is not divided by 0.
    return np.rint((values.astype(np.float32) - low) / (high - low or 1.0) * 255).astype(np.uint8)
