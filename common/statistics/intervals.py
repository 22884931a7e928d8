"""How an interval is made from a metric's replicates, or from its counts; and when none is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr, stdtrit

CONFIDENCE = 0.95
# Above this share of replicates that do not define the metric, the others are a selection.
MAX_UNDEFINED = 0.05
# Below either, no interval is given: a handful of patients, resampled, shows only itself. A metric of both
# classes (AUROC, likelihood ratios, ...) needs as many positives, and as many negatives.
MIN_FILMS = 10
MIN_PATIENTS = 5
EXPANDED = "percentile intervals are expanded for few patients (Hesterberg, Am Stat 2015;69:371-386)"

_NORMAL = NormalDist()


def too_few(patient: np.ndarray) -> bool:
    """Whether films of these patients (one number a film) are too few for an interval."""
    return len(patient) < MIN_FILMS or len(np.unique(patient)) < MIN_PATIENTS


def percentile_interval(
    replicates: np.ndarray, patients: int, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The percentile interval (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

    Its tails are those of `percentile_tail`. Linear interpolation between order statistics.

    Args:
        replicates: (resamples,) float64; NaN where a resample does not define the value.
        patients: See `percentile_tail`.
        confidence: Level of confidence, between 0 and 1.

    Returns:
        (low, high), or None where more than MAX_UNDEFINED of the replicates are undefined: the rest would
        be a selection, and an interval from them too narrow.
    """
    defined = _defined(replicates)
    tail = percentile_tail(patients, confidence)
    return None if defined is None else _quantiles(defined, tail, 1 - tail)


def percentile_tail(patients: int, confidence: float = CONFIDENCE) -> float:
    """The share of replicates beyond each end of a percentile interval, expanded for few patients.

    Phi(-t sqrt(n / (n - 1))) with Student's t of n - 1 degrees of freedom: the percentile interval of a mean
    is then as wide as Student's. With (1 - confidence) / 2 it is too narrow, since the mean of a resample has
    (n - 1) / n of the variance and Phi no degrees of freedom (Hesterberg, Am Stat 2015;69:371-386). At 95%
    it is 0.0231 with 100 patients, 0.0159 with 20, 0.0010 with 5.

    Args:
        patients: At least 2: how many the estimate is over. Where it needs both classes, of the rarer.
        confidence: Level of confidence, between 0 and 1.
    """
    t = stdtrit(patients - 1, (1 + confidence) / 2)
    return float(ndtr(-t * np.sqrt(patients / (patients - 1))))


def percentile_p(beyond: float, patients: int) -> float:
    """Two-sided p-value of a value beyond which lies this share of the replicates, at most one half.

    The `percentile_interval` of confidence 1 - p ends there: `percentile_tail`, solved for p.
    """
    return float(2 * stdtr(patients - 1, ndtri(beyond) * np.sqrt((patients - 1) / patients)))


