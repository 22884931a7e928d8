"""Curves of one system: ROC, precision-recall, net benefit and FROC with bands, and calibration in tenths.

Imports no torch: the metrics need neither it nor a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.statistics.bootstrap import resample_counts
from common.statistics.intervals import percentile_tail, wilson_interval
from common.statistics.tested_films import Cases

GRID = np.linspace(0, 1, 201)  # where a band is computed
DECISION_THRESHOLDS = np.arange(1, 51) / 100


@dataclass(frozen=True)
class Curve:
    """A curve of the full sample and its pointwise band; ordinates 0-1 (net benefit: also below), float64.

    Attributes:
        x: Abscissae of the curve, ascending, length k; 0-1 but for FROC.
        y: Ordinates of the curve, length k.
        low: Lower edge of the band at each point of the grid.
        high: Upper edge of the band at each point of the grid.
        grid: Abscissae of the band.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    grid: np.ndarray = field(default_factory=lambda: GRID)


def roc(cases: Cases, reference: str, replicates: int, seed: int) -> Curve | None:
    """Sensitivity against 1 - specificity at every probability as the threshold, joined by straight lines.

    The band is of the sensitivity at each false-positive rate (vertical averaging: Fawcett, Pattern
    Recognition Letters 2006;27:861-874), by resampling patients. It is pointwise: 95% at each rate, not for
    the whole curve.

    Args:
        reference: `mask` or `report`; also decides the two groups of patients that are resampled.
        replicates: Resamples behind the band, at least 1.
        seed: Seed of the resampling, 0 or more.

    Returns:
        The curve from (0, 0) to (1, 1); None without positives or without negatives.
    """
    return _curve(cases, reference, replicates, seed, _roc_points, _between)


def precision_recall(cases: Cases, reference: str, replicates: int, seed: int) -> Curve | None:
    """Precision against recall at every probability as the threshold, in steps.

    The precision at a recall is that of the first threshold, from above, that reaches it: a straight line
    between points would be too favourable (Davis & Goadrich, ICML 2006). So the area below is the average
    precision. The band is pointwise, as in `roc`, and at the prevalence of these films.

    Returns:
        The curve from recall 0 to 1; None without positives or without negatives.
    """
    return _curve(cases, reference, replicates, seed, _precision_recall_points, _stepped)


