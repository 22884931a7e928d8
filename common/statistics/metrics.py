"""The metrics of `metric_catalogue.py`, for any number of resamples at once.

A resample is a row of `counts`: how often each film was drawn. A row of ones is the full sample, so point
estimates and replicates come from the same code. A metric that a resample does not define (a ratio over
no film, an infinite likelihood ratio) is NaN, and so is one over a film whose value is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

import numpy as np

from common.statistics.calibration import Calibration
from common.statistics.intervals import too_few
from common.statistics.metric_catalogue import (
    METRICS,
    Counts,
    DecidedFilms,
    Films,
    FromCounts,
    Joint,
    Mean,
    Number,
    Ratio,
    ShortcutAuroc,
    share,
)
from common.statistics.strata import strata
from common.statistics.tested_films import Cases

REFERENCES = ("mask", "report")
DECISIONS = ("two_stage", "stage_1")
SPECIFICITIES = (90, 95)  # percent
# What depends on which films are negatives, of the main metrics: given under `mask_or_clear`, too.
OF_CLEAR = (
    *("auroc", "sensitivity", "specificity", "auprc", "ppv", "npv"),
    *(name for name, metric in METRICS.items() if metric.kind == "count"),
)
LIMITS_OF_AGREEMENT = 1.96  # standard deviations

_RANKED = ("auroc", "auprc", *(f"sensitivity_at_specificity_{level}" for level in SPECIFICITIES))

# Binary digits that a value keeps below the largest of its column: see `_summable`.
_DIGITS = 36

Key = TypeVar("Key")


# --- sums over films -------------------------------------------------------------------------------


class Sums(Generic[Key]):
    """Sums of values over some films, of many metrics and resamples in one matrix product.

    Args:
        table: By name, the films (bool, length n) and the value of each (bool or float64, length n; ignored
            for other films).
    """

    def __init__(self, table: Mapping[Key, tuple[np.ndarray, np.ndarray]]) -> None:
        columns: dict[bytes, int] = {}  # each column once: many metrics are over the same films
        values: list[np.ndarray] = []

        def index(column: np.ndarray) -> int:
            place = columns.setdefault(column.tobytes(), len(values))
            if place == len(values):
                values.append(column)
            return place

        self._places = {
            key: (index(_summable(np.where(films, value, 0.0))), index(films.astype(float)))
            for key, (films, value) in table.items()
        }
        # Films that no metric is over would only make the product larger.
        self._films = np.flatnonzero(np.any([films for films, _ in table.values()], axis=0))
        self._columns = np.stack(values, axis=1)[self._films]

    def totals(self, counts: np.ndarray) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
        """By name, the sum of the values and the number of films, each as often as drawn (length r).

        Args:
            counts: (r, n) float64, how often each resample holds each film.
        """
        totals = np.ascontiguousarray((np.take(counts, self._films, axis=1) @ self._columns).T)
        return {key: (totals[value], totals[films]) for key, (value, films) in self._places.items()}


def _summable(values: np.ndarray) -> np.ndarray:
    """Values rounded so that their sums have no rounding error: relative to the largest, by 2^-37 (7e-12).

    All become multiples of one power of two with few enough digits that sums of up to 2^17 films are exact.
    So no sum depends on the order of the films, the number of resamples or threads, or the library that sums.
    """
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    digits = _DIGITS - int(np.frexp(largest)[1])
    return np.ldexp(np.rint(np.ldexp(values, digits)), -digits)


# --- ranks -----------------------------------------------------------------------------------------


class Ranks:
    """How well scores separate some positives from some negatives, prepared once.

    Args:
        scores: Higher is more positive; float64, length n, finite.
        positive, negative: The films that are; bool, length n.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> None:
        # Sorted once and for all: a resample changes how often a film counts, not its place.
        order = np.argsort(scores, kind="stable")
        self._positives, self._negatives = order[positive[order]], order[negative[order]]
        positives, negatives = scores[self._positives], scores[self._negatives]
        # Both sides, because a tie counts half: it is not below, but not above either.
        self._below = np.searchsorted(negatives, positives, side="left")
        self._not_above = np.searchsorted(negatives, positives, side="right")
        self._own_below = np.searchsorted(positives, positives, side="left")
        self._passed = np.searchsorted(positives, negatives, side="right")

    def auroc(self, counts: np.ndarray) -> np.ndarray:
        """The AUROC of `values` by itself (float64, length r)."""
        if not len(self._positives) or not len(self._negatives):
            return np.full(len(counts), np.nan)
        positive = np.take(counts, self._positives, axis=1)
        negative = _running_total(np.take(counts, self._negatives, axis=1))
        below = np.take(negative, self._below, axis=1)
        return share(self._wins(positive, negative, below), positive.sum(axis=1) * negative[:, -1])

    def _wins(self, positive: np.ndarray, negative: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Pairs whose positive scores higher, ties as one half (length r): Mann and Whitney's U.

        Args:
            positive: (r, positives) float64, how often each is drawn, in order of the scores.
            negative: (r, negatives + 1) float64, running total of the same.
            below: (r, positives) float64, negatives drawn that score lower than each.
        """
        return (positive * (below + np.take(negative, self._not_above, axis=1))).sum(axis=1) / 2

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics in each resample (length r); NaN without a positive or without a negative.

        - `auroc`: P(score of a positive > score of a negative) + P(equal) / 2, the Mann-Whitney form of the
          area under the ROC curve (Hanley & McNeil, Radiology 1982;143:29-36); equals the trapezoid area,
          ties included.
        - `auprc`: average precision, the precision at each positive's score averaged over the positives; the
          step-wise sum of (R_k - R_k-1) P_k over the distinct scores, as scikit-learn's
          `average_precision_score`: no interpolation, tied films enter together.
        - `sensitivity_at_specificity_90`, `_95`: the highest sensitivity on the empirical ROC, without
          interpolation, at a specificity of at least 0.90, 0.95. The threshold is chosen on the same
          films, anew in each resample: positive is what scores above the smallest score that so many
          negatives do not exceed.

        Args:
            counts: (r, n) float64, how often each resample holds each film.
        """
        if not len(self._positives) or not len(self._negatives):
            return {name: np.full(len(counts), np.nan) for name in _RANKED}
        positive = np.take(counts, self._positives, axis=1)
        own = _running_total(positive)
        negative = _running_total(np.take(counts, self._negatives, axis=1))
        n_positive, n_negative = own[:, -1], negative[:, -1]

        below = np.take(negative, self._below, axis=1)
        wins = self._wins(positive, negative, below)
        true = n_positive[:, None] - np.take(own, self._own_below, axis=1)
        false = n_negative[:, None] - below
        # Nothing drawn at or above a score leaves its precision undefined, and its weight 0.
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        average = share((positive * precision).sum(axis=1), n_positive)
        found = [share(wins, n_positive * n_negative), np.where(n_negative > 0, average, np.nan)]
        for level in SPECIFICITIES:
            # In whole numbers, so without rounding; 1e-9 for the weights of a jackknife, which are none.
            enough = 100 * negative[:, 1:] >= (level - 1e-9) * n_negative[:, None]
            passed = own[np.arange(len(own)), self._passed[enough.argmax(axis=1)]]
            found.append(np.where(n_negative > 0, share(n_positive - passed, n_positive), np.nan))
        return dict(zip(_RANKED, found, strict=True))


def _running_total(counts: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... k columns: (r, k) -> (r, k + 1)."""
    # With a 0 in front, so that the number of films below a score is an index.
    total = np.zeros((counts.shape[0], counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=total[:, 1:])
    return total


class Shortcuts:
    """The AUROC of shortcuts, and how far the system's is above it, prepared once.

    Args:
        cases: All films.
        positive, negative: The films that are; bool, length n.
        formulas: What is wanted, by metric.

    Attributes:
        unknown: Metrics of a shortcut that has no probability for some film; NaN in every resample.
    """

    def __init__(
        self,
        cases: Cases,
        positive: np.ndarray,
        negative: np.ndarray,
        formulas: Mapping[str, ShortcutAuroc],
    ) -> None:
        self._formulas = formulas
        self._system = Ranks(cases.probability, positive, negative)
        self._ranks: dict[str, Ranks] = {}
        for column in {each.column for each in formulas.values()}:
            scores = cases.column(column)
            if np.isfinite(scores).all():
                self._ranks[column] = Ranks(scores, positive, negative)
        self.unknown = {name for name, each in formulas.items() if each.column not in self._ranks}

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Values in each resample (float64, length r), by metric."""
        system = self._system.auroc(counts)
        shortcuts = {column: ranks.auroc(counts) for column, ranks in self._ranks.items()}
        nothing = np.full(len(counts), np.nan)
        found = {}
        for name, formula in self._formulas.items():
            value = shortcuts.get(formula.column, nothing)
            found[name] = system - value if formula.gain else value
        return found


# --- every metric of a system ----------------------------------------------------------------------


# The sums of a decision from which further metrics follow; no metrics themselves.
_TRUE = {
    "true positives": Mean(lambda f: f.positive, lambda f: f.called),
    "true negatives": Mean(lambda f: f.negative, lambda f: ~f.called),
}
_EXCESS = {
    "excess": Mean(lambda f: f.masked, lambda f: f.excess),
    "squared excess": Mean(lambda f: f.masked, lambda f: f.excess**2),
}


class MetricValues:
    """Every metric of a system under a reference, prepared once for any resamples.

    Metrics of the probability and of the map do not depend on the decision; they are given under both, the
    same, so that a filter on the decision always finds them.

    Args:
        cases: Films of one system's result.
        reference: `mask`, `report` or `mask_or_clear`.
        prevalence: Prevalence for the metrics that are `at_prevalence`, 0-1; None leaves them out.
        metrics: Only these, which takes only their time; None: all.

    Attributes:
        keys: (decision, stratum, metric) of each value, in the order of DECISIONS, `strata.strata`, METRICS.
    """

    def __init__(
        self,
        cases: Cases,
        reference: str,
        prevalence: float | None = None,
        metrics: Collection[str] | None = None,
    ) -> None:
        kept = [
            name
            for name, metric in METRICS.items()
            if (metrics is None or name in metrics)
            and not (metric.at_prevalence and prevalence is None)
            and metric.known(cases)
        ]
        self._strata = {
            name: _Stratum(cases, reference, films, prevalence, kept)
            for name, films in strata(cases, reference).items()
        }
        self.keys = [(d, stratum, name) for d in DECISIONS for stratum in self._strata for name in kept]

    def films(self, decision: str, stratum: str, metric: str) -> np.ndarray:
        """The films that a metric is over (bool, length n)."""
        return self._strata[stratum].films(decision, metric)

    def of_films(self, decision: str, stratum: str, metric: str) -> np.ndarray:
        """Value of each film of a metric that is a mean (float64, length n; of other films ignored)."""
        return self._strata[stratum].of_films(decision, metric)

    def needed(self, decision: str, stratum: str, metric: str) -> list[np.ndarray]:
        """The sets of films (bool, length n) of each of which a metric needs enough."""
        if METRICS[metric].both_classes:
            return [self._strata[stratum].positive, self._strata[stratum].negative]
        return [self.films(decision, stratum, metric)]

    def values(self, counts: np.ndarray) -> dict[tuple[str, str, str], np.ndarray]:
        """Values in each resample (float64, length r), by `keys`; NaN where undefined.

        Args:
            counts: (r, n) float64, how often each resample holds each film.
        """
        found = {name: stratum.values(counts) for name, stratum in self._strata.items()}
        return {key: found[key[1]][key[0], key[2]] for key in self.keys}

    def resampled(self, counts: np.ndarray) -> dict[tuple[str, str, str], np.ndarray]:
        """As `values`, without what costs most and no interval or test is made from.

        Left out are a shortcut's AUROC, whose interval is DeLong's, the calibration's intercept, and what is
        of the probabilities of both classes in a stratum with too few films of one of them.
        """
        found = {name: stratum.resampled(counts) for name, stratum in self._strata.items()}
        return {key: found[key[1]][key[0], key[2]] for key in self.keys if (key[0], key[2]) in found[key[1]]}


class _Stratum:
    """Metrics over the films of a stratum."""

    def __init__(
        self,
        cases: Cases,
        reference: str,
        films: np.ndarray,
        prevalence: float | None,
        metrics: Collection[str],
    ) -> None:
        self._prevalence = np.nan if prevalence is None else prevalence
        self.positive, self.negative = films & cases.positive(reference), films & ~cases.positive(reference)
        formulas = {name: METRICS[name].formula for name in metrics}
        self._counted = {name: each for name, each in formulas.items() if isinstance(each, FromCounts)}
        self._agreement = Joint.AGREEMENT in formulas.values()
        ratios = {name: each for name, each in formulas.items() if isinstance(each, Ratio)}
        self._divisors = {name: f"{name}, divisor" for name in ratios}
        sums = {name: each for name, each in formulas.items() if isinstance(each, Mean)}
        # Ratios are two sums: the numerator under its own name, the divisor under another.
        sums |= {name: Mean(each.over, each.numerator) for name, each in ratios.items()}
        numbers = {name: each for name, each in formulas.items() if isinstance(each, Number)}
        sums |= {name: Mean(each.over, each.value) for name, each in numbers.items()}
        decided = {name: each for name, each in sums.items() if METRICS[name].by_decision}
        for name, each in ratios.items():
            divisor = {self._divisors[name]: Mean(each.over, each.denominator)}
            sums |= divisor
            decided |= divisor if METRICS[name].by_decision else {}
        decided |= (_TRUE if self._counted else {}) | (_EXCESS if self._agreement else {})
        seen: dict[str | None, Films] = {None: Films(cases, self.positive, self.negative)}
        seen |= {d: DecidedFilms(cases, self.positive, self.negative, cases.called(d)) for d in DECISIONS}
        table = {
            (decision, name): (mean.over(each), mean.value(each))
            for decision, each in seen.items()
            for name, mean in (decided if decision else sums).items()
            if decision or name not in decided  # what no decision changes is summed once
        }
        self._formulas = formulas
        self._films = {key: films for key, (films, _) in table.items()}
        self._values = {key: value for key, (_, value) in table.items()}
        # From the full sample: in a resample, a patient drawn twice would pass for one with two films.
        self._films_a_patient = films_a_patient(cases.patient[self.positive & cases.has_mask])
        self._sums = Sums(table) if table else None
        self._numbers = set(numbers)
        classes = cases.probability, self.positive, self.negative
        self._ranks = Ranks(*classes) if Joint.RANKS in formulas.values() else None
        self._calibration = Calibration(*classes) if Joint.CALIBRATION in formulas.values() else None
        shortcuts = {name: each for name, each in formulas.items() if isinstance(each, ShortcutAuroc)}
        self._shortcuts = Shortcuts(cases, *classes[1:], shortcuts) if shortcuts else None
        self._too_few = any(too_few(cases.patient[films]) for films in classes[1:])

    def films(self, decision: str, metric: str) -> np.ndarray:
        """Those that a metric is over (bool, length n)."""
        if self._formulas[metric] is Joint.AGREEMENT:
            metric = "excess"
        of_mean = self._films.get((decision, metric), self._films.get((None, metric)))
        every = self.positive | self.negative
        if self._shortcuts and metric in self._shortcuts.unknown:
            return np.zeros_like(every)
        return every if of_mean is None else of_mean

    def of_films(self, decision: str, metric: str) -> np.ndarray:
        """Value of each film of a mean (float64, length n)."""
        value = self._values.get((decision, metric), self._values.get((None, metric)))
        assert value is not None, f"{metric} is no mean"
        return value.astype(float)

    def values(self, counts: np.ndarray) -> dict[tuple[str | None, str], np.ndarray]:
        """Values by decision (None: of no decision) and metric (length r)."""
        parts = (self._ranks, self._calibration, self._shortcuts)
        return self._values_with(counts, *(part.values for part in parts if part))

    def resampled(self, counts: np.ndarray) -> dict[tuple[str | None, str], np.ndarray]:
        """Those of `MetricValues.resampled`."""
        parts = [self._ranks.values] if self._ranks else []
        parts += [self._calibration.resampled] if self._calibration else []
        return self._values_with(counts, *([] if self._too_few else parts))

    def _values_with(
        self, counts: np.ndarray, *parts: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    ) -> dict[tuple[str | None, str], np.ndarray]:
        """The values that are sums, or follow from these, and those of some parts."""
        totals = self._sums.totals(counts) if self._sums else {}
        found = {
            (decision, name): total if name in self._numbers else share(total, films)
            for (decision, name), (total, films) in totals.items()
        }
        for (decision, name), (total, _) in totals.items():
            if name in self._divisors:
                found[decision, name] = share(total, totals[decision, self._divisors[name]][0])
        shared = {name: value for (decision, name), value in found.items() if decision is None}
        for part in parts:
            shared |= part(counts)
        for decision in DECISIONS:
            more = dict(shared)
            if self._counted:
                (tp, positives), (tn, negatives) = (totals[decision, name] for name in _TRUE)
                each = Counts(tp, tn, positives, negatives, self._prevalence)
                more |= {name: formula.value(each) for name, formula in self._counted.items()}
            if self._agreement:
                (total, n), (squares, _) = (totals[decision, name] for name in _EXCESS)
                more |= agreement(total, n, squares, self._films_a_patient)
            found |= {(decision, name): value for name, value in more.items()}
        return found


def films_a_patient(patient: np.ndarray) -> float:
    """Mean number of films of a patient, from the name of each film's patient; 1 without a film."""
    return len(patient) / len(np.unique(patient)) if len(patient) else 1.0


def agreement(
    total: np.ndarray, n: np.ndarray, squares: np.ndarray, films_a_patient: float
) -> dict[str, np.ndarray]:
    """Bias and limits of agreement, each an array of the sums' shape; NaN where they are not defined.

    Bias -/+ 1.96 SD (Bland & Altman, Lancet 1986;1:307-310). The variance is the sum of squares about the
    bias over n - k with k films a patient, so n - 1 where each has one: further films of the same patients
    bring no degree of freedom, and copies change nothing.

    Args:
        total: Sum of the differences, float64, in % of the film.
        n: Films that it is over.
        squares: Sum of the squared differences, float64.
        films_a_patient: Mean of the full sample, at least 1.
    """
    bias = share(total, n)
    # Rounding may leave a little less than 0.
    variance = share(np.maximum(squares - total * bias, 0), n - films_a_patient)
    half = LIMITS_OF_AGREEMENT * np.sqrt(variance)
    return {"area_bias": bias, "area_loa_low": bias - half, "area_loa_high": bias + half}
