"""Annotations -> masks: SIIM's run lengths, the hospital's rectangles, and mask pictures.

Whatever an annotation file holds, these readers return a mask or raise `FilmFault`, in bounded time and
memory.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from common.films.fault import FilmFault

SIIM_SIDE = 1024
LARGEST_LABEL = 20_000_000  # bytes of a label.json
LARGEST_PICTURE = 200_000_000  # bytes of a mask picture
_EMPTY = {"", "-1"}
_ORIENTATION = 274  # the EXIF and TIFF tag
_COLOURS = {"RGB": 3, "RGBA": 3, "LA": 1}  # colour channels; alpha follows
_GREYS = {"1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N"}


def decode_rle(text: str, side: int = SIIM_SIDE) -> np.ndarray:
    """Decode SIIM-ACR's run lengths.

    The text holds pairs (gap since the end of the previous run, run length), from zero, down each column,
    columns left to right.

    Args:
        text: The pairs, or `-1` (with or without spaces) for no lesion.
        side: Side of the square film in pixels.

    Returns:
        Mask, (side, side) bool.

    Raises:
        FilmFault: Not pairs of whole numbers, or a run beyond the film.
    """
    size = side * side
    if text.strip() in _EMPTY:
        return np.zeros((side, side), dtype=bool)
    words = text.split()
    if not text.isascii() or not "".join(words).isdigit():
        raise FilmFault("run lengths are not whole numbers")
    # counted before int() sees them: a number of a million digits costs time, one of 20 overflows
    if len(words) % 2 or max(map(len, words)) > 15:
        raise FilmFault("run lengths are not pairs of (gap, length)")
    numbers = np.array([int(word) for word in words], dtype=np.int64)
    if (numbers > size).any():
        raise FilmFault("run lengths are not pairs of (gap, length)")
    end = int(numbers.sum())
    if end > size:
        raise FilmFault(f"a run ends beyond the film of {side} x {side} pixels")
    columns = np.zeros((side, side), dtype=np.uint8)  # the runs go down the columns
    inside = np.arange(len(numbers)) % 2 == 1  # gap, run, gap, run ...
    columns.reshape(-1)[:end] = np.repeat(inside, numbers)
    return cv2.transpose(columns).view(bool)  # OpenCV, because NumPy's transposed view slows all that follows


def encode_rle(mask: np.ndarray) -> str:
    """The inverse of `decode_rle`: a (side, side) bool mask as run lengths, `-1` when empty."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if len(edges) == 0:
        return "-1"
    starts, ends = edges[::2], edges[1::2]
    gaps = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(f"{gap} {length}" for gap, length in zip(gaps, ends - starts, strict=True))


def read_rectangles(path: Path) -> tuple[tuple[int, int], np.ndarray]:
    """Read the rectangles of a hospital's `label.json`, whatever the spelling of their tag.

    Returns:
        (width, height) in pixels of the film that was annotated, both over 0, and the corners, (n, 4)
        float64, finite: left, top, right, bottom in pixels of that film, unclipped.

    Raises:
        FilmFault: The file is too large or not of this form.
    """
    try:
        if path.stat().st_size > LARGEST_LABEL:
            raise FilmFault(f"label.json is larger than {LARGEST_LABEL / 1e6:g} MB")
        content = json.loads(path.read_bytes().decode("utf-8-sig"), parse_int=_whole)
        width, height = (_side(value) for value in content["size"])
        shapes = [_corner(shape["a"]) + _corner(shape["b"]) for shape in content["shapes"]]
        corners = np.array(shapes, dtype=np.float64).reshape(-1, 4)
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        raise FilmFault(f"label.json cannot be read ({type(error).__name__})") from None
    if width <= 0 or height <= 0 or not np.isfinite(corners).all():
        raise FilmFault("label.json holds impossible sizes or corners")
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
    return (width, height), np.hstack([low, high])


def _whole(digits: str) -> int:
    """A whole number as JSON spells it, of at most 15 digits: longer ones cost time and are no pixels.

    Raises:
        ValueError: It is longer.
    """
    if len(digits) > 15:
        raise ValueError("too many digits")
    return int(digits)


def _side(value: Any) -> int:
    """A whole number, also one spelt 2500.0.

    Raises:
        TypeError, ValueError, OverflowError: It is something else.
    """
    if int(_number(value)) != value or value > 1e9:
        raise ValueError("not a side in pixels")
    return int(value)


def _number(value: Any) -> float:
    """A number of a JSON file, as it is: true, false and text are none.

    Raises:
        TypeError: It is no number.
    """
    if type(value) not in (int, float):
        raise TypeError("not a number")
    return value


def _corner(value: Any) -> tuple[float, float]:
    """A list of two numbers.

    Raises:
        TypeError, ValueError: It is something else.
    """
    x, y = value
    return _number(x), _number(y)


