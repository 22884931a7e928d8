"""Laterality, hit and outlines against cases by hand and plain references."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label

from common.statistics.curves import froc
from common.statistics.localisation import hit, laterality, outline_laterality, outlines
from common.statistics.tested_films import Cases

NAN = float("nan")


def picture(*spots: tuple[int, int, float], side: int = 100) -> np.ndarray:
    """A map of 4 x 4 spots: row, column, height."""
    found = np.zeros((side, side), np.float32)
    for row, column, height in spots:
        found[row : row + 4, column : column + 4] = height
    return found


LEFT = picture((40, 10, 1)) > 0


# --- laterality ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (picture((0, 5, 0.3), (0, 80, 0.2)), 1.0),  # the side counts, not the place in it
        (picture((40, 10, 0.2), (0, 80, 0.3)), 0.0),
        (picture((40, 10, 0.2), (0, 80, 0.2)), 0.5),
        (picture(), 0.5),
    ],
)
def test_laterality(found, expected):
    assert laterality(found, LEFT) == expected
    assert laterality(found[:, ::-1], LEFT[:, ::-1]) == expected
    assert laterality(found[:, ::-1], LEFT) == 1 - expected


def test_a_few_pixels_do_not_decide_the_side():
    drawn = np.random.default_rng(0).random((100, 100)).astype(np.float32) / 2
    drawn[0, 70:74] = 1  # 4 of 5,000 pixels of the half
    drawn[:, :50] += 0.1
    assert laterality(drawn, LEFT) == 1
    drawn[0, 60:70] = 1
    assert laterality(drawn, LEFT) == 0
    for half in (drawn[:, :50], drawn[:, 50:]):
        top = np.quantile(half, 0.999, method="inverted_cdf")
        assert laterality(np.maximum(half, 0), np.eye(*half.shape) > 0) is None
        assert np.partition(half.ravel(), 4994)[4994] == top


@pytest.mark.parametrize(("right", "known"), [(0, True), (1, True), (2, False), (20, False)])
def test_unilateral_is_95_of_100(right, known):
    mask = np.zeros((10, 60), bool)
    mask[0, :19] = True
    mask[5, 40 : 40 + right] = True
    found = np.where(mask, 1.0, 0.0).astype(np.float32)
    assert (laterality(found, mask) is not None) == known
    assert (outline_laterality(mask, mask) is not None) == known


def test_the_middle_column_of_an_odd_width_is_in_no_half():
    mask = np.zeros((10, 11), bool)
    mask[:, 5] = True
    assert laterality(mask.astype(np.float32), mask) is None
    mask[:, 5], mask[:, 4] = False, True
    assert laterality(mask.astype(np.float32), mask) == 1


def test_laterality_of_the_outline():
    assert outline_laterality(picture((0, 0, 1), (9, 9, 1), (50, 90, 1)) > 0, LEFT) == 1
    assert outline_laterality(picture((0, 0, 1), (9, 60, 1), (50, 90, 1)) > 0, LEFT) == 0
    assert outline_laterality(picture((0, 0, 1), (50, 90, 1)) > 0, LEFT) == 0.5
    assert outline_laterality(picture() > 0, LEFT) is None


# --- hit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(100, 100), (300, 150), (150, 300)])
def test_hit_is_two_percent_of_the_longer_edge(width, height):
    sampling = (height / 100, width / 100)
    away = distance_transform_edt(~LEFT, sampling=sampling)
    rng = np.random.default_rng(1)
    places = [(row, column) for row, column in rng.integers(30, 60, (200, 2)).tolist()]
    places += [(40 - d, 11) for d in range(8)] + [(41, 13 + d) for d in range(8)]
    seen = set()
    for row, column in places:
        found = np.zeros((100, 100), np.float32)
        found[row, column] = 0.1
        expected = float(away[row, column] <= 0.02 * max(width, height))
        assert hit(found, LEFT, width, height) == expected
        seen.add(expected)
    assert seen == {0.0, 1.0}


def test_of_several_brightest_pixels_the_share_counts():
    found = picture((40, 10, 0.7), (80, 80, 0.7))
    assert hit(found, LEFT, 100, 100) == 0.5
    near = (distance_transform_edt(~LEFT) <= 2).mean()
    assert hit(picture(), LEFT, 100, 100) == pytest.approx(near)


# --- outlines --------------------------------------------------------------------------------------


def test_outlines_by_hand():
    truth = picture((10, 10, 1), (10, 60, 1), (70, 10, 1)) > 0
    found = picture((12, 12, 0.8), (10, 62, 0.6), (13, 63, 0.9), (40, 40, 0.7), (90, 90, 0.55), (0, 50, 0.5))
    parts = outlines(found, found > 0.5, truth)
    assert parts.lesions == pytest.approx([0.8, 0.9, 0.0])
    assert parts.false == pytest.approx([0.7, 0.55])
    nothing = outlines(found, found > 0.95, truth)
    assert (nothing.lesions, nothing.false) == ([0, 0, 0], [])
    assert len(outlines(found, found > 0.5, np.zeros_like(truth)).false) == 4


def test_outlines_against_loops():
    rng = np.random.default_rng(2)
    for _ in range(20):
        found = rng.random((40, 40)).astype(np.float32)
        outline, truth = found > 0.8, rng.random((40, 40)) > 0.9
        parts, n = label(outline, np.ones((3, 3)))
        lesions, m = label(truth, np.ones((3, 3)))
        touched = [
            max(
                [
                    found[parts == i].max()
                    for i in range(1, n + 1)
                    if (truth & (parts == i) & (lesions == j)).any()
                ]
                or [0]
            )
            for j in range(1, m + 1)
        ]
        false = [found[parts == i].max() for i in range(1, n + 1) if not (truth & (parts == i)).any()]
        own = outlines(found, outline, truth)
        assert sorted(own.lesions) == pytest.approx(sorted(touched))
        assert own.false == pytest.approx(sorted(false, reverse=True))


# --- FROC ------------------------------------------------------------------------------------------


def films() -> Cases:
    """Four films: three lesions, one lesion, none, and one that the decision does not show."""
    masked = np.array([True, True, False, True])
    return Cases(
        case=np.array(list("abcd")),
        patient=np.array(list("abcd")),
        has_mask=masked,
        report=masked,
        mask_area_fraction=np.where(masked, 0.05, NAN),
        probability=np.array([0.9, 0.8, 0.7, 0.1]),
        stage_1=np.array([True, True, True, False]),
        two_stage=np.array([True, True, True, False]),
        dice_segmentation=np.where(masked, 0.5, NAN),
        further={
            "lesions": np.array([3.0, 1.0, NAN, 1.0]),
            "lesion_scores": np.array(["0.9 0 0", "0.7", "", "0.99"]),
            "false_scores": np.array(["0.8", "0.7 0.6", "0.6", ""]),
        },
    )


def test_froc_by_hand():
    curve = froc(films(), 50, 0)
    assert curve.x == pytest.approx([0, 0, 0.25, 0.5, 1.0])
    assert curve.y == pytest.approx([0, 0.2, 0.2, 0.4, 0.4])
    assert (curve.grid[0], curve.grid[-1]) == (0, 1)
    assert np.all(curve.low <= curve.high)
    assert np.all((curve.low >= 0) & (curve.high <= 1))


def test_no_froc_without_outlines():
    cases = films()
    nothing = {"lesion_scores": np.array(["0 0", "0", "", "0"]), "false_scores": np.array([""] * 4)}
    quiet = Cases(**{name: getattr(cases, name) for name in cases.__dataclass_fields__ if name != "further"},
                  further=dict(cases.further) | nothing)  # fmt: skip
    assert froc(quiet, 10, 0) is None
    unknown = Cases(
        **{name: getattr(cases, name) for name in cases.__dataclass_fields__ if name != "further"}
    )
    assert froc(unknown, 10, 0) is None
