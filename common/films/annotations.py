"""Annotations -> masks: SIIM's run lengths and the hospital's rectangles. Files of masks: `mask_files.py`.

Whatever an annotation file holds, these readers return a mask or raise `FilmFault`, in bounded time and
memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common.films.fault import FilmFault, Note
from common.films.fill_shapes import fill_rectangles
from common.films.json_numbers import corner, length, whole

SIIM_SIDE = 1024
LARGEST_LABEL = 20_000_000  # bytes of a label.json
_EMPTY = {"", "-1"}


def unsaid(text: str) -> None:
    """A note that nobody hears: the default of whoever reads an annotation."""


def decode_rle(text: str, side: int = SIIM_SIDE) -> np.ndarray:
    """Decode SIIM-ACR's run lengths.

    The text holds pairs (gap since the end of the previous run, run length), from zero, down each column,
    columns left to right.

    Args:
        text: Run-length pairs of start and length, or `-1` (with or without spaces) for no lesion.
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
        # `-sig`: Windows writes a byte-order mark in front, which JSON does not know.
        content = json.loads(path.read_bytes().decode("utf-8-sig"), parse_int=whole)
        width, height = (length(value) for value in content["size"])
        shapes = [corner(shape["a"]) + corner(shape["b"]) for shape in content["shapes"]]
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


def content_of(path: Path, largest: int) -> bytes:
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

    def mask(self, width: int, height: int, note: Note = unsaid, instance: str = "") -> np.ndarray:
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

    def has_boxes(self) -> bool:
        """Whether it marks boxes around a lesion: no."""
        return False

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return "\n".join(self.rows).encode()


@dataclass(frozen=True)
class Rectangles:
    """The hospital's annotation of a film: the union of the rectangles in a `label.json`."""

    path: Path

    def mask(self, width: int, height: int, note: Note = unsaid, instance: str = "") -> np.ndarray:
        """Mask of the film, (height, width) bool; empty without any rectangle.

        Raises:
            FilmFault: Unreadable, made on a film of another size, or its rectangles hold no pixel of it.
        """
        size, corners = read_rectangles(self.path)
        if size != (width, height):
            raise FilmFault(f"was annotated as {size[0]} x {size[1]} pixels but has {width} x {height}")
        mask = fill_rectangles(corners, width, height)
        if len(corners) and not mask.any():
            raise FilmFault("label.json marks no pixel of the film")
        return mask

    def has_boxes(self) -> bool:
        """Whether it marks boxes around a lesion: yes."""
        return True

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return content_of(self.path, LARGEST_LABEL)
