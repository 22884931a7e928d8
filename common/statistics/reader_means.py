"""Several readers: their mean, systems against it, and readers with a system's aid against without.

One value a reader is averaged: a metric, or the difference of two metrics on the films that this reader read.
Intervals and p-values are for other readers and other patients, after Obuchowski & Rockette (Commun Stat
Simul Comput 1995;24:285-308) with Hillis' degrees of freedom (Stat Med 2007;26:596-619). With the differences
between two readings of each reader this is their test of two modalities; with those from a system, which has
no reader, it is Chakraborty's (Observer Performance Methods for Diagnostic Imaging, 2017, chapter 22).

Readers need not have read the same films. A reader who read films of fewer than two patients of a class that
a metric needs is left out of it, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, ndtr, ndtri, stdtrit

from common.statistics.auroc import Ranked, auroc_by_patient, newcombe_interval
from common.statistics.bootstrap import NOT_ESTIMABLE, TOO_FEW, patient_numbers
from common.statistics.compare_systems import fill_in_holm
from common.statistics.human_readers import AID, CALL, Reading, read_both_ways
from common.statistics.intervals import (
    CONFIDENCE,
    alike_films,
    joined_interval,
    mean_by_patient,
    root,
    tango_interval,
    too_few,
    wilson_interval,
)
from common.statistics.metrics import DECISIONS, REFERENCES
from common.statistics.strata import STRATA, strata
from common.statistics.tested_films import Cases

READERS = "readers"
AIDED_READERS = "readers aided"
TEST = "Obuchowski-Rockette"
_METRICS = ("auroc", "sensitivity", "specificity")
_KINDS = {"auroc": TEST.lower(), **dict.fromkeys(_METRICS[1:], f"{TEST.lower()}, wilson")}


# --- the method ------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """Variance of a mean of readers, and its degrees of freedom (infinite where readers do not differ)."""

    variance: float
    degrees: float

    def quantile(self, confidence: float) -> float:
        """How many standard errors an interval reaches to either side."""
        tail = (1 + confidence) / 2
        return float(ndtri(tail) if math.isinf(self.degrees) else stdtrit(self.degrees, tail))

    def with_patients(self, values: Sequence[Value], patient: np.ndarray) -> Spread:
        """With no more degrees of freedom than the rarer class has patients, less one: as for two systems."""
        fewest = min(len(np.unique(patient[films])) for films in _united(values))
        return Spread(self.variance, min(self.degrees, fewest - 1))

    def at_least(self, variance: float) -> Spread:
        """With no less variance; what is added is known, so that the degrees of freedom rise with it."""
        if variance <= self.variance:
            return self
        more = variance / self.variance if self.variance else math.inf
        return Spread(variance, self.degrees * more**2)


def spread_of_mean(values: np.ndarray, deviations: np.ndarray) -> Spread:
    """How far the mean of these readers may be from that of all readers and patients.

    With r readers, MS the variance of their values and Cov2 the mean covariance of two of them: the variance
    is (MS + r max(Cov2, 0)) / r, the degrees of freedom are (MS + r max(Cov2, 0))^2 / (MS^2 / (r - 1)).

    Args:
        values: (readers,) float64, a value a reader, at least two.
        deviations: (readers, patients) float64, what each patient adds to each: see `mean_by_patient`.
    """
    readers = len(values)
    between = float(values.var(ddof=1)) if np.ptp(values) > 1e-12 else 0.0
    covariances = deviations @ deviations.T
    shared = float(covariances.sum() - covariances.trace()) / (readers * (readers - 1))
    square = between + readers * max(shared, 0.0)
    degrees = (readers - 1) * (square / between) ** 2 if between else math.inf
    return Spread(square / readers if square > 1e-24 else 0.0, degrees)


class Value(NamedTuple):
    """A metric of one who read films.

    Attributes:
        estimate: Its value, 0-1.
        deviations: (patients,) float64, what each patient adds to it: see `mean_by_patient`.
        classes: The films of each class that it needs, positives first: bool, length of all test films.
    """

    estimate: float
    deviations: np.ndarray
    classes: list[np.ndarray]


def mean_interval(
    metric: str, values: Sequence[Value], patient: np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Ends of the interval of the mean of readers, 0-1.

    An AUROC's is symmetric on the logit scale, with no more degrees of freedom than the rarer class has
    patients; where it has no variance, as where every reader ranks every positive first, it is Newcombe's at
    the numbers of patients.

    A proportion's is Wilson's at the number of films that would have this variance, at most that of
    independent readings, less for the degrees of freedom (as Korn & Graubard, Survey Methodology
    1998;24:193-201). Where every reading is right, or every one wrong, it is at the number if all
    readings of a patient are alike.

    Args:
        metric: `auroc`, `sensitivity` or `specificity`.
        values: At least two.
        patient: (n,) int, number of each test film's patient.
        confidence: Probability that the interval is to hold the mean.
    """
    spread, mean = _spread(values), _mean(values)
    if metric == "auroc":
        if spread.variance <= 0:
            positives, negatives = (len(np.unique(patient[each])) for each in _united(values))
            return newcombe_interval(mean, positives, negatives, confidence)
        quantile = spread.with_patients(values, patient).quantile(confidence)
        half = quantile * math.sqrt(spread.variance) / (mean * (1 - mean))  # the logit's slope there
        logit = math.log(mean / (1 - mean))
        return float(expit(logit - half)), float(expit(logit + half))
    readings = sum(int(value.classes[0].sum()) for value in values)
    independent = mean * (1 - mean) / readings  # the least variance that readings of patients can have
    if not independent:
        n = _alike_readings(values, patient)
    else:
        spread = spread.at_least(independent)
        n = mean * (1 - mean) / spread.variance
        n *= (float(ndtri((1 + confidence) / 2)) / spread.quantile(confidence)) ** 2
    return wilson_interval(mean * n, n, confidence)


