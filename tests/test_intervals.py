"""Intervals against SciPy, statistics' textbooks and hand-made numbers."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from common.statistics.intervals import (
    acceleration,
    bca_interval,
    effective_films,
    koopman_interval,
    percentile_interval,
    percentile_p,
    percentile_tail,
    tango_interval,
    wilson_interval,
)

MANY = 10**12  # so many patients that nothing is expanded


def plain_percentile(replicates, confidence=0.95):
    return percentile_interval(replicates, MANY, confidence)


def test_percentile_by_hand():
    assert plain_percentile(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert plain_percentile(np.arange(101.0), 0.9) == pytest.approx((5, 95))


def test_percentile_tails_by_hand():
    """From printed tables: t of 4 degrees of freedom is 2.7764, and Phi(-2.7764 * 1.1180) = 0.0010."""
    found = [round(percentile_tail(n), 4) for n in (5, 10, 20, 100)]
    assert found == [0.0010, 0.0086, 0.0159, 0.0231]


@pytest.mark.parametrize("n", [5, 12, 108])
def test_percentile_interval_of_a_mean_is_as_wide_as_students(n):
    """The replicates are normal, with the variance of n draws with replacement."""
    values = np.random.default_rng(n).normal(size=n)
    replicates = stats.norm.ppf(np.linspace(0, 1, 10**6 + 2)[1:-1], values.mean(), values.std() / np.sqrt(n))
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert percentile_interval(replicates, n) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("patients", [2, 7, 300])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_percentile_p_is_that_of_the_interval_that_ends_there(patients, confidence):
    assert percentile_p(percentile_tail(patients, confidence), patients) == pytest.approx(1 - confidence)
    assert percentile_p(0.5, patients) == pytest.approx(1)


@pytest.mark.parametrize("interval", [plain_percentile, lambda r: bca_interval(50.0, r, 0.0)])
def test_an_interval_needs_95_percent_of_the_replicates(interval):
    replicates = np.arange(100.0)
    replicates[:5] = np.nan
    assert interval(replicates) is not None
    replicates[5] = np.nan
    assert interval(replicates) is None


def test_percentile_leaves_undefined_replicates_out():
    replicates = np.arange(100.0)
    replicates[:5] = np.nan
    expected = tuple(np.quantile(np.arange(5, 100), [0.025, 0.975]))
    assert plain_percentile(replicates) == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_bca_equals_scipy_with_two_groups(confidence):
    """A ratio of two groups' means: skewed and biased."""
    rng = np.random.default_rng(0)
    one, other = rng.exponential(2, 23), rng.exponential(1, 40)

    def ratio(a, b, axis=-1):
        return np.mean(a, axis=axis) / np.mean(b, axis=axis)

    drawn = stats.bootstrap((one, other), ratio, n_resamples=1999, method="percentile", rng=rng)
    expected = stats.bootstrap(
        (one, other), ratio, n_resamples=0, bootstrap_result=drawn, confidence_level=confidence, method="BCa"
    ).confidence_interval
    jackknife = np.r_[
        [ratio(np.delete(one, i), other) for i in range(23)],
        [ratio(one, np.delete(other, i)) for i in range(40)],
    ]
    found = bca_interval(
        float(ratio(one, other)),
        drawn.bootstrap_distribution,
        float(acceleration(jackknife[None], np.arange(63) < 23)[0]),
        confidence,
    )
    assert found == pytest.approx(tuple(expected), abs=1e-9)
    assert found != pytest.approx(plain_percentile(drawn.bootstrap_distribution, confidence), abs=0.01)


def test_acceleration_of_a_mean_is_a_sixth_of_its_skewness():
    """Efron & Tibshirani 1993, section 14.3: for a mean, a = skewness / (6 sqrt(n))."""
    values = np.random.default_rng(1).exponential(1, 50)
    jackknife = (values.sum() - values) / 49
    found = acceleration(jackknife[None], np.ones(50, dtype=bool))
    assert found[0] == pytest.approx(stats.skew(values) / (6 * np.sqrt(50)), abs=1e-9)


def test_bca_without_bias_and_acceleration_is_the_percentile_interval():
    replicates = np.random.default_rng(2).permutation(np.arange(1001.0))
    assert bca_interval(500.0, replicates, 0.0) == pytest.approx(plain_percentile(replicates), abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_bca_of_what_does_not_vary():
    jackknife = np.full((1, 10), 1.0)
    none = acceleration(jackknife, np.arange(10) < 4)
    assert none.tolist() == [0.0]
    assert bca_interval(1.0, np.full(100, 1.0), none[0]) == (1.0, 1.0)


@pytest.mark.filterwarnings("error")
def test_bca_that_is_not_estimable():
    replicates = np.arange(100.0)
    assert bca_interval(-1.0, replicates, 0.0) is None  # every replicate is above
    jackknife = np.array([[1.0, 2.0, np.nan]])  # a patient without whom it is undefined
    undefined = acceleration(jackknife, np.zeros(3, dtype=bool))
    assert np.isnan(undefined[0])
    assert bca_interval(50.0, replicates, undefined[0]) is None


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (81, 263), (15, 148), (10, 10), (963, 1000)])
def test_wilson_equals_scipy(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "patient", "expected"),
    [
        ([1, 0, 1, 0], [0, 1, 2, 3], 4),  # one film each
        ([1, 1, 0, 0], [0, 0, 1, 1], 2),  # films of a patient alike: as many as patients
        ([1, 0, 1, 0], [0, 0, 1, 1], 4),  # each patient as all of them: no fewer than independent
        ([1, 1, 1, 1], [0, 0, 1, 2], 16 / 6),  # no error: the largest design effect, (4 + 1 + 1) / 4
        ([1, 0, 1], [0, 0, 0], 1),  # one patient
    ],
)
def test_effective_films_by_hand(values, patient, expected):
    assert effective_films(np.array(values, float), np.array(patient)) == pytest.approx(expected)


