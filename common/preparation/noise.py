"""Is a film noise, beside the other films of its set?

A picture is smooth: pixels differ the less, the nearer they are to each other. In noise, of whatever grain,
pixels that are apart by more than the grain differ as much as any two. How noisy films are depends on the
device, so a film is noise only when it is far rougher than its set, and rougher than any film of any set.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

DISTANCES = (1, 8, 32)  # pixels of a prepared film
# Roughness that no real film has: of 1,087 the largest were 0.025, 0.10 and 0.32.
ROUGH = (0.1, 0.25, 0.5)
TIMES = 4  # as rough as the median of the set
FEWEST = 10  # films that make a set
NOISE = "is noise: it is far rougher than the films of its set"
_LINES = 32  # rows and columns of a film that are looked at


def roughness(film: np.ndarray) -> tuple[float, ...]:
    """Squared difference of pixels at each of the distances, over that of any two pixels.

    Args:
        film: (side, side) uint8, not of one value.

    Returns:
        0 for a picture without detail; about 1 at all distances beyond the grain of noise.
    """
    step = max(len(film) // _LINES, 1)
    lines = np.concatenate([film[::step], film[:, ::step].T])
    expected = 2 * max(float(cv2.meanStdDev(lines)[1][0, 0]) ** 2, 1e-6)
    pairs = ((lines[:, distance:], lines[:, :-distance]) for distance in DISTANCES)
    return tuple(cv2.norm(one, other, cv2.NORM_L2SQR) / one.size / expected for one, other in pairs)


def are_noise(films: Sequence[Sequence[float]]) -> np.ndarray:
    """Whether each film is noise, (n,) bool; none where there are few.

    Args:
        films: The `roughness` of each film of a set.
    """
    if len(films) < FEWEST:
        return np.zeros(len(films), dtype=bool)
    rough = np.array(films)
    limits = np.maximum(ROUGH, TIMES * np.median(rough, axis=0))
    return (rough > limits).any(axis=1)