def _curve(
    cases: Cases,
    reference: str,
    replicates: int,
    seed: int,
    points: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    at: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Curve | None:
    positive = cases.positive(reference)
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-cases.probability, kind="stable")
    # films of one probability enter together: only the last of them is a threshold
    last = np.flatnonzero(np.append(np.diff(cases.probability[order]) != 0, True))

    def totals(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        true = np.cumsum(counts[order] * positive[order])[last]
        return true, np.cumsum(counts[order])[last] - true

    replicate_values = []
    for block in resample_counts(cases.patient, positive, replicates, seed):
        for counts in block:
            true, false = totals(counts)
            if true[-1] and false[-1]:  # a resample without one of the classes has no curve
                replicate_values.append(at(*points(true, false)))
    low, high = _band(replicate_values, cases, positive)
    return Curve(*points(*totals(np.ones(len(cases)))), low, high)


def _band(values: Sequence[np.ndarray] | np.ndarray, cases: Cases, positive: np.ndarray) -> np.ndarray:
    """Lower and upper edge at each abscissa, from the ordinates of each resample."""
    fewest = min(len(np.unique(cases.patient[films])) for films in (positive, ~positive) if films.any())
    tail = percentile_tail(max(2, fewest))  # of one patient, Student's t has no degree of freedom
    return np.quantile(np.array(values), [tail, 1 - tail], axis=0)


def _roc_points(true: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def _precision_recall_points(true: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    recall = true / true[-1]
    drawn = true + false
    precision = np.divide(true, drawn, out=np.ones_like(recall), where=drawn > 0)
    return np.append(0, recall), np.append(precision[:1], precision)


def _between(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y on GRID, by straight lines; where the curve rises upright, its upper end."""
    return np.interp(GRID, x, y)


def _stepped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y on GRID: of the first point that reaches each x."""
    # less the rounding error, or 0.29 would not be reached by 29 of 100
    return y[np.searchsorted(x, GRID - 1e-9, side="left")]


# --- net benefit -----------------------------------------------------------------------------------


def net_benefit(cases: Cases, reference: str, replicates: int, seed: int) -> Curve | None:
    """Net benefit of calling the films whose probability reaches a threshold (Vickers & Elkin, 2006).

    True positives less false ones at the odds of the threshold, a film: the threshold says how many false
    alarms a found lesion is worth (Med Decis Making 2006;26:565-574). It is at the prevalence of these films.
    The band is pointwise, by resampling patients.

    Returns:
        The curve at DECISION_THRESHOLDS, ordinates up to the prevalence and perhaps below 0; None without
        positives or without negatives.
    """
    positive = cases.positive(reference)
    if positive.all() or not positive.any():
        return None
    worth = np.where(positive[:, None], 1.0, -odds(DECISION_THRESHOLDS))
    each = worth * (cases.probability[:, None] >= DECISION_THRESHOLDS)
    resampled = [
        counts @ each / counts.sum(axis=1, keepdims=True)
        for counts in resample_counts(cases.patient, positive, replicates, seed)
    ]
    low, high = _band(np.concatenate(resampled), cases, positive)
    return Curve(DECISION_THRESHOLDS, each.mean(axis=0), low, high, DECISION_THRESHOLDS)


def odds(share: np.ndarray) -> np.ndarray:
    """Odds of a share from 0 to below 1, in its shape."""
    return share / (1 - share)


# --- outlines --------------------------------------------------------------------------------------


def froc(cases: Cases, replicates: int, seed: int) -> Curve | None:
    """Lesions found against false outlines a film (FROC: Chakraborty, Med Phys 1989;16:561-568).

    Outlines that the two-stage decision shows, fewer and fewer by their brightest pixel. So the curve's right
    end is what the system shows, and it goes no further. The ordinate at a number of false outlines is that
    of the lowest score that makes no more of them. The band is pointwise, by resampling patients.

    Args:
        cases: Films of one system's result; positives are by mask.
        replicates: Resamples behind the band, at least 1.
        seed: Seed of the resampling, 0 or more.

    Returns:
        The curve from 0 false outlines a film; None where no lesion or no outline is known.
    """
    lesions = np.nan_to_num(cases.column("lesions"))
    true, false = (_scores(cases, name) for name in ("lesion_scores", "false_scores"))
    score, film = np.concatenate([true[0], false[0]]), np.concatenate([true[1], false[1]])
    if not lesions.any() or not len(score):
        return None
    found = np.arange(len(score)) < len(true[0])
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # equal scores enter together
    film, found = film[order], found[order]

    def points(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown = counts[film]
        x = np.cumsum(shown * ~found)[last] / counts.sum()
        y = np.cumsum(shown * found)[last] / (counts @ lesions)
        return np.append(0, x), np.append(0, y)

    x, y = points(np.ones(len(cases)))
    grid = np.linspace(0, x[-1], len(GRID))
    replicate_values = [
        resampled[1][np.searchsorted(resampled[0], grid, side="right") - 1]
        for block in resample_counts(cases.patient, cases.has_mask, replicates, seed)
        for counts in block
        if counts @ lesions
        for resampled in [points(counts)]
    ]
    low, high = _band(replicate_values, cases, cases.has_mask)
    return Curve(x, y, low, high, grid)


def _scores(cases: Cases, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores above 0 in a column of the films that are shown, and the film of each (its place)."""
    texts = cases.column(column)
    found = [
        (float(score), film)
        for film in np.flatnonzero(cases.two_stage).tolist()
        if isinstance(texts[film], str)
        for score in texts[film].split()
    ]
    scores, films = (np.array(each) for each in zip(*found, strict=True)) if found else (np.empty(0),) * 2
    return scores[scores > 0], films[scores > 0].astype(int)


# --- calibration -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tenth:
    """Films of neighbouring probability.

    Attributes:
        n: Number of films in the tenth.
        positives: Number of positive films in the tenth.
        predicted: Mean probability of the tenth's films, 0-1.
        observed: Share of positive films, positives / n.
        low: Lower end of the Wilson interval of `observed`, which takes films as independent.
        high: Upper end of that interval.
    """

    n: int
    positives: int
    predicted: float
    observed: float
    low: float
    high: float


def calibration(cases: Cases, reference: str) -> list[Tenth]:
    """Films in tenths by probability, lowest first; films of one probability stay together.

    So there may be fewer than ten groups, of unequal size.
    """
    edges = np.unique(np.quantile(cases.probability, np.arange(1, 10) / 10))
    group = np.searchsorted(edges, cases.probability, side="right")
    positive = cases.positive(reference)
    return [_tenth(cases.probability[group == g], positive[group == g]) for g in np.unique(group)]


def _tenth(probability: np.ndarray, positive: np.ndarray) -> Tenth:
    n, positives = len(positive), int(positive.sum())
    return Tenth(n, positives, float(probability.mean()), positives / n, *wilson_interval(positives, n))
