"""The published augmentation as one resampling, one lookup table, blur and noise.

The original applies zoom, crop, resize, blur, scale, shift, gamma, noise, rotation and flip one after the
other. Here all that moves pixels is one affine map, all that changes intensities is one table of the 256
grey levels, and the order is: resampling, blur, intensities, noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from common.config import Augmentation

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

    def maybe(probability: float, low: float, high: float) -> float | None:
        value, chosen = rng.uniform(low, high), rng.random() < probability
        return value if chosen else None

    zoom = maybe(ranges.zoom_probability, *ranges.zoom) or 1.0
    width, height = rng.uniform(*ranges.crop), rng.uniform(*ranges.crop)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return Draw(
        zoom=zoom,
        crop=(left, top, width, height),
        rotation=maybe(ranges.rotation_probability, -ranges.rotation, ranges.rotation) or 0.0,
        flip=bool(rng.random() < ranges.flip_probability),
        blur_sigma=maybe(ranges.blur_probability, *ranges.blur_sigma),
        scale=maybe(ranges.scale_probability, -ranges.scale, ranges.scale) or 0.0,
        shift=maybe(ranges.shift_probability, -ranges.shift, ranges.shift) or 0.0,
        gamma=maybe(ranges.gamma_probability, *ranges.gamma),
        noise=maybe(ranges.noise_probability, 0, ranges.noise),
    )


def affine(drawn: Draw, source: int, target: int) -> np.ndarray:
    """The map from source to target pixels: zoom about the centre, crop, resize, rotation, flip.

    Args:
        drawn: The parameters.
        source: Side of the film in pixels.
        target: Working size in pixels.

    Returns:
        (2, 3) float64 for `cv2.warpAffine` (forward, pixel centres at whole numbers).
    """
    left, top, width, height = drawn.crop
    middle = source / 2
    zoom = _about(middle, middle, np.diag([drawn.zoom, drawn.zoom]))
    crop = np.array(
        [
            [target / (width * source), 0, -left / width * target],
            [0, target / (height * source), -top / height * target],
            [0, 0, 1],
        ]
    )
    angle = np.deg2rad(drawn.rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([-1.0 if drawn.flip else 1.0, 1.0])
    turned = _about(target / 2, target / 2, mirror @ turn)
    # all of the above in edge coordinates (pixel i covers [i, i + 1)); OpenCV counts from pixel centres
    to_edges, to_centres = _translate(0.5), _translate(-0.5)
    return (to_centres @ turned @ crop @ zoom @ to_edges)[:2]


def _about(x: float, y: float, linear: np.ndarray) -> np.ndarray:
    """A linear map about the point (x, y), as a (3, 3) matrix."""
    centre = np.array([x, y])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre - linear @ centre
    return matrix


def _translate(offset: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = offset
    return matrix


def intensity_table(drawn: Draw, low: int, high: int) -> np.ndarray:
    """Scale, shift and gamma of the 256 grey levels.

    Args:
        drawn: The parameters.
        low: Smallest grey level of the film, 0-255.
        high: Largest.

    Returns:
        (256,) float32, about 0-1 (scale and shift may leave that range, as in the original).
    """
    table = GREYS * (1 + drawn.scale) + drawn.shift
    if drawn.gamma is not None and high > low:
        bottom, top = table[low], table[high]
        share = np.clip((table - bottom) / (top - bottom), 0, 1)
        table = share**drawn.gamma * (top - bottom) + bottom
    return table.astype(np.float32)


def augment(
    film: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator, ranges: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Augment one film and its mask.

    Args:
        film: (side, side) uint8, side at least `size`.
        mask: (side, side) bool.
        size: Working size in pixels.
        rng: Of this film and this draw alone.
        ranges: What may be drawn.

    Returns:
        Film, (size, size) float32, about 0-1; mask, (size, size) bool.
    """
    drawn = draw(rng, ranges)
    matrix = affine(drawn, len(film), size)
    warped = cv2.warpAffine(film, matrix, (size, size), flags=cv2.INTER_LINEAR)
    if drawn.blur_sigma is not None:
        warped = cv2.GaussianBlur(warped, (0, 0), drawn.blur_sigma)
    result = intensity_table(drawn, int(warped.min()), int(warped.max()))[warped]
    if drawn.noise is not None:
        result += rng.standard_normal(result.shape, dtype=np.float32) * drawn.noise
    if mask.any():
        mask = cv2.warpAffine(mask.astype(np.uint8) * 255, matrix, (size, size), flags=cv2.INTER_LINEAR) > 127
    else:
        mask = np.zeros((size, size), dtype=bool)
    return result, mask
