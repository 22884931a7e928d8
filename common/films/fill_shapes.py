"""Shapes as they are drawn on a film -> the pixels whose centres lie in them.

Pixel i covers [i, i + 1), so that its centre is i + 0.5.
"""

from __future__ import annotations

import numpy as np

from common.films.fault import FilmFault

MOST_CROSSINGS = 10_000_000  # of a polygon's edges with rows of pixels


def fill_rectangles(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """The union of rectangles: every pixel whose centre lies in one of them.

    The time grows with the film and the number of rectangles, not with their product.

    Args:
        corners: (n, 4) finite numbers: left, top, right, bottom in pixels; parts outside the film are cut
            off, and rectangles whose left is not below their right (or top, bottom) hold nothing.
        width: Width of the film in pixels.
        height: Height of the film in pixels.

    Returns:
        Mask, (height, width) bool.
    """
    limits = [width, height, width, height]
    # pixel i covers [i, i + 1): its centre i + 0.5 is inside when i >= corner - 0.5, rounded up
    pixels = np.clip(np.ceil(np.asarray(corners) - 0.5), 0, limits).astype(np.int64)
    pixels = pixels[(pixels[:, 0] < pixels[:, 2]) & (pixels[:, 1] < pixels[:, 3])]
    left, top, right, bottom = pixels.T
    # +1 where a rectangle begins, -1 where it ends: the sums over rows and columns count the rectangles
    counts = np.zeros((height + 1, width + 1), dtype=np.int32)
    for rows, columns, step in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(counts, (rows, columns), step)  # `at`: rectangles may share a corner
    np.cumsum(counts, axis=0, out=counts)
    np.cumsum(counts, axis=1, out=counts)
    return counts[:height, :width] > 0


def fill_polygon(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """The inside of a closed polygon; where it crosses itself, what an odd number of turns encloses.

    Args:
        points: (n, 2) finite numbers: x and y of the corners in pixels; parts outside the film are cut off.
        width: Width of the film in pixels.
        height: Height of the film in pixels.

    Returns:
        Mask, (height, width) bool.

    Raises:
        FilmFault: Its edges cross more rows than those of any drawing.
    """
    start, end = points, np.roll(points, -1, axis=0)
    rows = np.clip(np.ceil(np.stack([start[:, 1], end[:, 1]]) - 0.5), 0, height).astype(np.int64)
    first, count = rows.min(axis=0), np.abs(rows[0] - rows[1])
    if count.sum() > MOST_CROSSINGS:
        raise FilmFault(f"its mask holds a polygon of {len(points):,} points, which is no drawing")
    # Level edges cross no row: repeated 0 times, they are not divided by 0 below.
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(turns, (row, column), 1)  # each edge changes between outside and inside, from its column on
    return np.cumsum(turns, axis=1)[:, :width] % 2 == 1


def fill_circle(middle: np.ndarray, radius: float, width: int, height: int) -> np.ndarray:
    """The inside of a circle.

    Args:
        middle: (2,) finite numbers: x and y in pixels.
        radius: Radius in pixels.
        width: Width of the film in pixels.
        height: Height of the film in pixels.

    Returns:
        Mask, (height, width) bool.
    """
    across, down = np.arange(width) + 0.5 - middle[0], np.arange(height) + 0.5 - middle[1]
    return np.hypot(across, down[:, None]) < radius