def fill_rectangles(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """The union of rectangles: every pixel whose centre lies in one of them.

    The time grows with the film and the number of rectangles, not with their product.

    Args:
        corners: (n, 4), finite: left, top, right, bottom in pixels; parts outside the film are cut off, and
            rectangles whose left is not below their right (or top, bottom) hold nothing.
        width: Width of the film in pixels.
        height: Height of the film in pixels.

    Returns:
        Mask, (height, width) bool.
    """
    limits = [width, height, width, height]
    # pixel i covers [i, i + 1): its centre i + 0.5 is inside when i >= corner - 0.5, rounded up
    pixels = np.clip(np.ceil(np.asarray(corners) - 0.5), 0, limits).astype(np.int64)
    pixels = pixels[(pixels[:, 0] < pixels[:, 2]) & (pixels[:, 1] < pixels[:, 3])]
    left, top, right, bottom = pixels.T
    # +1 where a rectangle begins, -1 where it ends: the sums over rows and columns count the rectangles
    counts = np.zeros((height + 1, width + 1), dtype=np.int32)
    for rows, columns, step in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(counts, (rows, columns), step)
    np.cumsum(counts, axis=0, out=counts)
    np.cumsum(counts, axis=1, out=counts)
    return counts[:height, :width] > 0


def _content(path: Path, largest: int) -> bytes:
    """The bytes of an annotation file; of one that `mask` cannot take, only what went wrong."""
    try:
        size = path.stat().st_size
        return path.read_bytes() if size <= largest else f"{size} bytes".encode()
    except OSError as error:
        return type(error).__name__.encode()


@dataclass(frozen=True)
class RunLengths:
    """SIIM's annotation of a film: one or several rows of run lengths, united."""

    rows: tuple[str, ...]

    def mask(self, width: int, height: int) -> np.ndarray:
        """Mask of the film, (1024, 1024) bool whatever the film's size: SIIM's grid.

        Raises:
            FilmFault: A row that `decode_rle` does not take, or no pixel in any row.
        """
        mask = np.zeros((SIIM_SIDE, SIIM_SIDE), dtype=bool)
        for row in self.rows:
            mask |= decode_rle(row)
        if not mask.any():
            raise FilmFault("its run lengths mark no pixel of the film")
        return mask

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return "\n".join(self.rows).encode()


@dataclass(frozen=True)
class Rectangles:
    """The hospital's annotation of a film: the union of the rectangles in a `label.json`."""

    path: Path

    def mask(self, width: int, height: int) -> np.ndarray:
        """Mask of the film, (height, width) bool.

        Raises:
            FilmFault: Unreadable, made on a film of another size, or without any pixel inside the film.
        """
        size, corners = read_rectangles(self.path)
        if size != (width, height):
            raise FilmFault(f"was annotated as {size[0]} x {size[1]} pixels but has {width} x {height}")
        mask = fill_rectangles(corners, width, height)
        if not mask.any():
            raise FilmFault("label.json marks no pixel of the film")
        return mask

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return _content(self.path, LARGEST_LABEL)


@dataclass(frozen=True)
class PictureMask:
    """An annotation as a PNG or TIFF of the film's size: every pixel that is not black is lesion.

    In a palette picture the colours count, not their numbers; a fully transparent pixel is no lesion.
    """

    path: Path

    def mask(self, width: int, height: int) -> np.ndarray:
        """Mask of the film, (height, width) bool.

        Raises:
            FilmFault: Unreadable, of another size (known before a pixel is decoded), or with no pixel or
                every pixel marked.
        """
        try:
            with warnings.catch_warnings():  # Pillow warns of large pictures: the film is as large
                warnings.simplefilter("ignore")
                mask = self._decode(width, height)
        except FilmFault:
            raise
        except Exception as error:  # a damaged file can make a decoder raise anything
            raise FilmFault(f"its mask cannot be decoded ({type(error).__name__})") from None
        if not mask.any():
            raise FilmFault("its mask marks no pixel of the film")
        if mask.all():
            raise FilmFault("its mask marks every pixel of the film")
        return mask

    def _decode(self, width: int, height: int) -> np.ndarray:
        if self.path.stat().st_size > LARGEST_PICTURE:
            raise FilmFault(f"its mask is a file larger than {LARGEST_PICTURE / 1e6:g} MB")
        with Image.open(self.path, formats=("PNG", "TIFF")) as picture:  # reads the header only
            if picture.size != (width, height):
                raise FilmFault(
                    f"its mask has {picture.width} x {picture.height} pixels, the film {width} x {height}"
                )
            if getattr(picture, "n_frames", 1) != 1:
                raise FilmFault("its mask file holds several pictures")
            if picture.getexif().get(_ORIENTATION, 1) != 1:
                raise FilmFault("its mask has an orientation tag, so it may lie turned on the film")
            if picture.mode in ("P", "PA"):
                picture = picture.convert("RGBA")
            if picture.mode not in _GREYS | set(_COLOURS):
                raise FilmFault("its mask is neither grey nor RGB")
            pixels, mode = np.asarray(picture), picture.mode
        if mode in _GREYS:
            return pixels != 0
        mask = (pixels[..., : _COLOURS[mode]] != 0).any(axis=-1)
        return mask & (pixels[..., -1] != 0) if mode.endswith("A") else mask

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return _content(self.path, LARGEST_PICTURE)
