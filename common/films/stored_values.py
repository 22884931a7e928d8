"""What the bits of grey pixels stand for, where the header may say otherwise.

A header that names too few bits or the wrong sign turns a smooth film into one that is torn where the values
wrap around. So where it matters both readings are compared at neighbouring pixels, of which one wraps and the
other does not: the reading by which these pixels are close to each other is right.
"""

from __future__ import annotations

import cv2
import numpy as np
from pydicom.dataset import Dataset

from common.films.fault import FilmFault, Note
from common.films.header import get_whole_number

CLOSER = 2  # times as close must neighbours be by another reading than the header's
SURELY = 4  # the same, where nothing but the neighbours speaks against the header
FEWEST = 8  # pairs of neighbours, and levels on each side of them, that prove something
LOOKED_AT = 16  # rows of a film whose sign is examined
MOST_PATTERNS = 4  # of unused bits
A_LITTLE, SOME, FEW = 1 / 32, 1 / 4, 0.05  # of the range, by which values overshoot; share of pixels


def without_unused_bits(stored: np.ndarray, bits: int) -> np.ndarray:
    """Values whose bits above those in use, which may hold anything, are 0, or the sign's copies."""
    above = max(stored.itemsize * 8 - bits, 0)
    return stored << above >> above


def settle(dataset: Dataset, stored: np.ndarray, note: Note) -> tuple[np.ndarray, int, int]:
    """The grey values of a film, with its smallest and its largest.

    Bits above those in use are dropped, unless the values need them: then values a little beyond the range,
    as lossy compression makes them, are clipped to it, and for others the header is wrong. The header's
    BitsStored and PixelRepresentation are mended.

    Args:
        dataset: The header.
        stored: (rows, columns) of 8 or 16 bits, as they were decoded.
        note: Hears what of the header was not true.

    Raises:
        FilmFault: Whether the header is wrong cannot be told.
    """
    bits = get_whole_number(dataset, "BitsStored")
    lowest, highest = map(int, cv2.minMaxLoc(stored)[:2])
    if not _fits(lowest, highest, bits, stored):
        stored, bits = _with_more_bits(stored, lowest, highest, bits, note)
        lowest, highest = map(int, cv2.minMaxLoc(stored)[:2])
    if lowest < (middle := _least(bits, stored) + 2 ** (bits - 1)) <= highest and _torn(stored, middle, bits):
        signed = stored.dtype.kind == "i"
        stored = without_unused_bits(stored.view(f"{'u' if signed else 'i'}{stored.itemsize}"), bits)
        note(f"its header says that values are {'signed' if signed else 'unsigned'}, which they are not")
        lowest, highest = map(int, cv2.minMaxLoc(stored)[:2])
    dataset.BitsStored, dataset.PixelRepresentation = bits, int(stored.dtype.kind == "i")
    return stored, lowest, highest


def _least(bits: int, stored: np.ndarray) -> int:
    return -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0


def _fits(lowest: int, highest: int, bits: int, stored: np.ndarray) -> bool:
    return _least(bits, stored) <= lowest and highest < _least(bits, stored) + 2**bits


def _with_more_bits(
    stored: np.ndarray, lowest: int, highest: int, bits: int, note: Note
) -> tuple[np.ndarray, int]:
    """Values of which some lie beyond the range of their bits; and how many bits they have."""
    masked = without_unused_bits(stored, bits)
    whole, wrapped, torn = _steps(stored, masked, bits)
    if CLOSER * whole > wrapped or not wrapped:
        if torn:
            raise FilmFault(f"holds values of more than the {bits} bits that its header says")
        return masked, bits
    least, span = _least(bits, stored), 2**bits
    if lowest >= 0 and highest < span:  # of so many bits, but not signed
        note("its header says that values are signed, which they are not")
        return stored.view(f"u{stored.itemsize}"), bits
    beyond = max(highest - (least + span - 1), least - lowest) / span
    clipped = np.clip(stored, least, least + span - 1)
    if beyond <= A_LITTLE or (beyond <= SOME and np.count_nonzero(clipped != stored) <= FEW * stored.size):
        note(f"values beyond its {bits} bits were clipped")
        return clipped, bits
    needed = max(highest.bit_length(), (-lowest - 1).bit_length()) + (stored.dtype.kind == "i")
    note(f"its header says {bits} bits, its values have {needed}")
    return stored, needed


def _steps(stored: np.ndarray, masked: np.ndarray, bits: int) -> tuple[float, float, bool]:
    """The steps between neighbours that masking parts: their sums before and after it.

    Also whether what it leaves is torn all the same: steps as large as between values drawn at random, where
    the bits above hold more than the few patterns of overlays and padding.
    """
    turns = (stored.astype(np.int32) - masked) >> bits
    sums, count = np.zeros(2), 0
    for axis in (0, 1):
        parted = np.diff(turns, axis=axis) != 0
        count += np.count_nonzero(parted)
        for number, values in enumerate((stored, masked)):
            sums[number] += np.abs(np.diff(values.astype(np.int32), axis=axis))[parted].sum(dtype=float)
    torn = sums[1] > count * 2**bits / 4 and len(np.unique(turns)) > MOST_PATTERNS
    return float(sums[0]), float(sums[1]), bool(torn)


def _torn(stored: np.ndarray, middle: int, bits: int) -> bool:
    """Whether neighbours on both sides of the middle would be closer with the other sign.

    A white mark on a black ground is as torn as that, but of one level on a side; where values wrap around in
    a film there are many on both.
    """
    rows = stored[:: max(len(stored) // LOOKED_AT, 1)]
    upper = rows >= middle
    across = upper[:, 1:] != upper[:, :-1]
    sides = np.stack([rows[:, :-1][across], rows[:, 1:][across]]).astype(np.int32)
    below, above = sides.min(axis=0), sides.max(axis=0)
    steps = above - below
    if SURELY * (2**bits - steps).sum() >= steps.sum():  # nearly every film: the cheap question first
        return False
    return min(len(np.unique(below)), len(np.unique(above))) >= FEWEST
