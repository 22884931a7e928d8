"""How far the outline of a predicted mask lies from the true one, in mm where the film's spacing is known.

The definitions are MONAI's (`compute_hausdorff_distance` at percentile 95, `compute_surface_dice` without
subvoxels), in float64, whose results MONAI rounds to float32, and with one distance transform for both
metrics: a test holds them equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TOLERANCE_MM = 10.0
TOLERANCE_PX = 13 / 512  # of the side: films of unknown spacing; 10 mm on one of 394 mm
PERCENTILE = 95
MM, PX = "mm", "px"


@dataclass(frozen=True)
class Scale:
    """How large the pixels of a film are at the working size, to which it is stretched.

    Attributes:
        row: Distance from one row to the next, in `unit`.
        column: Distance from one column to the next, in `unit`.
        image_size: Working size in pixels.
        unit: `mm`, or `px` where the spacing is unknown.
    """

    row: float
    column: float
    image_size: int
    unit: str

    @classmethod
    def of(
        cls, image_size: int, width: int, height: int, spacing_row: float | None, spacing_column: float | None
    ) -> Scale:
        """The scale of a film of the prepared cases.

        Args:
            image_size: Working size in pixels.
            width: Number of columns of the original film.
            height: Number of rows of the original film.
            spacing_row: Distance between the film's rows in mm; None, NaN or not above 0 where unknown.
            spacing_column: Distance between the film's columns in mm; None, NaN or not above 0 where unknown.
        """
        if spacing_row is None or spacing_column is None:
            return cls(1.0, 1.0, image_size, PX)
        if not all(math.isfinite(each) and each > 0 for each in (spacing_row, spacing_column)):
            return cls(1.0, 1.0, image_size, PX)
        return cls(spacing_row * height / image_size, spacing_column * width / image_size, image_size, MM)

    @property
    def diagonal(self) -> float:
        """Diagonal of the film, in `unit`: the distance that counts for an outline that is not there."""
        return self.image_size * math.hypot(self.row, self.column)

    @property
    def tolerance(self) -> float:
        """Tolerance of the normalised surface Dice, in `unit`."""
        return TOLERANCE_MM if self.unit == MM else tolerance_px(self.image_size)

    @property
    def film_cm2(self) -> float | None:
        """Area of the whole film; None where the spacing is unknown."""
        return self.image_size**2 * self.row * self.column / 100 if self.unit == MM else None


def tolerance_px(image_size: int) -> float:
    """Tolerance of the normalised surface Dice where the spacing is unknown, in pixels at a working size."""
    return TOLERANCE_PX * image_size


def surface_metrics(predicted: np.ndarray, truth: np.ndarray, scale: Scale) -> tuple[float, float]:
    """95th percentile of the surface distance, and normalised surface Dice.

    A mask's surface are its pixels that have a neighbour across a side outside the mask or the film. From
    each, the distance to the nearest surface pixel of the other mask. HD95 is the larger of the two
    directions' percentiles (Huttenlocher et al., IEEE PAMI 1993;15:850; linear between order statistics).
    NSD is the share of all surface pixels of both masks that lie within the tolerance, each counting as one,
    as in MetricsReloaded (Maier-Hein et al., Nat Methods 2024;21:195-212). Its authors weigh them by area,
    which differs where rows and columns are not equally far apart (Nikolov et al., J Med Internet Res
    2021;23:e26151).

    Convention: 0 and 1 when both masks are empty; the film's diagonal and 0 when one of them is.

    Args:
        predicted: (image_size, image_size) bool, predicted mask.
        truth: (image_size, image_size) bool, annotated mask.
        scale: Scale of the film.

    Returns:
        HD95 in the scale's unit, and NSD, 0-1.
    """
    empty = not predicted.any(), not truth.any()
    if any(empty):
        return (0.0, 1.0) if all(empty) else (scale.diagonal, 0.0)
    there, back = _surface_distances(predicted, truth, scale)
    within = np.count_nonzero(there <= scale.tolerance) + np.count_nonzero(back <= scale.tolerance)
    distance = max(float(np.percentile(each, PERCENTILE)) for each in (there, back))
    return distance, within / (len(there) + len(back))


def _surface_distances(a: np.ndarray, b: np.ndarray, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """From each surface pixel of one mask to the nearest of the other: from a to b, and from b to a."""
    from scipy.ndimage import binary_erosion, distance_transform_edt  # a new film does without

    either = a | b
    # one pixel more than what both cover, so that what lies beside them is seen
    box = tuple(
        slice(max(places[0] - 1, 0), places[-1] + 2)
        for places in (np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0)))
    )
    # Erosion takes what lies beyond the film as outside, so that the film's edge is a surface.
    edges = [mask[box] & ~binary_erosion(mask[box]) for mask in (a, b)]
    away = [distance_transform_edt(~edge, sampling=(scale.row, scale.column)) for edge in edges]
    return away[1][edges[0]], away[0][edges[1]]
