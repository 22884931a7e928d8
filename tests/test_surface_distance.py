"""Distances between outlines, against plain loops over pixels and against MONAI."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from common.statistics.overlap import dice, iou
from common.statistics.surface_distance import Scale, surface_metrics

IMAGE_SIZE = 16
MASKS = ("squares", "borders", "components", "noise", "one pixel", "equal")


def _masks(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A predicted and a true mask."""
    rng = np.random.default_rng(seed)
    a, b = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), bool)
    if kind == "noise":
        return rng.random((IMAGE_SIZE, IMAGE_SIZE)) < 0.3, rng.random((IMAGE_SIZE, IMAGE_SIZE)) < 0.2
    if kind == "one pixel":
        a[tuple(rng.integers(0, IMAGE_SIZE, 2))] = b[tuple(rng.integers(0, IMAGE_SIZE, 2))] = True
        return a, b
    for mask in (a, b):
        for _ in range(3 if kind == "components" else 1):
            top, left = rng.integers(0, IMAGE_SIZE - 3, 2)
            mask[top : top + rng.integers(2, 9), left : left + rng.integers(2, 9)] = True
    if kind == "borders":
        a[:, : rng.integers(1, 5)] = a[-2:] = b[0] = True
        b[:, -3:] = True
    return (a, a) if kind == "equal" else (a, b)


def _surface(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pixels of the mask with a neighbour across a side that is outside it, or outside the film."""
    inside = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    for y, x in inside:
        if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside:
            yield y, x


def _percentile_95(values: list[float]) -> float:
    values = sorted(values)
    place = 0.95 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def _by_loops(predicted: np.ndarray, truth: np.ndarray, scale: Scale) -> tuple[float, float]:
    surfaces = [list(_surface(mask)) for mask in (predicted, truth)]
    directed = [
        [min(math.hypot((y - v) * scale.row, (x - u) * scale.column) for v, u in other) for y, x in own]
        for own, other in (surfaces, surfaces[::-1])
    ]
    together = directed[0] + directed[1]
    return (
        max(_percentile_95(each) for each in directed),
        sum(distance <= scale.tolerance for distance in together) / len(together),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI, about itself
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("row", "column", "unit"), [(1.0, 1.0, "px"), (3.7, 5.2, "mm"), (9.0, 2.5, "mm")])
def test_metrics_equal_plain_loops_and_monai(kind: str, row: float, column: float, unit: str) -> None:
    scale = Scale(row, column, IMAGE_SIZE, unit)
    for seed in range(4):
        predicted, truth = _masks(kind, seed)
        found = surface_metrics(predicted, truth, scale)
        assert found == pytest.approx(_by_loops(predicted, truth, scale), abs=1e-6)
        pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
        distance = compute_hausdorff_distance(*pair, percentile=95, spacing=[row, column])
        share = compute_surface_dice(*pair, class_thresholds=[scale.tolerance], spacing=[row, column])
        assert found == pytest.approx((distance.item(), share.item()), rel=1e-6, abs=1e-6)


def test_by_hand() -> None:
    """Two bars of 1 x 4 pixels, two rows of 3 mm apart: every distance is 6 mm."""
    predicted, truth = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), bool)
    predicted[2, 3:7] = truth[4, 3:7] = True
    near = Scale(3.0, 100.0, IMAGE_SIZE, "mm")
    assert surface_metrics(predicted, truth, near) == (6.0, 1.0)  # within 10 mm
    far = Scale(5.1, 100.0, IMAGE_SIZE, "mm")
    assert surface_metrics(predicted, truth, far) == (pytest.approx(10.2), 0.0)
    edge = Scale(5.0, 100.0, IMAGE_SIZE, "mm")
    assert surface_metrics(predicted, truth, edge) == (10.0, 1.0)  # the tolerance itself is within


def test_empty_masks() -> None:
    scale, some, none = (
        Scale(2.0, 3.0, IMAGE_SIZE, "mm"),
        np.eye(IMAGE_SIZE, dtype=bool),
        np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool),
    )
    diagonal = math.hypot(2.0 * IMAGE_SIZE, 3.0 * IMAGE_SIZE)
    assert surface_metrics(none, some, scale) == (pytest.approx(diagonal), 0.0)
    assert surface_metrics(some, none, scale) == (pytest.approx(diagonal), 0.0)
    assert surface_metrics(none, none, scale) == (0.0, 1.0)


def test_scale_of_a_film() -> None:
    """2000 columns of 0.2 mm and 2500 rows of 0.1 mm: 400 mm x 250 mm, stretched to a square."""
    scale = Scale.of(512, 2000, 2500, 0.1, 0.2)
    assert (scale.row, scale.column, scale.unit) == (250 / 512, 400 / 512, "mm")
    assert scale.tolerance == 10.0
    assert scale.film_cm2 == pytest.approx(1000.0)
    assert scale.diagonal == pytest.approx(math.hypot(250, 400))


@pytest.mark.parametrize("spacing", [(None, None), (math.nan, 0.1), (0.1, 0.0), (-0.1, 0.1), (0.1, math.inf)])
def test_unknown_spacing_is_in_pixels(spacing: tuple[float | None, float | None]) -> None:
    for image_size, tolerance in ((512, 13.0), (256, 6.5)):
        scale = Scale.of(image_size, 2000, 2500, *spacing)
        assert (scale.row, scale.column, scale.unit, scale.tolerance) == (1.0, 1.0, "px", tolerance)
        assert scale.film_cm2 is None
        assert scale.diagonal == pytest.approx(image_size * math.sqrt(2))


def test_iou_by_hand_and_by_dice() -> None:
    a, b, none = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool), np.zeros(4, bool)
    assert iou(a, b) == 1 / 3
    assert (iou(a, a), iou(a, ~a), iou(none, none), iou(none, a)) == (1.0, 0.0, 1.0, 0.0)
    assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))
