"""The area under the ROC curve: of one set of scores, and its interval. (`metrics` has it of resamples.)

The interval is of two that fail in different places. DeLong's rests on the spread that was seen: right with
many positives, too narrow with few, which may by chance show none of the lesions that a system misses, and
without width where all positives rank first. Newcombe's method 5 assumes a spread: it holds with ten
positives, and fails where scores are otherwise distributed. In the grid of `benchmarks/coverage.py` neither
holds alone; DeLong's with the end towards 0.5 no nearer than Newcombe's does.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import expit, stdtrit

from common.statistics.intervals import CONFIDENCE, mean_by_patient, root


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """scikit-learn's: the probability that a positive scores higher than a negative, ties as one half.

    Args:
        positive: (n,) bool, whether the film is positive; both classes occur.
        score: (n,) finite scores, higher is more positive.
    """
    from sklearn.metrics import roc_auc_score  # takes seconds, which a refusal need not wait

    return float(roc_auc_score(positive, score))


class Ranked(NamedTuple):
    """Scores of films of both classes; at least two patients have a positive, and two a negative.

    Attributes:
        scores: (n,) float64, finite, higher is more positive.
        positive: (n,) bool.
        patient: (n,) int, number of each film's patient.
    """

    scores: np.ndarray
    positive: np.ndarray
    patient: np.ndarray


def auroc_interval(films: Ranked, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Ends of the interval of an AUROC, 0-1: DeLong's, towards 0.5 Newcombe's if that is farther.

    DeLong's (Biometrics 1988;44:837-845) has the variance by patients (Obuchowski, Biometrics
    1997;53:567-578) and is symmetric on the logit scale (Pepe, The Statistical Evaluation of Medical Tests,
    2003, section 5.2). Newcombe's is at the effective numbers of films; where DeLong's has no width, it is
    Newcombe's throughout.
    """
    estimate, deviations = _deviations(films)
    variance = _by_patient(deviations, films).total
    newcombe = newcombe_interval(estimate, *_effective_classes(deviations, films), confidence)
    if variance <= 0:
        return newcombe
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    logit = math.log(estimate / (1 - estimate))
    half = z * math.sqrt(variance) / (estimate * (1 - estimate))  # the logit's slope there (delta method)
    low, high = (float(expit(logit + side * half)) for side in (-1, 1))
    return (min(low, newcombe[0]), high) if estimate >= 0.5 else (low, max(high, newcombe[1]))


