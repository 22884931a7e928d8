"""Annotations -> masks: SIIM's run lengths, the hospital's rectangles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.faults import FilmFault

SIIM_SIDE = 1024
_EMPTY = {"", "-1"}


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
    flat = np.zeros(side * side, dtype=bool)
    if text.strip() in _EMPTY:
        return flat.reshape(side, side)
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError):
        raise FilmFault("run lengths are not whole numbers") from None
    if len(numbers) % 2 or (numbers < 0).any() or (numbers > flat.size).any():
        raise FilmFault("run lengths are not pairs of (gap, length)")
    ends = np.cumsum(numbers)[1::2]
    if ends[-1] > flat.size:
        raise FilmFault(f"a run ends beyond the film of {side} x {side} pixels")
    for start, end in zip(ends - numbers[1::2], ends, strict=True):
        flat[start:end] = True
    return flat.reshape(side, side).T  # the runs go down the columns


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
        (width, height) in pixels of the film that was annotated, and the corners, (n, 4) float64:
        left, top, right, bottom in pixels of that film, unclipped.

    Raises:
        FilmFault: The file is not of this form.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        width, height = (int(side) for side in content["size"])
        corners = np.array(
            [[*shape["a"], *shape["b"]] for shape in content["shapes"]], dtype=np.float64
        ).reshape(-1, 4)
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise FilmFault(f"label.json cannot be read ({type(error).__name__})") from None
    if width <= 0 or height <= 0 or not np.isfinite(corners).all():
        raise FilmFault("label.json holds impossible sizes or corners")
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
    return (width, height), np.hstack([low, high])


def fill_rectangles(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """The union of rectangles: every pixel whose centre lies in one of them.

    Args:
        corners: (n, 4): left, top, right, bottom in pixels; parts outside the film are cut off.
        width: Of the film in pixels.
        height: Of the film in pixels.

    Returns:
        Mask, (height, width) bool.
    """
    mask = np.zeros((height, width), dtype=bool)
    limits = [width, height, width, height]
    # pixel i covers [i, i + 1): its centre i + 0.5 is inside when i >= corner - 0.5, rounded up
    for left, top, right, bottom in np.clip(np.ceil(corners - 0.5), 0, limits).astype(int):
        mask[top:bottom, left:right] = True
    return mask


@dataclass(frozen=True)
class RunLengths:
    """SIIM's annotation of a film: one or several rows of run lengths, united."""

    rows: tuple[str, ...]

    def mask(self, width: int, height: int) -> np.ndarray:
        """Mask of the film, (1024, 1024) bool whatever the film's size: SIIM's grid."""
        return np.logical_or.reduce([decode_rle(row) for row in self.rows])

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
        return self.path.read_bytes()