def difference_interval(
    metric: str,
    first: Sequence[Value],
    second: Sequence[Value],
    patient: np.ndarray,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Ends of the interval of the mean difference of two values of each reader, -1 to 1.

    An AUROC's is symmetric, with Student's t. A proportion's is joined from the intervals of both means and
    their correlation (Zou & Donner, Stat Med 2008;27:1693-1702): the symmetric one held the difference in 77%
    of simulated studies of 10 readers, 20 positives and sensitivities of 0.95, this one in 92%. So is that of
    AUROCs whose differences have no variance, as if both means were independent. Where the readers call the
    films of a class alike both times, it is Tango's without a discordant film, at the number if all readings
    of a patient are alike.

    Args:
        metric: `auroc`, `sensitivity` or `specificity`.
        first, second: The values that are subtracted, a pair a reader; at least two pairs.
        patient: (n,) int, number of each test film's patient.
        confidence: Probability that the interval is to hold the difference.
    """
    spread = _spread([_minus(*pair) for pair in zip(first, second, strict=True)])
    difference = _mean(first) - _mean(second)
    if metric == "auroc" and spread.variance > 0:
        quantile = spread.with_patients(first, patient).quantile(confidence)
        half = quantile * math.sqrt(spread.variance)
        return max(difference - half, -1.0), min(difference + half, 1.0)
    equal = not spread.variance and abs(difference) < 1e-12  # but for rounding
    if metric != "auroc" and equal and _spread(first).variance:
        return tango_interval(0, 0, _alike_readings(first, patient), confidence)
    intervals = [mean_interval(metric, each, patient, confidence) for each in (first, second)]
    alike = _correlation(first, second, spread)
    return joined_interval(_mean(first), intervals[0], _mean(second), intervals[1], alike)


def _correlation(first: Sequence[Value], second: Sequence[Value], of_difference: Spread) -> float:
    """How alike two means are, from the variances of both and of their difference; 0 where one has none."""
    one, other = _spread(first).variance, _spread(second).variance
    if not one or not other:
        return 0.0
    return min(max((one + other - of_difference.variance) / (2 * math.sqrt(one * other)), -1.0), 1.0)


def difference_p(metric: str, first: Sequence[Value], second: Sequence[Value], patient: np.ndarray) -> float:
    """Two-sided p-value of a mean difference of 0: `difference_interval` ends there at 1 - p."""
    difference = _mean(first) - _mean(second)
    if abs(difference) < 1e-12:  # but for rounding
        return 1.0

    def beyond(quantile: float) -> float:
        """How far 0 lies outside of an interval."""
        confidence = float(2 * ndtr(quantile) - 1)
        low, high = difference_interval(metric, first, second, patient, confidence)
        return low if difference > 0 else -high

    # From nearly no width to a p-value that no study reaches.
    return float(2 * ndtr(-root(beyond, 1e-3, 7.5)))


def _alike_readings(values: Sequence[Value], patient: np.ndarray) -> float:
    """The least number of independent readings that can tell as much as all of a proportion's."""
    return alike_films(np.concatenate([patient[value.classes[0]] for value in values]))


def _mean(values: Sequence[Value]) -> float:
    return float(np.mean([value.estimate for value in values]))


def _spread(values: Sequence[Value]) -> Spread:
    return spread_of_mean(
        np.array([value.estimate for value in values]), np.stack([value.deviations for value in values])
    )


def _united(values: Sequence[Value]) -> list[np.ndarray]:
    """The films of each class that anybody read (bool, length of all test films)."""
    return [np.any(films, axis=0) for films in zip(*(value.classes for value in values), strict=True)]


# --- rows ------------------------------------------------------------------------------------------


class _Read(NamedTuple):
    """What one reader's value is made from: films, what was said of them, and what that is compared with."""

    rows: np.ndarray
    said: Cases
    other: Cases | None = None


def mean_rows(systems: Mapping[str, Cases], readers: Mapping[str, Reading]) -> list[dict[str, Any]]:
    """The mean of the readers, of the readers with aid, and what is compared with it; none of one reader.

    Args:
        systems: Results on the same films in the same order, by system.
        readers: Calls of the readers, from `read_readers` for these films.

    Returns:
        Rows with the columns of `compare_systems.pair_rows`. The system is `readers` or `readers aided`
        (decision `call`), `<system>-readers` (the system's decision; unaided readers only) or
        `readers aided-readers` (decision `aid`). Holm's adjustment is over the comparisons of all systems
        with the mean, and over those with aid, each against `mask`, over all films, by `two_stage`.
    """
    number = patient_numbers(next(iter(systems.values())).patient)
    rows = [
        row
        for (name, decision), reads in _questions(systems, readers).items()
        if len(reads) > 1
        for reference in REFERENCES
        for row in _rows_of(name, decision, reference, reads, number)
    ]
    for decision in (DECISIONS[0], AID):
        fill_in_holm(row for row in rows if row["decision"] == decision)
    return rows


def _questions(
    systems: Mapping[str, Cases], readers: Mapping[str, Reading]
) -> dict[tuple[str, str], list[_Read]]:
    """What is averaged over readers, by the name and the decision of its rows."""
    alone = [reading for reading in readers.values() if not reading.aided]
    found = {
        (READERS, CALL): [_Read(reading.rows, reading.cases) for reading in alone],
        (AIDED_READERS, CALL): [_Read(r.rows, r.cases) for r in readers.values() if r.aided],
    }
    for system, cases in systems.items():
        for decision in DECISIONS:
            found[f"{system}-{READERS}", decision] = [
                _Read(reading.rows, cases.taken(reading.rows), reading.cases) for reading in alone
            ]
    found[f"{AIDED_READERS}-{READERS}", AID] = [
        _Read(aided.rows, aided.cases, unaided.cases) for aided, unaided in read_both_ways(readers)
    ]
    return found


def _rows_of(
    name: str, decision: str, reference: str, reads: Sequence[_Read], number: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The rows of one question under one reference."""
    strata_of = [strata(read.said, reference) for read in reads]
    for stratum in STRATA:
        for metric in _METRICS:
            pairs = []
            for read, films in zip(reads, strata_of, strict=True):
                both = [
                    _value(metric, each, decision, reference, films[stratum], read.rows, number)
                    for each in (read.said, read.other)
                    if each is not None
                ]
                if all(value is not None for value in both):
                    pairs.append([value for value in both if value is not None])
            if metric == "auroc" and len(pairs) < 2:  # confidences are optional
                continue
            yield {
                "system": name,
                "reference": reference,
                "decision": decision,
                "stratum": stratum,
                "metric": metric,
            } | _columns(metric, pairs, len(reads), number)


def _value(
    metric: str,
    cases: Cases,
    decision: str,
    reference: str,
    films: np.ndarray,
    rows: np.ndarray,
    number: np.ndarray,
) -> Value | None:
    """A metric over these films of a stratum; None with too few patients, or without scores."""
    positive, patient, patients = cases.positive(reference), number[rows], int(number.max()) + 1
    needed = {"auroc": (positive, ~positive), "sensitivity": (positive,), "specificity": (~positive,)}
    classes = [films & each for each in needed[metric]]
    if any(len(np.unique(patient[each])) < 2 for each in classes):
        return None
    counted = np.any(classes, axis=0)
    if metric == "auroc":
        scores = cases.probability[counted]
        if np.isnan(scores).any():
            return None
        ranked = Ranked(scores, positive[counted], patient[counted])
        estimate, deviations = auroc_by_patient(ranked, patients)
    else:
        # A reader's call stands under both names of a decision.
        called = cases.called(decision if decision in DECISIONS else DECISIONS[0])
        right = (called == positive)[counted].astype(float)
        estimate = float(right.mean())
        deviations = mean_by_patient(right - estimate, patient[counted], patients)
    return Value(estimate, deviations, [_placed(rows[each], len(number)) for each in classes])


def _placed(rows: np.ndarray, films: int) -> np.ndarray:
    """These rows of all films (bool, length `films`)."""
    placed = np.zeros(films, dtype=bool)
    placed[rows] = True
    return placed


def _columns(
    metric: str, pairs: Sequence[Sequence[Value]], readers: int, number: np.ndarray
) -> dict[str, Any]:
    """The columns from `n` on, from the values of each reader: one, or two that are subtracted."""
    columns: dict[str, Any] = {"n": 0, "positives": None, "estimate": None, "ci_low": None, "ci_high": None}
    columns |= {"interval": "none", "note": "", "p_value": None, "p_holm": None, "test": None}
    notes = [f"mean of {len(pairs)} readers" + (f" of {readers}" if len(pairs) < readers else "")]
    if len(pairs) < 2:
        return columns | {"note": "; ".join([notes[0], NOT_ESTIMABLE])}
    first, *second = zip(*pairs, strict=True)
    classes = _united(first)
    columns["n"] = int(np.any(classes, axis=0).sum())
    if len(classes) == 2:
        columns["positives"] = int(classes[0].sum())
    readings = sum(int(np.any(value.classes, axis=0).sum()) for value in first)
    notes.append(f"{readings} readings")
    columns["estimate"] = _mean(first) - (_mean(second[0]) if second else 0.0)
    if any(too_few(number[films]) for films in classes):
        notes.append(TOO_FEW)
    else:
        columns["interval"] = _KINDS[metric]
        ends = difference_interval(metric, first, second[0], number) if second else None
        columns["ci_low"], columns["ci_high"] = ends or mean_interval(metric, first, number)
        if second:
            columns["p_value"], columns["test"] = difference_p(metric, first, second[0], number), TEST
    return columns | {"note": "; ".join(notes)}


def _minus(first: Value, second: Value) -> Value:
    return Value(first.estimate - second.estimate, first.deviations - second.deviations, first.classes)