def newcombe_interval(
    estimate: float, positives: float, negatives: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Newcombe's method 5 (Stat Med 2006;25:559-573), which needs the AUROC and the numbers of films alone.

    It holds each AUROC from which the estimate is no further than the normal quantile, in standard errors
    after Hanley & McNeil (Radiology 1982;143:29-36) under that AUROC, with the mean of both classes' numbers
    in place of each in the terms that say which class spreads.

    Args:
        estimate: AUROC, 0-1.
        positives, negatives: Numbers of films, at least 1 each, or their effective numbers.
        confidence: Probability that the interval is to hold the AUROC.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    others = (positives + negatives) / 2 - 1

    def beyond(area: float) -> float:
        """The estimate less this AUROC, in standard errors."""
        spread = 1 + others * ((1 - area) / (2 - area) + area / (1 + area))
        # At 0 and 1 there is no variance, and any distance is beyond.
        variance = max(area * (1 - area) * spread / (positives * negatives), 1e-18)
        return (estimate - area) / math.sqrt(variance)

    return root(lambda area: beyond(area) - z, 0.0, estimate), root(
        lambda area: beyond(area) + z, estimate, 1.0
    )


def auroc_difference_interval(
    first: Ranked, second: Ranked, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Ends of the interval of the first AUROC minus the second, of the same films, -1 to 1.

    DeLong's variance of the difference by patients, with Student's t of as many degrees of freedom as the
    rarer class has patients, less one. Where the ranks do not differ by chance at all, as where both systems
    rank every positive first, it has no width, and the two intervals are joined as if independent (Zou & Yue,
    Stat Med 2013;32:5077-5090), which is too wide rather than too narrow.
    """
    (one, of_one), (other, of_other) = _deviations(first), _deviations(second)
    difference = one - other
    spread = _by_patient(of_one - of_other, first)
    if spread.total > 0:
        half = float(stdtrit(spread.patients - 1, (1 + confidence) / 2)) * math.sqrt(spread.total)
        return max(difference - half, -1.0), min(difference + half, 1.0)
    (low, high), (other_low, other_high) = (auroc_interval(each, confidence) for each in (first, second))
    return (
        difference - math.hypot(one - low, other_high - other),
        difference + math.hypot(high - one, other - other_low),
    )


def auroc_by_patient(films: Ranked, patients: int) -> tuple[float, np.ndarray]:
    """An AUROC, and what each patient's films add to it (float64, length `patients`).

    The products of two such arrays, added up, are the covariance of two AUROCs, after DeLong with patients
    as units (Obuchowski, Biometrics 1997;53:567-578); patients without a film add 0.

    Args:
        films: Scores of films of both classes.
        patients: Number of patients, above each of `films.patient`.
    """
    estimate, deviations = _deviations(films)
    return estimate, _patient_sums(deviations, films, patients)


def placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Films of the other class below each film, ties as one half (float64, length n): from midranks.

    O(n log n), after Sun & Xu (IEEE Signal Processing Letters 2014;21:1389-1393).
    """
    below = _midranks(scores)
    for group in (positive, ~positive):
        below[group] -= _midranks(scores[group])
    return below


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; tied values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _deviations(films: Ranked) -> tuple[float, np.ndarray]:
    """The AUROC, and what each film adds to it (float64, length n): its share of pairs won less that."""
    positive = films.positive
    below = placements(films.scores, positive)
    m, n = int(positive.sum()), int((~positive).sum())
    won = np.where(positive, below / n, 1 - below / m)
    estimate = float(won[positive].mean())
    return estimate, won - estimate


class _Spread(NamedTuple):
    """Variance of an AUROC by patients; patients of the rarer class."""

    total: float
    patients: int


def _by_patient(deviations: np.ndarray, films: Ranked) -> _Spread:
    """DeLong's variance with the deviations of a patient's films added up first, of both classes together.

    Without rounding: deviations that are all 0 but for that have no variance.
    """
    sums = _patient_sums(deviations, films, int(films.patient.max()) + 1)
    variance = float(sums @ sums)
    fewest = min(len(np.unique(films.patient[each])) for each in (films.positive, ~films.positive))
    return _Spread(variance if variance > 1e-24 else 0.0, fewest)


def _patient_sums(deviations: np.ndarray, films: Ranked, patients: int) -> np.ndarray:
    """The weighted deviations of each patient's films added up (float64, length `patients`)."""
    sums = np.zeros(patients)
    for each in (films.positive, ~films.positive):
        sums += mean_by_patient(deviations[each], films.patient[each], patients)
    return sums


def _effective_classes(deviations: np.ndarray, films: Ranked) -> tuple[float, float]:
    """Positives and negatives over the design effect, which is from 1 to the largest that can be."""
    classes = [films.positive, ~films.positive]
    independent = sum(float(deviations[each] @ deviations[each]) / int(each.sum()) ** 2 for each in classes)
    largest = max(_largest_effect(films.patient[each]) for each in classes)
    effect = _by_patient(deviations, films).total / independent if independent > 1e-24 else largest
    effect = min(max(effect, 1.0), largest)
    positives, negatives = (int(each.sum()) / effect for each in classes)
    return positives, negatives


def _largest_effect(patient: np.ndarray) -> float:
    """The design effect where all films of each patient are alike: sum(m^2) / n."""
    films = np.unique(patient, return_counts=True)[1]
    return float((films**2).sum() / len(patient))