def test_effective_films_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        patient = rng.integers(0, 30, 60)
        values = (rng.random(60) < rng.beta(0.5, 0.5, 30)[patient]).astype(float)
        share, variance, largest = values.mean(), 0.0, 0.0
        for each in set(patient.tolist()):
            own = values[patient == each]
            variance += ((own - share).sum() / (1 - len(own) / 60)) ** 2 / 60**2
            largest += len(own) ** 2 / 60
        effect = variance / (share * (1 - share) / 60)
        seen.add("within" if 1 < effect < largest else "clipped")
        assert effective_films(values, patient) == pytest.approx(60 / min(max(effect, 1), largest))
    assert seen == {"within", "clipped"}


def score(first: float, second: float, n: float, difference: float) -> float:
    """Tango's statistic with the likelihood maximised by search, not by formula."""

    def minus_likelihood(share):  # of films that only the second calls right
        shares = (share + difference, share, 1 - 2 * share - difference)
        films = (first, second, n - first - second)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(films, shares, strict=True))

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = minimize_scalar(minus_likelihood, (low, high), bounds=(low, high), options={"xatol": 1e-14}).x
    variance = n * (2 * share + difference - difference**2)
    return (first - second - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("first", "second", "n"), [(5, 0, 108), (12, 3, 50), (3, 4, 20), (1, 30, 60), (7.5, 2.2, 31)]
)
def test_tango_ends_where_the_score_is_the_quantile(first, second, n):
    low, high = tango_interval(first, second, n)
    assert score(first, second, n, low) == pytest.approx(1.959964, abs=1e-4)
    assert score(first, second, n, high) == pytest.approx(-1.959964, abs=1e-4)
    assert (-high, -low) == pytest.approx(tango_interval(second, first, n), abs=1e-9)


def test_tango_at_the_edges():
    square = 1.959963984540054**2
    low, high = tango_interval(0, 0, 108)
    assert (low, high) == pytest.approx((-square / (108 + square), square / (108 + square)))
    assert tango_interval(5, 0, 108)[0] > 0
    assert tango_interval(10, 0, 10)[1] == 1
    assert tango_interval(0, 10, 10)[0] == -1


def test_koopman_as_printed():
    """His own example, and ends beside nothing."""
    assert np.round(koopman_interval(36, 40, 16, 80), 2).tolist() == [2.94, 7.15]
    assert koopman_interval(0, 20, 450, 500) == pytest.approx((0, 0.179), abs=5e-4)
    assert koopman_interval(0, 20, 0, 500) == (0, math.inf)
    low, high = koopman_interval(20, 20, 0, 500)
    assert (low > 1, high) == (True, math.inf)


@pytest.mark.parametrize(
    "counts", [(18, 20, 50, 500), (20, 20, 50, 500), (3.5, 12.2, 7.1, 40.9), (1, 20, 500, 500)]
)
def test_koopman_ends_where_the_likelihood_says(counts):
    """The score of the ratio, the likelihood maximised by search, is the quantile at both ends."""
    first, n_first, second, n_second = counts

    def square(ratio):
        def minus_likelihood(p):
            q = p / ratio
            terms = ((first, p), (n_first - first, 1 - p), (second, q), (n_second - second, 1 - q))
            return -sum(k * math.log(max(share, 1e-300)) for k, share in terms)

        top = min(1.0, ratio)
        p = minimize_scalar(minus_likelihood, bounds=(0, top), method="bounded", options={"xatol": 1e-13}).x
        groups = ((first, n_first, p), (second, n_second, p / ratio))
        return sum((k - n * q) ** 2 / max(n * q * (1 - q), 1e-12) for k, n, q in groups)

    for end in koopman_interval(*counts):
        assert square(end) == pytest.approx(1.959963984540054**2, rel=1e-3)


def test_wilson_as_printed():
    """Newcombe, Stat Med 1998;17:857-872, table I, method 3."""
    assert np.round(wilson_interval(81, 263), 4).tolist() == [0.2553, 0.3662]
    assert np.round(wilson_interval(15, 148), 4).tolist() == [0.0624, 0.1605]
    assert np.round(wilson_interval(0, 20), 4).tolist() == [0.0, 0.1611]
    assert np.round(wilson_interval(1, 29), 4).tolist() == [0.0061, 0.1718]
    assert wilson_interval(20, 20)[1] == 1.0
