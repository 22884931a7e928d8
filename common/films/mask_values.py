"""Which pixels of a mask picture are lesion? Black is none, one brighter value or colour is.

Masks come out of drawing programs, resizing and JPEG with grey edges, and out of other projects with several
classes, inverted, or as pictures that are no masks at all. Edges are cut at half of full grey, with a note;
all else is a fault, because nobody can know what was meant.
"""

from __future__ import annotations

import cv2
import numpy as np

from common.films.fault import FilmFault, Note

MOST_GREY = 0.2  # of a mask: soft edges of the largest lesions are 0.05, a film is grey all over
FEW_VALUES = 16  # up to so many, each may be a class of its own
EDGE_SHARE = 0.05  # of the lesion that may lie in even patches of grey (blocks of a JPEG)
NEARLY_BLACK = 0.1  # of the brightest value: a JPEG's noise in the background
SAME_HUE = 0.25  # largest difference of a colour's channels, each over its brightest one


def lesion_of_greys(greys: np.ndarray, note: Note) -> np.ndarray:
    """The lesion of a grey mask.

    Args:
        greys: (height, width) of bool or whole numbers, 0 being no lesion.
        note: Hears that edges were cut.

    Returns:
        Mask, (height, width) bool.

    Raises:
        FilmFault: No pixel is black, values are negative, several classes, or a picture that is no mask.
    """
    marked = greys != 0
    brightest = greys.max()
    if not marked.any():
        return marked
    if (marked == (greys == brightest)).all() and not marked.all():
        return marked
    share = greys.astype(np.float32) / np.float32(brightest)
    if greys.min() < 0 or share.min() > NEARLY_BLACK:
        raise FilmFault("its mask has no black background (marks every pixel, is inverted or is no mask)")
    _refuse_classes(share, greys)
    if ((share > 0.1) & (share < 0.9)).mean() > MOST_GREY:
        raise FilmFault("its mask is grey all over: a film or a map of probabilities, no mask")
    note("its mask has grey edges, which were cut at half of full grey")
    return share >= 0.5


def lesion_of_colours(pixels: np.ndarray, note: Note) -> np.ndarray:
    """The lesion of a mask in colour: black is none, nor is what is transparent.

    Args:
        pixels: (height, width, 3 or 4) uint8, RGB or RGBA.
        note: Hears that edges were cut.

    Returns:
        Mask, (height, width) bool.

    Raises:
        FilmFault: As `lesion_of_greys`; or several colours; or black on a transparent background.
    """
    greys = pixels[..., :3].max(axis=-1)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3]
        if not (greys[alpha > 0]).any() and len(np.unique(alpha)) > 1:
            raise FilmFault("its mask is black on a transparent background: no colour marks the lesion")
        if (alpha != 255).any():
            greys = np.rint(greys.astype(np.float32) * alpha / 255).astype(np.uint8)
    # Twice a grey level is more than 8 bits hold.
    bright = pixels[..., :3][2 * greys.astype(np.int32) >= max(int(greys.max()), 1)].astype(np.float32)
    hues = bright / bright.max(axis=-1, keepdims=True) if len(bright) else bright
    if len(hues) and (np.abs(hues - np.median(hues, axis=0)).max(axis=-1) > SAME_HUE).mean() > EDGE_SHARE:
        raise FilmFault("its mask holds several colours: classes, or a picture that is no mask")
    return lesion_of_greys(greys, note)


def _refuse_classes(share: np.ndarray, greys: np.ndarray) -> None:
    """Refuse values between black and the brightest one that fill squares: edges are thinner, classes not.

    Near black and near the brightest value, the ends of soft edges and the noise of a JPEG fill small squares
    as well: there only what is larger than a JPEG's block of 8 pixels is a class.
    """
    values = np.unique(greys)
    middle = (share > 0.1) & (share < 0.9) & _in_even_squares(share, 3)
    allowed = 0.0 if len(values) <= FEW_VALUES else EDGE_SHARE * (share >= 0.5).sum()
    large = (share > 0) & (share < 1) & _in_even_squares(share, 9)
    if middle.sum() > allowed or (len(values) <= FEW_VALUES and large.any()):
        raise FilmFault(
            "its mask holds several values besides black in even patches: classes; keep the lesion only"
        )


def _in_even_squares(share: np.ndarray, side: int) -> np.ndarray:
    """(height, width) bool: the middles of squares of one value, inside the picture."""
    square = np.ones((side, side), np.uint8)
    return cv2.erode(share, square) == cv2.dilate(share, square)
