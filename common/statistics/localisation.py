"""Where a map points: to the lesion's side, to the lesion, and with how many outlines to neither.

Dice says how well a lesion is outlined once it is found; these say whether it is found. They are of the
film's full size: the mask is not reduced to the working size, the map is enlarged to the mask's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

ONE_SIDED = 0.95  # of a mask's pixels in one half of the picture make its lesion unilateral
TOP = 0.999  # quantile of a half's map that is compared with the other half's
NEAR = 0.02  # of the picture's longer edge: so near to the lesion, the brightest pixel hits it


@dataclass(frozen=True)
class Outlines:
    """The outlines of a film, each scored by the brightest pixel of the map in it.

    Attributes:
        lesions: Score of each lesion of the mask, 0-1: the highest of the outlines that share a pixel
            with it, 0 where none does.
        false: Score of each outline that shares no pixel with a lesion, 0-1, highest first.
    """

    lesions: list[float]
    false: list[float]


def halves(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right half of a picture; the middle column of an odd width is in neither."""
    half = picture.shape[1] // 2
    return picture[:, :half], picture[:, -half:]


def _side(mask: np.ndarray) -> float | None:
    """Side of a unilateral lesion: -1 left half of the picture, 1 right; None: it is not unilateral."""
    left, right = (np.count_nonzero(half) for half in halves(mask))
    if not left + right or max(left, right) < ONE_SIDED * np.count_nonzero(mask):
        return None
    return -1.0 if left > right else 1.0


def _on_side(left: float, right: float, side: float) -> float:
    """Whether the larger of two values is on a side: 1 or 0; a tie is a half."""
    return 0.5 + 0.5 * side * float(np.sign(right - left))


def laterality(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Whether the map reaches higher in the half of the picture that holds the lesion.

    Args:
        found: (height, width) float, the map, 0-1.
        truth: (height, width) bool, the mask.

    Returns:
        1 or 0, by the 0.999 quantile of each half's map; 0.5 where they are equal; None where less than 0.95
        of the mask are in one half, split at the middle column.
    """
    side = _side(truth)
    if side is None:
        return None
    left, right = halves(found)
    return _on_side(_quantile(left), _quantile(right), side)


def _quantile(values: np.ndarray) -> float:
    """The `TOP` quantile without interpolation: a sorting of the few highest values is enough."""
    flat = values.ravel()
    place = int(np.ceil(TOP * flat.size)) - 1
    return float(np.partition(flat, place)[place])


def outline_laterality(outline: np.ndarray, truth: np.ndarray) -> float | None:
    """Whether most of what is outlined lies in the half of the picture that holds the lesion.

    Args:
        outline: (height, width) bool, pixels above the map's threshold.
        truth: (height, width) bool, the mask.

    Returns:
        1 or 0; 0.5 where both halves hold as much; None where nothing is outlined, or the lesion is not
        unilateral.
    """
    side = _side(truth)
    if side is None or not outline.any():
        return None
    left, right = halves(outline)
    return _on_side(float(left.sum()), float(right.sum()), side)


def hit(found: np.ndarray, truth: np.ndarray, width: int, height: int) -> float:
    """Whether the brightest pixel lies within 0.02 of the picture's longer edge of the lesion.

    Args:
        found: (side, side) float, the map.
        truth: (side, side) bool, the mask, not empty.
        width, height: Pixels of the original film, which was stretched to the square.

    Returns:
        1 or 0; where several pixels are brightest, the share of them that are near enough.
    """
    scale = np.array([height, width]) / truth.shape
    brightest = np.argwhere(found == found.max())
    if len(brightest) > 1:  # as many as a flat map has, so by a distance from everywhere
        away = _distance(truth, scale)[tuple(brightest.T)]
    else:
        lesion = cv2.findNonZero(truth.view(np.uint8)).reshape(-1, 2)  # column and row
        away = np.linalg.norm((lesion - brightest[0, ::-1]) * scale[::-1], axis=1).min()
    return float(np.mean(away <= NEAR * max(width, height)))


def _distance(truth: np.ndarray, scale: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~truth, sampling=scale)


def outlines(found: np.ndarray, outline: np.ndarray, truth: np.ndarray) -> Outlines:
    """The connected parts (across sides and corners) of an outline, against those of the mask.

    Args:
        found: (height, width) float32, the map, 0-1.
        outline: (height, width) bool, pixels above the map's threshold.
        truth: (height, width) bool, the mask; empty: the film has no lesion.
    """
    parts, boxes = _parts(outline)
    scores = np.zeros(len(boxes))  # the first is the background
    for number, box in list(enumerate(boxes))[1:]:
        scores[number] = found[box][parts[box] == number].max()
    lesions, touching = [], np.zeros(len(boxes), dtype=bool)
    touching[0] = True  # the background is no outline
    of_truth, boxes = _parts(truth)
    for number, box in list(enumerate(boxes))[1:]:
        met = np.unique(parts[box][of_truth[box] == number])
        lesions.append(float(scores[met].max(initial=0.0)))
        touching[met] = True
    return Outlines(lesions, sorted(scores[~touching].tolist(), reverse=True))


def _parts(mask: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """The connected parts by number, 0 outside, and the box of each number."""
    pixels = mask.view(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)  # the rest of the picture need not be searched
    inner = pixels[y : y + height, x : x + width]
    parts = np.zeros(mask.shape, np.int32)
    if not width:
        return parts, [(slice(0), slice(0))]
    _, parts[y : y + height, x : x + width], statistics, _ = cv2.connectedComponentsWithStats(inner)
    boxes = [
        (slice(y + top, y + top + height), slice(x + left, x + left + width))
        for left, top, width, height, _ in statistics.tolist()
    ]
    return parts, boxes
