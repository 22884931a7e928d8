"""Can a mask be a pneumothorax? Lung masks, whole films and masks of another film are not."""

from __future__ import annotations

import cv2
import numpy as np

from common.films.fault import FilmFault

# Shares of the film. The largest of 2,669 masks of SIIM-ACR covers 0.154, and 0.051 on its lesser side.
LARGEST = 0.25  # of an outline; one whole lung is less
LARGEST_EACH_SIDE = 0.07  # of an outline on both sides of the middle; half of each lung
BOX = 2.0  # a rectangle around a lesion covers so many times its area
MOST_OUTSIDE = 0.3  # of the lesion that may lie on the film's border; of 741 real ones 0.02 does
_STEP = 4  # every fourth pixel tells where a border is
_EVEN = 2  # levels of grey in 9 x 9 pixels, by every fourth: no picture of a patient is so even
_DARK, _BRIGHT = 12, 243  # the border's grey is near an end of the range


def refuse_impossible(mask: np.ndarray, film: np.ndarray, boxes: bool) -> None:
    """Refuse a mask that is no lesion of this film.

    Args:
        mask: (side, side) bool, with a lesion.
        film: (side, side) uint8.
        boxes: The mask is made of rectangles.

    Raises:
        FilmFault: It covers most of the film or of both lungs, or lies mostly on the border (a collimator or
            padding) that encloses the picture.
    """
    factor = BOX if boxes else 1.0
    middle, size = mask.shape[1] // 2, mask.size
    halves = [np.count_nonzero(half) for half in (mask[:, :middle], mask[:, middle:])]
    if sum(halves) > LARGEST * factor * size:
        raise FilmFault(
            "its mask covers more of the film than a pneumothorax can (inverted, or of something else)"
        )
    if min(halves) > LARGEST_EACH_SIDE * factor * size:
        raise FilmFault("its mask covers most of both lungs: a mask of lungs, not of a pneumothorax")
    border, seen = _border(film[::_STEP, ::_STEP]), mask[::_STEP, ::_STEP]
    if border[seen].sum() > MOST_OUTSIDE * seen.sum():
        raise FilmFault("its mask lies outside of what the film shows: of another film, or shifted")


def _border(film: np.ndarray) -> np.ndarray:
    """(side, side) bool of a reduced film: even, black or white, and connected to the film's edge."""
    square = np.ones((3, 3), np.uint8)
    film = np.ascontiguousarray(film)
    low, high = cv2.erode(film, square), cv2.dilate(film, square)
    even = (high - low <= _EVEN) & ((high <= _DARK) | (low >= _BRIGHT))
    parts, labels = cv2.connectedComponents(even.astype(np.uint8))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    at_edge = np.zeros(parts, dtype=bool)
    at_edge[edge] = True
    at_edge[0] = False  # 0: what is not even
    return at_edge[labels]
