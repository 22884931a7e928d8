"""Whether decoded pixels can be a radiograph at all: the rule for training, testing and new films alike.

The limits lie far from real films: of 1,085 of them each had 80 grey levels or more, none had more than 49%
of its pixels in one of them, and neighbouring pixels correlated at 0.86 or more.
"""

from __future__ import annotations

import cv2
import numpy as np

FEWEST_LEVELS = 32
MOST_OF_ONE_LEVEL = 0.95  # share of the pixels
LEAST_CORRELATION = 0.5  # of neighbouring pixels
_SAMPLE = 256  # rows and columns that are looked at
_LINES = 16  # likewise, for correlation


def implausible(film: np.ndarray) -> str:
    """Why a film cannot be one; empty where it can.

    Args:
        film: (height, width) uint8.
    """
    rows, columns = (max(length // _SAMPLE, 1) for length in film.shape)
    sample = np.ascontiguousarray(film[::rows, ::columns])
    counts = cv2.calcHist([sample], [0], None, [256], [0, 256])
    if counts.max() > MOST_OF_ONE_LEVEL * sample.size:
        return "is of nearly one grey value"
    levels = int(np.count_nonzero(counts))
    if levels < FEWEST_LEVELS:
        return f"has only {levels} grey levels"
    step = max((len(film) - 1) // _LINES, 1)  # whole rows lie together in memory, columns do not
    rows, below = (np.ascontiguousarray(film[start : len(film) - 1 + start : step]) for start in (0, 1))
    if min(_alike(rows[:, :-1], rows[:, 1:]), _alike(rows, below)) < LEAST_CORRELATION:
        return "is noise: neighbouring pixels are not alike"
    return ""


def _alike(pixels: np.ndarray, neighbours: np.ndarray) -> float:
    """Correlation of pixels with their neighbours in some of the rows; 1 without any contrast.

    By the squared difference of two values that vary alike: 2 (1 - correlation) of their variance.
    """
    power = float(cv2.meanStdDev(pixels)[1][0, 0]) ** 2 if pixels.size else 0.0
    return 1 - cv2.norm(pixels, neighbours, cv2.NORM_L2SQR) / pixels.size / (2 * power) if power else 1.0
