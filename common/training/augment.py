"""The published augmentation as one resampling, one lookup table, blur and noise.

The original applies zoom, crop, resize, blur, scale, shift, gamma, noise, rotation and flip one after the
other. Here all that moves pixels is one affine map, all that changes intensities is one table of the 256
grey levels, and the order is: resampling, blur, intensities, noise. Corners that turning leaves empty are
zero at the end, as there, and what the crop cut off does not come back in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from common.preparation.film_store import Lesion
from common.recipes.recipe import Augmentation

_SHIFT = 4  # binary places of the coordinates of OpenCV's polygons
_SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])  # about the origin, of side 2
GREYS = np.arange(256, dtype=np.float32) / 255


@dataclass(frozen=True)
class Draw:
    """What was drawn for one film. Intensities are shares of full range; None: not applied."""

    zoom: float
    crop: tuple[float, float, float, float]  # left, top, width, height as shares of the side
    rotation: float  # degrees
    flip: bool
    blur_sigma: float | None  # pixels at the working size
    scale: float
    shift: float
    gamma: float | None
    noise: float | None  # standard deviation


def draw(rng: np.random.Generator, ranges: Augmentation) -> Draw:
    """Draw the parameters of one film's augmentation."""
    # 19 are taken below: two by each `maybe`, one by each `between`, one by the flip.
    shares = iter(rng.random(19).tolist())  # at once, which is faster than one by one

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(shares)

    def maybe(probability: float, low: float, high: float) -> float | None:
        # Both are taken in any case, so that no parameter's number depends on what came before it.
        value, chosen = between(low, high), next(shares) < probability
        return value if chosen else None

    zoom = maybe(ranges.zoom_probability, *ranges.zoom) or 1.0
    width, height = between(*ranges.crop), between(*ranges.crop)
    left, top = between(0, 1 - width), between(0, 1 - height)
    return Draw(
        zoom=zoom,
        crop=(left, top, width, height),
        rotation=maybe(ranges.rotation_probability, -ranges.rotation, ranges.rotation) or 0.0,
        flip=next(shares) < ranges.flip_probability,
        blur_sigma=maybe(ranges.blur_probability, *ranges.blur_sigma),
        scale=maybe(ranges.scale_probability, -ranges.scale, ranges.scale) or 0.0,
        shift=maybe(ranges.shift_probability, -ranges.shift, ranges.shift) or 0.0,
        gamma=maybe(ranges.gamma_probability, *ranges.gamma),
        noise=maybe(ranges.noise_probability, 0, ranges.noise),
    )


def window(drawn: Draw, source: int) -> tuple[int, int, int, int]:
    """What zoom and crop show of the film: left, top, right, bottom in whole pixels.

    A film that was made smaller does not fill its place: the window then reaches beyond the film.

    Args:
        drawn: Drawn parameters of the augmentation.
        source: Side of the film in pixels.

    Returns:
        Right and bottom are the first pixels that are not shown.
    """
    left, top, width, height = drawn.crop
    ends = ((end - 0.5) / drawn.zoom + 0.5 for end in (left, top, left + width, top + height))
    # Whole pixels, so that cutting (`_resize`) and warping (`_warp`) show the same part of the film.
    left, top, right, bottom = (round(end * source) for end in ends)
    return left, top, right, bottom


def affine(drawn: Draw, source: int, target: int) -> np.ndarray:
    """The map from source to target pixels: zoom about the centre, crop, resize, rotation, flip.

    Args:
        drawn: Drawn parameters of the augmentation.
        source: Side of the film in pixels.
        target: Side of the result in pixels: the working size.

    Returns:
        (2, 3) float64 for `cv2.warpAffine` (forward, pixel centres at whole numbers).
    """
    left, top, right, bottom = window(drawn, source)
    # This scales the columns, not the rows: crop and resize come before the turn.
    linear = _turn(drawn) * (target / (right - left), target / (bottom - top))
    # The middle of the window comes to the middle of the target; both lie between pixel centres.
    middle = np.array([left + right - 1, top + bottom - 1]) / 2
    return np.column_stack([linear, (target - 1) / 2 - linear @ middle])


def _turn(drawn: Draw) -> np.ndarray:
    """Rotation, then flip: (2, 2)."""
    angle, mirror = math.radians(drawn.rotation), -1 if drawn.flip else 1
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[mirror * cos, -mirror * sin], [sin, cos]])


def _corners(drawn: Draw, target: int, margin: float = 0.0) -> np.ndarray:
    """Corners of the turned crop in the target, less a margin in pixels: (4, 2) int32 for OpenCV."""
    turned = _SQUARE * (target / 2 - margin) @ _turn(drawn).T + (target - 1) / 2
    return np.rint(turned * 2**_SHIFT).astype(np.int32)


def intensity_table(drawn: Draw, low: int, high: int) -> np.ndarray:
    """Scale, shift and gamma of the 256 grey levels.

    Args:
        drawn: Drawn parameters of the augmentation.
        low: Smallest grey level of the film, 0-255.
        high: Largest grey level of the film, 0-255.

    Returns:
        (256,) float32, about 0-1 (scale and shift may leave that range, as in the original).
    """
    table = GREYS * (1 + drawn.scale) + drawn.shift
    if drawn.gamma is not None and high > low:
        bottom, top = table[low], table[high]
        # Levels below the film's lowest, as in turned corners, would be negative, which has no power.
        share = np.clip((table - bottom) / (top - bottom), 0, 1)
        table = share**drawn.gamma * (top - bottom) + bottom
    return table.astype(np.float32)


