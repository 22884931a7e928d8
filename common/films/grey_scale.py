"""Stored grey values -> 0 to 255, as a viewer would show them (PS3.3 C.11)."""

from __future__ import annotations

import math

import cv2
import numpy as np
from pydicom.dataset import Dataset

from common.films.fault import FilmFault, Note
from common.films.header import get_items, get_number, get_text, get_whole_number
from common.films.plausible import implausible
from common.films.stored_values import settle

DULL = 64 / 255  # of the grey levels, which the values of a film must fill
DIM = 0.5  # of them: what fills less is told
GIVES_WAY = "its window or lookup table leaves hardly any grey levels: smallest to largest value instead"
IS_DIM = "its window or lookup table shows it in less than half of the grey levels"
_OPENCV = int(cv2.__version__.split(".")[0])  # from 5 on its tables take 16 bits


def grey_to_8_bit(
    dataset: Dataset, stored: np.ndarray, inverted: bool, replace_saturated: bool, note: Note
) -> np.ndarray:
    """Stored values -> 0 to 255 by a table of all values there are, in double precision."""
    stored, lowest, highest = settle(dataset, stored, note)
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
    # Padding is no grey of the film: it must not set the darkest or brightest one.
    seen &= ~padding
    if not seen.any():
        raise FilmFault("holds nothing but padding")
    if replace_saturated:
        padded = _of_all_patterns(padding, places, stored.itemsize)[pattern]
        levels[held == _saturated(dataset, inverted)] = int(np.median(stored[~padded]))
    values = _modality(levels.astype(np.float64), dataset)
    low, high = values[seen].min(), values[seen].max()
    full = (values - low) / (high - low) if low < high else np.zeros(len(values))

    def show(shown: np.ndarray) -> np.ndarray:
        table = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        table = 255 - table if inverted else table
        table[padding] = 0  # after inversion: background is black in both
        if low == high:  # likewise
            table[:] = 0
        if np.array_equal(table, held):
            return pattern.astype(np.uint8, copy=False)
        by_line = _by_line(stored, held, 255 * (1 - shown if inverted else shown), table)
        if by_line is not None:
            return by_line
        return _look_up_all(_of_all_patterns(table, places, stored.itemsize), pattern)

    shown = _voi(values, dataset, note)
    if shown is None:
        return show(full)
    film = show(shown)
    first, last = np.flatnonzero(seen)[[0, -1]]  # padding lies apart from what the film holds
    filled = np.ptp(np.clip(shown[first : last + 1], 0, 1))
    if filled <= DULL or implausible(film):
        by_values = show(full)
        if not implausible(by_values):
            note(GIVES_WAY)
            return by_values
    if filled < DIM:
        note(IS_DIM)
    return film


def _by_line(stored: np.ndarray, held: np.ndarray, grey: np.ndarray, table: np.ndarray) -> np.ndarray | None:
    """What `table` makes of the stored values, by a line in half the time; None where that is not the same.

    Args:
        stored: (rows, columns) of 8 or 16 bits, values from `held[0]` to `held[-1]`.
        held: (n,) int64, every value there may be, one apart.
        grey: (n,) float64, grey level of each value, before it is rounded and clipped to 0-255.
        table: (n,) uint8, grey level of each value after rounding and clipping.
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
    """Stored values that are padding, as bool."""
    value = get_number(dataset, "PixelPaddingValue")
    limit = get_number(dataset, "PixelPaddingRangeLimit")
    if value is None or not math.isfinite(value):
        return np.zeros(len(levels), dtype=bool)
    ends = [_as_stored(value, dataset)] * 2
    if limit is not None and math.isfinite(limit):
        ends[1] = _as_stored(limit, dataset)
    return (levels >= min(ends)) & (levels <= max(ends))


def _as_stored(value: float, dataset: Dataset) -> int:
    """A value as the pixels hold it: headers give negative ones as unsigned and the reverse."""
    span = 1 << get_whole_number(dataset, "BitsAllocated")
    bits = int(value) % span
    return bits - span if get_number(dataset, "PixelRepresentation") == 1 and bits >= span // 2 else bits


def _saturated(dataset: Dataset, inverted: bool) -> int:
    bits = get_whole_number(dataset, "BitsStored")
    lowest = -(2 ** (bits - 1)) if get_number(dataset, "PixelRepresentation") == 1 else 0
    return lowest if inverted else lowest + 2**bits - 1


def _modality(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Modality LUT, else rescaling (PS3.3 C.11.1), float64."""
    for item in get_items(dataset, "ModalityLUTSequence")[:1]:
        return _look_up(levels, item, dataset)[0]
    slope, intercept = get_number(dataset, "RescaleSlope"), get_number(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise FilmFault("has an impossible rescale slope or intercept")
    return levels * slope + intercept


def _voi(values: np.ndarray, dataset: Dataset, note: Note) -> np.ndarray | None:
    """VOI LUT, else window (PS3.3 C.11.2), as a value from 0 to 1 before clipping; None without both."""
    for item in get_items(dataset, "VOILUTSequence")[:1]:
        grey, bits, largest = _look_up(values, item, dataset)
        needed = largest.bit_length()
        if not bits - 2 < needed <= bits and largest:  # at most a quarter of the range, or beyond it
            note(f"its lookup table says {bits} bits, its entries have {needed}")
            bits = needed
        return grey / (2**bits - 1)
    center, width = get_number(dataset, "WindowCenter"), get_number(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    return _window(values, center, width, get_text(dataset, "VOILUTFunction") or "LINEAR")


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


def _look_up(values: np.ndarray, item: Dataset, dataset: Dataset) -> tuple[np.ndarray, int, int]:
    """Values through a LUT (PS3.3 C.11.1.1), float64, the bits that it says it has, and its largest entry.

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
    return table[index].astype(np.float64), bits, int(table.max())
