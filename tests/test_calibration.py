"""Recalibration of many resamples at once against scikit-learn and SciPy, one resample at a time."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from common.statistics.calibration import (
    CLIP,
    Calibration,
    intercept_interval,
    observed_over_expected_interval,
)


def simulated(seed: int, n: int = 150, shift: float = 0.0, scale: float = 1.0):
    """Probabilities (two decimals, so tied, 0 and 1 among them) and truth with known recalibration."""
    rng = np.random.default_rng(seed)
    probability = np.round(expit(rng.normal(-0.5, 2, n)), 2)
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    positive = rng.random(n) < expit(shift + scale * logit(clipped))
    return probability, positive


def slope_by_sklearn(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    model = LogisticRegression(C=np.inf, tol=1e-13, max_iter=500, solver="newton-cholesky")
    return model.fit(x[:, None], y, sample_weight=weight).coef_[0, 0]


def intercept_by_scipy(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    return brentq(lambda a: weight @ (y - expit(a + x)), -50, 50, xtol=1e-13)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (2.0, 0.3), (-3.0, 2.5)])
def test_equals_references_in_each_resample(shift, scale):
    probability, positive = simulated(1, shift=shift, scale=scale)
    counts = np.random.default_rng(2).poisson(1, (12, 150)).astype(float)
    counts[0] = 1
    found = Calibration(probability, positive, ~positive).values(counts)
    x = logit(np.clip(probability, CLIP, 1 - CLIP))
    for i, weight in enumerate(counts):
        assert found["calibration_slope"][i] == pytest.approx(slope_by_sklearn(x, positive, weight), abs=1e-6)
        expected = intercept_by_scipy(x, positive, weight)
        assert found["calibration_intercept"][i] == pytest.approx(expected, abs=1e-6)


def test_the_truth_is_found():
    """200,000 films of known recalibration: slope 0.5; with the slope fixed at 1, an intercept near 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1.5, 200_000)
    for shift, scale in ((0.0, 0.5), (1.0, 1.0)):
        positive = rng.random(len(x)) < expit(shift + scale * x)
        found = Calibration(expit(x), positive, ~positive).values(np.ones((1, len(x))))
        assert found["calibration_slope"][0] == pytest.approx(scale, abs=0.03)
        assert found["calibration_intercept"][0] == pytest.approx(shift, abs=0.03)


def test_two_by_two_by_hand():
    """Probabilities 1/4 and 3/4, logits -/+ log 3: the slope is the log odds ratio over 2 log 3."""
    probability = np.repeat([0.25, 0.75], [10, 10])
    positive = np.r_[np.arange(10) < 1, np.arange(10) < 8]  # odds 1/9 and 4
    found = Calibration(probability, positive, ~positive).values(np.ones((1, 20)))
    assert found["calibration_slope"][0] == pytest.approx(np.log(36) / (2 * np.log(3)), abs=1e-9)
    # At intercept a, 10 s(a - log 3) + 10 s(a + log 3) = 9.
    intercept = found["calibration_intercept"][0]
    assert 10 * (expit(intercept - np.log(3)) + expit(intercept + np.log(3))) == pytest.approx(9, abs=1e-7)


def test_a_probability_of_0_or_1_counts_as_a_millionth_from_it():
    probability, positive = simulated(5)
    probability[:4], positive[:4] = [0, 0, 1, 1], [True, False, True, False]
    moved = probability.copy()
    moved[moved == 0], moved[moved == 1] = 0.000001, 0.999999
    found = [Calibration(p, positive, ~positive).values(np.ones((1, 150))) for p in (probability, moved)]
    for name in ("calibration_slope", "calibration_intercept"):
        assert found[0][name][0] == pytest.approx(found[1][name][0], abs=1e-9)


def test_only_films_of_either_class_enter():
    probability, positive = simulated(3)
    kept = np.arange(150) < 100
    some = Calibration(probability, positive & kept, ~positive & kept).values(np.ones((1, 150)))
    alone = Calibration(probability[:100], positive[:100], ~positive[:100]).values(np.ones((1, 100)))
    assert str(some) == str(alone)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("probability", "positive", "intercept_exists"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], True),  # separated
        ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1], True),  # but for a tie
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], True),  # separated, the wrong way round
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 1], True),  # one probability only
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 1, 1], False),
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 0, 0], False),
    ],
)
def test_what_has_no_finite_best_value_is_nan_without_a_warning(probability, positive, intercept_exists):
    truth = np.array(positive, dtype=bool)
    found = Calibration(np.array(probability), truth, ~truth).values(np.ones((3, 4)))
    assert np.isnan(found["calibration_slope"]).all()
    assert np.isnan(found["calibration_intercept"]).all() != intercept_exists


