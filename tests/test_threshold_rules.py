"""The rules that choose the thresholds, by hand, by a plain search and by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_curve

from common.inference.threshold_rules import (
    LOWEST_COST,
    MAP_THRESHOLDS,
    PERCENTILE,
    RULES,
    SENSITIVITY_95,
    SMALLEST,
    YOUDEN,
    Costs,
    Roc,
    RocPoint,
    area_threshold,
    best_map_threshold,
    choose,
    dice_by_threshold,
    extreme,
    overlap_by_threshold,
    resampled_thresholds,
)
from common.statistics.bootstrap import resample_counts
from common.statistics.overlap import dice, overlap

RARE = Costs(prevalence=0.1, ratio=5)

# --- the rules -------------------------------------------------------------------------------------


def test_rules_by_hand() -> None:
    positive = np.array([1, 1, 0, 1, 0, 0, 0], bool)
    probability = np.array([0.9, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1])
    # the points (sensitivity, false positive rate): (1/3, 0) (2/3, 0) (2/3, 1/4) (1, 1/4) (1, 1/2) ...
    assert choose(YOUDEN, positive, probability) == RocPoint(0.4, 1, 0.25)  # J 3/4, at 0.8 2/3
    assert choose(SENSITIVITY_95, positive, probability) == RocPoint(0.4, 1, 0.25)
    # cost at 0.8: 0.1 * 5 / 3 = 0.17; at 0.4: 0.9 / 4 = 0.23
    assert choose(LOWEST_COST, positive, probability, RARE) == RocPoint(0.8, pytest.approx(2 / 3), 0)
    # with a miss at 10 false alarms 0.33 and 0.23
    assert choose(LOWEST_COST, positive, probability, Costs(0.1, 10)).threshold == 0.4
    assert Costs(0.1, 10).expected(np.float64(2 / 3), np.float64(0)) == pytest.approx(1 / 3)
    assert Costs(0.1, 10).expected(np.float64(1), np.float64(0.25)) == pytest.approx(0.225)


def test_of_equally_good_thresholds_the_highest_is_chosen() -> None:
    positive = np.array([1, 0, 1, 0, 1, 0], bool)
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    # J is 1/3 at 0.9, 0.7 and 0.5, but for rounding: 2/3 - 1/3 and 1 - 2/3 are not the same float
    assert len({1 / 3 - 0, 2 / 3 - 1 / 3, 1 - 2 / 3}) > 1
    assert choose(YOUDEN, positive, probability).threshold == 0.9
    assert choose(LOWEST_COST, positive, probability, Costs(0.5)).threshold == 0.9
    # 19 and 20 of 20 at the same specificity: 0.95 is reached at the higher threshold
    positive = np.array([1] * 20 + [0], bool)
    probability = np.append(np.arange(20, 0, -1) / 20, 0.0)
    assert choose(SENSITIVITY_95, positive, probability) == RocPoint(0.1, 0.95, 0)


def test_a_threshold_is_the_probability_of_a_film() -> None:
    """Where it would cost least to call no film positive, too: infinity is no number for a file."""
    positive, probability = np.array([0, 1, 0], bool), np.array([0.9, 0.5, 0.1])
    rare = Costs(0.01)
    assert choose(LOWEST_COST, positive, probability, rare) == RocPoint(0.5, 1, 0.5)
    assert rare.expected(1, 0.5) > rare.expected(0, 0)


def _rates(positive: np.ndarray, probability: np.ndarray, threshold: float) -> tuple[float, float]:
    """Sensitivity and false positive rate."""
    called = [p >= threshold for p in probability.tolist()]
    true, false = (sum(c for c, p in zip(called, positive.tolist(), strict=True) if p == k) for k in (1, 0))
    return true / positive.sum(), false / (~positive).sum()


def _merit(rule: str, sensitivity: float, false_rate: float) -> float:
    if rule == YOUDEN:
        return sensitivity - false_rate
    if rule == SENSITIVITY_95:
        return -false_rate if sensitivity >= 0.95 else -2
    return -(RARE.prevalence * RARE.ratio * (1 - sensitivity) + (1 - RARE.prevalence) * false_rate)


def searched_threshold(rule: str, positive: np.ndarray, probability: np.ndarray) -> float:
    """The threshold by a plain search through the films, highest first."""
    best, chosen = -np.inf, None
    for threshold in sorted(set(probability.tolist()), reverse=True):
        merit = _merit(rule, *_rates(positive, probability, threshold))
        if merit > best + 1e-9:
            best, chosen = merit, threshold
    return chosen


@pytest.mark.parametrize("rule", RULES)
def test_rules_equal_a_search_film_by_film(rule: str) -> None:
    rng = np.random.default_rng(0)
    for digits in (1, 1, 1, 2, 2, 6):  # with many, few and no ties
        for _ in range(4):
            positive, probability = rng.permutation(40) < 15, rng.random(40).round(digits)
            point = choose(rule, positive, probability, RARE)
            assert point.threshold == searched_threshold(rule, positive, probability)
            rates = _rates(positive, probability, point.threshold)
            assert (point.sensitivity, point.false_positive_rate) == pytest.approx(rates)
            assert point.specificity == pytest.approx(1 - rates[1])


def test_curve_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    positive, probability = rng.random(200) < 0.3, rng.random(200).round(2)
    false_rate, sensitivity, thresholds = roc_curve(positive, probability, drop_intermediate=False)
    roc = Roc.of(positive, probability)
    assert roc.thresholds.tolist() == thresholds[1:].tolist()
    assert roc.sensitivity[0] == pytest.approx(sensitivity[1:])
    assert roc.false_positive_rate[0] == pytest.approx(false_rate[1:])


def test_lowest_cost_at_known_prevalences() -> None:
    """A half, at equal costs, is Youden's; the films' own prevalence, at equal costs, the fewest mistakes."""
    rng = np.random.default_rng(2)
    positive = rng.permutation(300) < 60
    probability = rng.normal(positive * 1.5).round(1)
    assert choose(LOWEST_COST, positive, probability, Costs(0.5)) == choose(YOUDEN, positive, probability)
    chosen = choose(LOWEST_COST, positive, probability, Costs(0.2)).threshold
    accuracy = {t: accuracy_score(positive, probability >= t) for t in set(probability.tolist())}
    assert accuracy[chosen] == max(accuracy.values())


def test_area_thresholds_by_hand() -> None:
    overlaps = np.array([0, 30, 7, -1, *range(100, 177)])  # of 79 above 0, 2.5% are 1.975
    assert area_threshold(overlaps) == area_threshold(overlaps, SMALLEST) == 7
    assert area_threshold(overlaps, PERCENTILE) == 30
    assert area_threshold(np.append(overlaps, 9), PERCENTILE) == 9  # of 80 films, 2 are 2.5%
    assert area_threshold(np.append(overlaps, [200, 201]), PERCENTILE) == 100
    assert area_threshold(np.array([4]), PERCENTILE) == 4
    assert area_threshold(np.array([-1, 0])) is None


def test_thresholds_near_0_and_1_are_extreme() -> None:
    assert "reaches it for fewer films; expect a lower sensitivity" in str(extreme(0.97))
    assert "reaches it for more films; expect a lower specificity" in str(extreme(0.01))
    assert extreme(0.05) is extreme(0.5) is extreme(0.95) is None


# --- Dice at every threshold of the map ------------------------------------------------------------


@pytest.mark.parametrize("lesion", [0.0, 0.1, 1.0])
def test_dice_by_threshold_equals_a_loop(lesion: float) -> None:
    rng = np.random.default_rng(3)
    found = rng.random((24, 24), dtype=np.float32)
    found[:8] = rng.integers(0, 257, (8, 24)) / 256  # exactly on the thresholds, 0 and 1 among them
    found[8] = np.nextafter(found[0], np.float32(2))  # and one step of float32 above them
    truth = rng.random((24, 24)) < lesion
    expected = [dice(found > threshold, truth) for threshold in MAP_THRESHOLDS.astype(np.float32)]
    shared = [overlap(found > threshold, truth) for threshold in MAP_THRESHOLDS.astype(np.float32)]
    assert overlap_by_threshold(found, truth).tolist() == shared
    assert dice_by_threshold(found, truth).tolist() == expected


def test_dice_of_an_empty_map_and_mask() -> None:
    nothing, empty = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
    assert (dice_by_threshold(nothing, empty) == 1).all()
    assert (dice_by_threshold(nothing, ~empty) == 0).all()
    assert (dice_by_threshold(nothing + 1, ~empty) == 1).all()


# --- how steady the thresholds are -----------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_resamples_equal_repeated_films(rule: str) -> None:
    """Each replicate, computed again from the films as often as they were drawn."""
    rng = np.random.default_rng(4)
    positive, probability = rng.permutation(40) < 12, rng.random(40).round(1)
    overlaps = np.where(positive, rng.integers(0, 40, 40), -1)
    patient = rng.integers(0, 25, 40).astype(str)
    counts = np.concatenate(list(resample_counts(patient, positive, 30, 5))).astype(int)
    # worse than chance, too: then the highest films gain nothing, and those that were not drawn no less
    for scores in (probability, (rng.random(40) - positive).round(2)):
        cls, seg = resampled_thresholds(rule, positive, scores, overlaps, patient, RARE, 30, seed=5)
        for i in range(30):
            films = np.repeat(np.arange(40), counts[i])
            assert cls[i] == searched_threshold(rule, positive[films], scores[films])
            assert seg[i] == area_threshold(overlaps[films])
    assert len(set(seg.tolist())) > 1


def test_resampled_percentiles_equal_those_of_repeated_films() -> None:
    rng = np.random.default_rng(6)
    positive, probability, patient = (
        rng.random(300) < 0.6,
        rng.random(300),
        rng.integers(0, 200, 300).astype(str),
    )
    overlaps = np.where(positive, rng.integers(0, 5000, 300), -1)
    counts = np.concatenate(list(resample_counts(patient, positive, 40, 2))).astype(int)
    areas = {
        rule: resampled_thresholds(YOUDEN, positive, probability, overlaps, patient, None, 40, 2, rule)[1]
        for rule in (SMALLEST, PERCENTILE)
    }
    for i in range(40):
        for rule, found in areas.items():
            assert found[i] == area_threshold(overlaps[np.repeat(np.arange(300), counts[i])], rule)
    assert (areas[PERCENTILE] > areas[SMALLEST]).mean() > 0.8


def test_resamples_that_define_no_threshold() -> None:
    """No lesion was found in any film; and the only negatives are of patients who may not be drawn."""
    positive, patient = np.array([1, 1, 1, 0], bool), np.array(["a", "b", "c", "c"])
    probability, overlaps = np.array([0.9, 0.8, 0.7, 0.1]), np.array([0, 0, 0, -1])
    cls, seg = resampled_thresholds(YOUDEN, positive, probability, overlaps, patient, None, 300, 0)
    assert np.isnan(seg).all()
    assert np.isnan(cls).mean() == pytest.approx((2 / 3) ** 3, abs=0.08)  # c is drawn in none of three
    assert set(cls[~np.isnan(cls)]) <= {0.7, 0.8, 0.9}


def test_threshold_of_the_map_is_where_the_mean_dice_is_highest() -> None:
    dice_of = np.zeros((2, 256))
    dice_of[0, [70, 100]] = 0.9, 0.6
    dice_of[1, 100] = 0.5
    assert best_map_threshold(dice_of) == 100 / 256  # no film's own best
    dice_of[:, 150] = dice_of[:, 100]
    assert best_map_threshold(dice_of) == 150 / 256  # equally good, and nearer to 0.5
    assert best_map_threshold(np.zeros((3, 256))) == 0.5