def bca_interval(
    estimate: float, replicates: np.ndarray, acceleration: float, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The bias-corrected and accelerated interval (Efron, J Am Stat Assoc 1987;82:171-185).

    The bias correction counts replicates that equal the estimate half: metrics of few films are often tied.
    Linear interpolation between order statistics; the tails are not expanded.

    Args:
        estimate: Finite estimate on the full sample.
        replicates: (resamples,) float64; NaN where undefined.
        acceleration: See `acceleration`; NaN where it is not estimable.

    Returns:
        (low, high), or None where too many replicates are undefined, the acceleration is not estimable, or
        every replicate lies on one side of the estimate.
    """
    defined = _defined(replicates)
    if defined is None or np.isnan(acceleration):
        return None
    below = float(np.mean(defined < estimate) + np.mean(defined <= estimate)) / 2
    if not 0 < below < 1:  # the bias would be infinite
        return None
    bias = _NORMAL.inv_cdf(below)

    def level(tail: float) -> float:
        z = bias + _NORMAL.inv_cdf(tail)
        return _NORMAL.cdf(bias + z / (1 - acceleration * z))

    tail = (1 - confidence) / 2
    return _quantiles(defined, level(tail), level(1 - tail))


def acceleration(jackknife: np.ndarray, group: np.ndarray) -> np.ndarray:
    """How fast the spread of estimates changes with their value, from the jackknife over patients.

    With groups that are resampled apart it is sum_g(sum U^3 / n_g^3) / (6 sum_g(sum U^2 / n_g^2)^1.5) with
    U = (n_g - 1) (mean of the group - value) (Davison & Hinkley, Bootstrap Methods and their Application,
    1997, section 5.3; DiCiccio & Efron, Stat Sci 1996;11:189-228).

    Args:
        jackknife: (metrics, patients) float64, value of each metric without each patient.
        group: (patients,) bool, group that each patient is resampled in.

    Returns:
        (metrics,) float64. 0 where leaving out a patient changes nothing, NaN where it leaves any undefined.
    """
    cubes, squares = np.zeros((2, len(jackknife)))
    for each in (group, ~group):
        values = jackknife[:, each]
        n = values.shape[1]
        if n:
            influence = (n - 1) / n * (values.mean(axis=1, keepdims=True) - values)
            cubes += (influence**3).sum(axis=1)
            squares += (influence**2).sum(axis=1)
    # The rounding of equal values is no influence.
    rounding = (1e-12 * np.abs(jackknife).max(axis=1)) ** 2
    found = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > rounding)
    return np.where(np.isnan(squares), np.nan, found)


def wilson_interval(successes: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, J Am Stat Assoc 1927;22:209-212).

    Args:
        successes: Number of successes, 0 to n; with several films a patient, `share * effective_films`.
        n: Number of films, above 0, or their effective number.
        confidence: Probability that the interval is to hold the proportion.
    """
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (
        0.0 if successes == 0 else float(middle - half),
        1.0 if successes == n else float(middle + half),
    )  # exactly at the ends, where rounding would leave 1e-17


def effective_films(values: np.ndarray, patient: np.ndarray) -> float:
    """How many independent films tell as much of a mean as these, of which a patient gave several.

    The number of films over the design effect: the variance of the mean by patients over that of independent
    films, from 1 to sum(m^2) / n, where all m films of each patient are alike (Rao & Scott, Biometrics
    1992;48:577-585). Each patient's residual is the one without the patient, since few patients would else
    seem too alike (Bell & McCaffrey, Survey Methodology 2002;28:169-181). Values that are all equal show no
    variance, and get the largest design effect.

    Args:
        values: (n,) float64, value of each film, n >= 1; for a share 0 or 1, for a paired difference -1 to 1.
        patient: (n,) int, number of its patient.
    """
    n, mean = len(values), values.mean()
    _, member, films = np.unique(patient, return_inverse=True, return_counts=True)
    largest = float((films**2).sum() / n)
    independent = float(((values - mean) ** 2).sum() / n**2)
    # With one patient, a residual without the patient would be divided by 0.
    if len(films) == n or independent <= 0 or len(films) == 1:
        return n / largest
    residual = np.bincount(member, values - mean) / (1 - films / n)
    effect = float((residual**2).sum() / n**2) / independent
    return n / min(max(effect, 1.0), largest)


def alike_films(patient: np.ndarray) -> float:
    """The least number of independent films that can tell as much as these, n >= 1: see `effective_films`.

    Args:
        patient: (n,) int, number of each film's patient.
    """
    _, films = np.unique(patient, return_counts=True)
    return float(len(patient) ** 2 / (films**2).sum())


def mean_by_patient(deviations: np.ndarray, patient: np.ndarray, patients: int) -> np.ndarray:
    """What each patient's films add to a mean (float64, length `patients`).

    The products of two such arrays, added up, are the covariance of two means by patients.

    Args:
        deviations: (n,) float64, value of each film less the mean.
        patient: (n,) int, number of its patient, below `patients`; at least two patients occur.
        patients: Number of patients; those without a film add 0.
    """
    occurring = len(np.unique(patient))
    weight = math.sqrt(occurring / (occurring - 1)) / len(deviations)  # the root: it enters products twice
    return weight * np.bincount(patient, deviations, patients)


def tango_interval(
    first_only: float, second_only: float, n: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The score interval of a difference of proportions of the same films (Tango, Stat Med 1998;17:891-908).

    It holds 0 where McNemar's score test, (first_only - second_only)^2 / (first_only + second_only), does not
    reject it, and has a width where no film is discordant.

    Args:
        first_only: Films that only the first called right.
        second_only: Films that only the second called right.
        n: All films, above 0; these three numbers may be effective ones.
        confidence: Probability that the interval is to hold the difference.

    Returns:
        Ends of the first's proportion minus the second's, -1 to 1.
    """
    z = _NORMAL.inv_cdf((1 + confidence) / 2)

    def beyond(difference: float) -> float:
        """How far a difference lies from the observed one, in standard errors under that difference."""
        b = (2 * n - first_only + second_only) * difference - first_only - second_only
        c = -second_only * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)  # of the second only: most likely
        variance = max(n * (2 * share + difference * (1 - difference)), 1e-12)  # at -1 and 1 there is none
        return (first_only - second_only - n * difference) / math.sqrt(variance)

    observed = (first_only - second_only) / n
    return root(lambda d: beyond(d) - z, -1.0, observed), root(lambda d: beyond(d) + z, observed, 1.0)


def joined_interval(
    first: float,
    first_ends: tuple[float, float],
    second: float,
    second_ends: tuple[float, float],
    correlation: float = 0.0,
) -> tuple[float, float]:
    """The interval of a difference from those of its two sides (Zou & Donner, Stat Med 2008;27:1693-1702).

    So it has a width where neither side varies. With Wilson's intervals it is Newcombe's method 10 (Stat Med
    1998;17:873-890), with a correlation as in his method for paired proportions (Stat Med 1998;17:2635-2650).

    Args:
        first, second: Estimates; the second is subtracted.
        first_ends, second_ends: Their intervals, low and high.
        correlation: Correlation of the estimates, -1 to 1.
    """
    below, above = first - first_ends[0], first_ends[1] - first
    other_below, other_above = second - second_ends[0], second_ends[1] - second

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))  # but for rounding

    difference = first - second
    return difference - distance(below, other_above), difference + distance(above, other_below)


def koopman_interval(
    first: float, n_first: float, second: float, n_second: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The score interval of a ratio of proportions of different films (Koopman, Biometrics 1984;40:513-517).

    Args:
        first, second: Numbers of films of each group that count.
        n_first, n_second: All films of each group, above 0; all four numbers may be effective ones.
        confidence: Probability that the interval is to hold the ratio.

    Returns:
        Ends of the first proportion over the second, 0 to infinity; these two where neither counts a film.
    """
    limit = _NORMAL.inv_cdf((1 + confidence) / 2) ** 2
    if not first + second:
        return 0.0, math.inf

    def within(ratio: float) -> float:
        """The limit less the score's square, at a ratio."""
        b = ratio * (n_first + second) + first + n_second
        square = b * b - 4 * ratio * (n_first + n_second) * (first + second)
        share = min(2 * ratio * (first + second) / (b + math.sqrt(max(square, 0.0))), 1.0)  # most likely
        return limit - sum(
            (count - n * p) ** 2 / max(n * p * (1 - p), 1e-12)
            for count, n, p in ((first, n_first, share), (second, n_second, share / ratio))
        )

    observed = first / n_first / (second / n_second) if second else math.inf
    # On the logarithm, where a ratio and its inverse are alike and the ends lie about as far from it.
    inside = observed if 0 < observed < math.inf else _inside(within, first > 0)
    low = 0.0 if not first else math.exp(root(lambda x: -within(math.exp(x)), -30.0, math.log(inside)))
    high = math.inf if not second else math.exp(root(lambda x: within(math.exp(x)), math.log(inside), 30.0))
    return low, high


def _inside(within: Callable[[float], float], rising: bool) -> float:
    """A ratio in an interval that reaches to infinity, or to 0."""
    step = 10.0 if rising else 0.1
    ratio = 1.0
    while within(ratio) <= 0:
        ratio *= step
    return ratio


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0 between two places; the end of them where it does not."""
    if falling(low) < 0 or low == high:
        return low
    # brentq raises where both ends have one sign.
    return high if falling(high) > 0 else float(brentq(falling, low, high, xtol=1e-14))


def _defined(replicates: np.ndarray) -> np.ndarray | None:
    undefined = np.isnan(replicates)
    if undefined.mean() > MAX_UNDEFINED:
        return None
    return replicates[~undefined]


def _quantiles(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    found = np.quantile(values, [low, high])
    return float(found[0]), float(found[1])