def augment(
    film: np.ndarray, lesion: Lesion | None, image_size: int, rng: np.random.Generator, ranges: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Augment one film and its mask.

    Args:
        film: (side, side) uint8, `side` at least `image_size`.
        lesion: Part of the film's mask that is not empty; None without a lesion.
        image_size: Working size in pixels.
        rng: Random numbers of this film and this draw alone.
        ranges: Ranges and probabilities of what may be drawn.

    Returns:
        Film, (image_size, image_size) float32, about 0-1; mask, (image_size, image_size) float32, 0 or 1.
    """
    drawn = draw(rng, ranges)
    matrix = affine(drawn, len(film), image_size)
    shown = window(drawn, len(film))
    if drawn.rotation or min(shown) < 0 or max(shown) > len(film):
        warped = _warp(film, (0, 0), shown, matrix, (0, 0, image_size, image_size))
    else:  # nothing is padded: the same map at a third of the time
        warped = _resize(film, shown, image_size, drawn.flip)
    if drawn.blur_sigma is not None:
        warped = cv2.GaussianBlur(warped, (0, 0), drawn.blur_sigma)  # (0, 0): OpenCV fits the kernel to sigma
    low, high = _extremes(warped, drawn) if drawn.gamma is not None else (0, 0)
    result = cv2.LUT(warped, intensity_table(drawn, low, high))
    if drawn.noise is not None:
        # OpenCV's generator belongs to the process: seeded by film, it draws the same in whichever worker.
        cv2.setRNGSeed(int(rng.integers(2**31)))
        noise = cv2.randn(np.empty_like(result), 0, drawn.noise)  # type: ignore[call-overload] # takes numbers
        np.add(result, noise, out=result)
    if drawn.rotation:  # the corners are padded after the intensities, so they stay zero
        # Two polygons in one call: OpenCV fills what lies between them. The inner one is a pixel larger
        # than the crop, whose interpolated rim belongs to the film.
        far = _corners(drawn, image_size, margin=-image_size)
        cv2.fillPoly(result, [far, _corners(drawn, image_size, margin=-1.0)], 0, shift=_SHIFT)
    mask = np.zeros((image_size, image_size), dtype=np.float32)
    if lesion is not None:
        _draw_lesion(mask, lesion, shown, matrix)
    return result, mask


def _extremes(warped: np.ndarray, drawn: Draw) -> tuple[int, int]:
    """Smallest and largest grey level of the film, without the padding of its turned corners."""
    inside = None
    if drawn.rotation:
        inside = np.zeros_like(warped)
        # Less the rim, where interpolation has mixed the film with the zeros around it.
        cv2.fillConvexPoly(inside, _corners(drawn, len(warped), margin=1.5), 1, shift=_SHIFT)
    low, high, _, _ = cv2.minMaxLoc(warped, inside)
    return int(low), int(high)


def _resize(film: np.ndarray, window: tuple[int, int, int, int], image_size: int, flip: bool) -> np.ndarray:
    """Map a window that lies in the film to the whole target, (image_size, image_size) uint8."""
    left, top, right, bottom = window
    resized = cv2.resize(
        film[top:bottom, left:right], (image_size, image_size), interpolation=cv2.INTER_LINEAR
    )
    return cv2.flip(resized, 1) if flip else resized


def _warp(
    image: np.ndarray,
    place: tuple[int, int],
    window: tuple[int, int, int, int],
    matrix: np.ndarray,
    target: tuple[int, int, int, int],
) -> np.ndarray:
    """Map what an image shows inside the window to a rectangle of the target, zeros elsewhere.

    Args:
        image: (height, width) uint8, lying in the film with its left upper corner at `place` (x, y).
        place: Left upper corner (x, y) of `image`, in pixels of the film.
        window: Part of the film that is shown. What the crop cut off must not come back when it is
            turned.
        matrix: (2, 3), from the film to the target.
        target: Rectangle to fill: left, top, right, bottom.
    """
    left, top = (max(window[axis], place[axis]) for axis in (0, 1))
    view = image[top - place[1] : window[3] - place[1], left - place[0] : window[2] - place[0]]
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ (left, top) - target[:2]
    near = view.copy()  # in the cache: turned, it is read in jumps
    return cv2.warpAffine(near, moved, (target[2] - target[0], target[3] - target[1]), flags=cv2.INTER_LINEAR)


def _draw_lesion(
    mask: np.ndarray, lesion: Lesion, window: tuple[int, int, int, int], matrix: np.ndarray
) -> None:
    """Draw a lesion into an empty mask: only the pixels that it may touch are computed."""
    height, width = lesion.pixels.shape
    right, bottom = min(lesion.left + width, window[2]), min(lesion.top + height, window[3])
    left, top = max(lesion.left, window[0]), max(lesion.top, window[1])
    if left >= right or top >= bottom:  # cropped away
        return
    corners = matrix @ np.array([[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]])
    # Wider by a pixel on each side: bilinear sampling reaches beyond the corners.
    first = np.clip(np.floor(corners.min(axis=1)) - 1, 0, len(mask)).astype(int)
    last = np.clip(np.ceil(corners.max(axis=1)) + 2, 0, len(mask)).astype(int)
    if (first < last).all():
        target = (*first.tolist(), *last.tolist())
        covered = _warp(lesion.pixels, (lesion.left, lesion.top), window, matrix, target)
        mask[target[1] : target[3], target[0] : target[2]] = covered > 127  # half covered, as in preparing