@pytest.mark.filterwarnings("error")
def test_a_resample_is_undefined_alone():
    """The only film that overlaps, or a whole class, is not drawn: that resample is NaN, no other."""
    probability = np.array([0.1, 0.2, 0.6, 0.4, 0.8, 0.9])
    positive = np.array([0, 0, 0, 1, 1, 1], dtype=bool)
    counts = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [2, 1, 1, 1, 2, 1]], float)
    found = Calibration(probability, positive, ~positive).values(counts)
    assert np.isnan(found["calibration_slope"]).tolist() == [False, True, True, False]
    assert np.isnan(found["calibration_intercept"]).tolist() == [False, False, True, False]


@pytest.mark.filterwarnings("error")
def test_a_hard_fit_is_found_from_afar():
    """Nearly separated: the slope is far from 1, and resamples far from the full sample."""
    rng = np.random.default_rng(4)
    probability = expit(np.r_[rng.normal(-0.4, 0.1, 60), rng.normal(0.4, 0.1, 60), 0.1, -0.1])
    positive = np.r_[np.zeros(60), np.ones(60), 0, 1].astype(bool)
    counts = rng.poisson(1, (20, 122)).astype(float)
    counts[:, -2:] = 1
    counts[1, positive] *= 500
    found = Calibration(probability, positive, ~positive).values(counts)
    x = logit(probability)
    for i, weight in enumerate(counts):
        slope = found["calibration_slope"][i]
        assert slope > 10
        assert slope == pytest.approx(slope_by_sklearn(x, positive, weight), rel=1e-6)
        expected = intercept_by_scipy(x, positive, weight)
        assert found["calibration_intercept"][i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1.0, 6.0])  # the latter nearly separates: NaN, steep slopes
def test_by_way_of_single_precision_it_is_the_same_slope(scale: float) -> None:
    probability, positive = simulated(7, n=60, scale=scale)
    counts = np.random.default_rng(8).poisson(1, (400, 60)).astype(float)
    fits = Calibration(probability, positive, ~positive)
    found, expected = fits.resampled(counts), fits.values(counts)["calibration_slope"]
    assert list(found) == ["calibration_slope"]  # the intercept's interval is made without resamples
    np.testing.assert_allclose(found["calibration_slope"], expected, rtol=1e-7)
    assert (scale == 6) == bool(np.isnan(expected).any())


def _set(seed: int, patients: int, films: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated probabilities; all films of a patient share probability and label."""
    rng = np.random.default_rng(seed)
    probability = 1 / (1 + np.exp(-rng.normal(-2.5, 1.5, patients)))
    label = rng.random(patients) < probability
    number = np.repeat(np.arange(patients), films)
    return probability[number], label[number], number


@pytest.mark.parametrize(("patients", "films"), [(300, 1), (300, 3)])
def test_intervals_in_the_large_hold_the_truth(patients: int, films: int) -> None:
    """A bootstrap that draws patients with and without a positive apart held it in 67%."""
    sets = [_set(seed, patients, films) for seed in range(300)]
    for made, truth in ((intercept_interval, 0), (observed_over_expected_interval, 1)):
        ends = [made(*each) for each in sets]
        assert 0.92 < np.mean([low <= truth <= high for low, high in ends]) < 0.99
        # Not by being wide: nearly as wide as the estimates vary from set to set
        middles, widths = [(low + high) / 2 for low, high in ends], [high - low for low, high in ends]
        assert np.mean(widths) < 2 * 2.2 * np.std(middles)


def test_copies_of_a_patients_films_tell_nothing_new() -> None:
    for made in (intercept_interval, observed_over_expected_interval):
        one, three = made(*_set(0, 200, 1)), made(*_set(0, 200, 3))
        assert three == pytest.approx(one, rel=1e-6)
        probability, label, number = _set(0, 200, 3)
        apart = made(probability, label, np.arange(len(number)))
        assert (apart[1] - apart[0]) == pytest.approx((one[1] - one[0]) / np.sqrt(3), rel=0.05)


def test_interval_in_the_large_without_patients_is_the_usual_one() -> None:
    """Where every film is a patient and the model holds: 1 over the root of the information."""
    probability, label, number = _set(1, 20_000, 1)
    low, high = intercept_interval(probability, label, number)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt((probability * (1 - probability)).sum()), rel=0.03)
