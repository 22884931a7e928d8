"""A PNG, TIFF or JPEG of the film's size that marks a lesion -> a mask."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from common.films.fault import FilmFault, Note
from common.films.mask_values import lesion_of_colours, lesion_of_greys
from common.films.pictures import TURNED

_ORIENTATION = 274  # the EXIF and TIFF tag
_GREYS = {"1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N"}


def read_mask_picture(content: bytes, width: int, height: int, note: Note) -> np.ndarray:
    """The lesion that a picture marks, as viewers show it. In a palette the colours count, not numbers.

    Args:
        content: Content of the file.
        width: Width of the film in pixels.
        height: Height of the film in pixels.
        note: Hears how the picture was read where it is not plainly black and white.

    Returns:
        Mask, (height, width) bool.

    Raises:
        FilmFault: Another size than the film's (known before a pixel is decoded), several pages, neither grey
            nor RGB, or values that do not tell what is lesion.
    """
    with warnings.catch_warnings():  # Pillow warns of large pictures: the film is as large
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(content), formats=("PNG", "TIFF", "JPEG")) as picture:  # the header only
            if (width, height) not in (picture.size, picture.size[::-1]):  # which a tag may turn
                _refuse_size(picture, width, height)
            if getattr(picture, "n_frames", 1) != 1:
                raise FilmFault("its mask file holds several pictures")
            turned = picture.getexif().get(_ORIENTATION) in range(2, 9)
            if turned:  # a TIFF's pixels are turned already
                note(f"mask: {TURNED}")
            plain = ImageOps.exif_transpose(picture) if turned else picture
            if plain.size != (width, height):
                _refuse_size(plain, width, height)
            if plain.mode in ("P", "PA", "LA"):
                plain = plain.convert("RGBA")
            if plain.mode not in _GREYS | {"RGB", "RGBA"}:
                raise FilmFault("its mask is neither grey nor RGB")
            pixels, mode = np.asarray(plain), plain.mode
    return lesion_of_greys(pixels, note) if mode in _GREYS else lesion_of_colours(pixels, note)


def _refuse_size(picture: Image.Image, width: int, height: int) -> None:
    raise FilmFault(f"its mask has {picture.width} x {picture.height} pixels, the film {width} x {height}")
