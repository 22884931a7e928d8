"""What the figures are: detection, calibration and segmentation, for any number of resamples at once.

A resample is a row of `counts`: how often each film was drawn. A row of ones is the full sample, so point
estimates and replicates come from the same code. A figure that a resample does not define (a ratio over
no film, an infinite likelihood ratio) is NaN, and so is one over a film whose value is unknown.

Two references say which films are positive: `mask`, an annotated lesion (primary), and `report`, the
radiology report. A film positive by report without a mask is a negative under `mask`.

| figure | over | is |
|---|---|---|
| `auroc`, `auprc` | all films | areas under the curves of the raw probability |
| `prevalence` | all films | share of positives |
| `brier` | all films | mean (probability - truth)^2 (Brier, Mon Weather Rev 1950;78:1-3) |
| `calibration_slope`, `calibration_intercept` | all films | see calibration.py |
| `sensitivity_at_specificity_90`, `_95` | all films | see `Ranks` |
| `sensitivity`, `specificity` | positives; negatives | share called positive; negative |
| `ppv`, `npv` | films called positive; negative | share that are |
| `lr_positive` | all films | sensitivity / (1 - specificity) |
| `lr_negative` | all films | (1 - sensitivity) / specificity |
| `f1`, `accuracy` | all films | 2 TP / (2 TP + FP + FN); share called what they are |
| `ppv_at_prevalence`, `npv_at_prevalence` | all films | by Bayes' rule, at a prevalence that is stated |
| `dice_segmentation`, `iou` | positives with a mask | mean, of the stage-2 map whatever the decision |
| `hd95_mm`, `nsd_mm` | those of known spacing | mean, as above; `hd95_px`, `nsd_px`: the others, in pixels |
| `dice_positives` | positives with a mask | mean Dice of what is shown: a missed film is 0 |
| `dice_true_positives` | those of them called positive | mean Dice |
| `dice_all_films` | all films | mean Dice of what is shown, 1 where nothing is and there is no mask |
| `dice_always_empty` | all films | the same of a system that shows nothing: the share without a mask |
| `false_positive_area` | negatives | mean area shown, % of the film |
| `area_bias` | positives with a mask | mean of area shown minus area of the mask, both in % of the film |
| `area_loa_low`, `area_loa_high` | the same | bias -/+ 1.96 SD, as `agreement` has it |
| `tp`, `fp`, `fn`, `tn` | all films | counts |

Dice: Ecology 1945;26:297-302. "Shown" is what the decision lets through: under `stage_1` the map of every
film that stage 1 calls. "All films" are those of the stratum (strata.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

import numpy as np

from common.statistics.calibration import Calibration
from common.statistics.strata import strata
from common.statistics.tested_films import Cases

Rows = dict[str, tuple[np.ndarray, np.ndarray]]  # by name, films (bool) and the value of each

REFERENCES = ("mask", "report")
DECISIONS = ("two_stage", "stage_1")
CONFUSION = ("tp", "fp", "fn", "tn")
PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
METRICS = (
    "auroc",
    "auprc",
    "prevalence",
    "brier",
    "calibration_slope",
    "calibration_intercept",
    "sensitivity_at_specificity_90",
    "sensitivity_at_specificity_95",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "lr_positive",
    "lr_negative",
    "f1",
    "accuracy",
    "ppv_at_prevalence",
    "npv_at_prevalence",
    "dice_segmentation",
    "dice_positives",
    "dice_true_positives",
    "iou",
    "hd95_mm",
    "hd95_px",
    "nsd_mm",
    "nsd_px",
    "dice_all_films",
    "dice_always_empty",
    "false_positive_area",
    "area_bias",
    "area_loa_low",
    "area_loa_high",
    *CONFUSION,
)
# These say what the films are, not how good the system is: no interval.
DESCRIPTIVE = ("prevalence", "dice_always_empty", *CONFUSION)
# Another mix of positives and negatives would give another value.
CASE_MIX = (
    "auprc",
    "brier",
    "calibration_slope",
    "calibration_intercept",
    "ppv",
    "npv",
    "f1",
    "accuracy",
    "dice_all_films",
)
# Figures that need positives and negatives; the others need the films that they are over.
TWO_CLASS = (
    "auroc",
    "auprc",
    "brier",
    "calibration_slope",
    "calibration_intercept",
    "sensitivity_at_specificity_90",
    "sensitivity_at_specificity_95",
    "lr_positive",
    "lr_negative",
    "f1",
    "accuracy",
    "ppv_at_prevalence",
    "npv_at_prevalence",
    "dice_all_films",
)
SPECIFICITIES = (90, 95)  # percent
LIMITS_OF_AGREEMENT = 1.96  # standard deviations

_RANKED = ("auroc", "auprc", *(f"sensitivity_at_specificity_{level}" for level in SPECIFICITIES))
_CALIBRATED = ("calibration_slope", "calibration_intercept")
_COUNTED = ("lr_positive", "lr_negative", "f1", "ppv_at_prevalence", "npv_at_prevalence", *CONFUSION)
_LIMITS = ("area_loa_low", "area_loa_high")

# Binary digits that a value keeps below the largest of its column: see `_summable`.
_DIGITS = 36

Key = TypeVar("Key")


def share(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient element by element (float64); NaN, without a warning, where the denominator is not above 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)


# --- sums over films -------------------------------------------------------------------------------


class Sums(Generic[Key]):
    """Sums of values over some films, of many figures and resamples in one matrix product.

    Args:
        table: By name, the films (bool, length n) and the value of each (bool or float64, length n; ignored
            for other films).
    """

    def __init__(self, table: Mapping[Key, tuple[np.ndarray, np.ndarray]]) -> None:
        columns: dict[bytes, int] = {}  # each column once: many figures are over the same films
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
        self._films = np.flatnonzero(np.any([films for films, _ in table.values()], axis=0))
        self._columns = np.stack(values, axis=1)[self._films]

    def totals(self, counts: np.ndarray) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
        """By name, the sum of the values and the number of films, each as often as drawn (length r).

        Args:
            counts: Resamples, float64, (r, n).
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


def _of_probability(cases: Cases, positive: np.ndarray, negative: np.ndarray) -> Rows:
    """The means that no decision enters."""
    films = positive | negative
    masked = positive & cases.has_mask
    in_mm, in_pixels = masked & cases.in_mm, masked & ~cases.in_mm
    return {
        "prevalence": (films, positive),
        "brier": (films, (cases.probability - positive) ** 2),
        "dice_segmentation": (masked, cases.dice_segmentation),
        "iou": (masked, cases.iou),
        "hd95_mm": (in_mm, cases.hd95),
        "hd95_px": (in_pixels, cases.hd95),
        "nsd_mm": (in_mm, cases.nsd),
        "nsd_px": (in_pixels, cases.nsd),
        "dice_always_empty": (films, ~cases.has_mask),
    }


def _of_decision(cases: Cases, positive: np.ndarray, negative: np.ndarray, called: np.ndarray) -> Rows:
    """The means of a decision, and `area_squares`, which the limits of agreement need."""
    films = positive | negative
    masked = positive & cases.has_mask
    shown_dice = np.where(called, cases.dice_segmentation, 0.0)
    shown_area = 100 * np.where(called, cases.area_fraction, 0.0)
    excess = shown_area - 100 * cases.mask_area_fraction
    return {
        "sensitivity": (positive, called),
        "specificity": (negative, ~called),
        "ppv": (films & called, positive),
        "npv": (films & ~called, negative),
        "accuracy": (films, called == positive),
        "dice_positives": (masked, shown_dice),
        "dice_true_positives": (masked & called, cases.dice_segmentation),
        "dice_all_films": (films, np.where(cases.has_mask, shown_dice, shown_area == 0)),
        "false_positive_area": (negative, shown_area),
        "area_bias": (masked, excess),
        "area_squares": (masked, excess**2),
    }


# --- ranks -----------------------------------------------------------------------------------------


class Ranks:
    """How well scores separate some positives from some negatives, prepared once.

    Args:
        scores: Higher is more positive; float64, length n, finite.
        positive, negative: The films that are; bool, length n.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> None:
        order = np.argsort(scores, kind="stable")
        self._positives, self._negatives = order[positive[order]], order[negative[order]]
        positives, negatives = scores[self._positives], scores[self._negatives]
        self._below = np.searchsorted(negatives, positives, side="left")
        self._not_above = np.searchsorted(negatives, positives, side="right")
        self._own_below = np.searchsorted(positives, positives, side="left")
        self._passed = np.searchsorted(positives, negatives, side="right")

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The figures in each resample (length r); NaN without a positive or without a negative.

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
            counts: Resamples, float64, (r, n).
        """
        if not len(self._positives) or not len(self._negatives):
            return {name: np.full(len(counts), np.nan) for name in _RANKED}
        positive = np.take(counts, self._positives, axis=1)
        own = _running_total(positive)
        negative = _running_total(np.take(counts, self._negatives, axis=1))
        n_positive, n_negative = own[:, -1], negative[:, -1]

        below = negative[:, self._below]
        wins = (positive * (below + negative[:, self._not_above])).sum(axis=1) / 2
        true = n_positive[:, None] - own[:, self._own_below]
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
    total = np.zeros((counts.shape[0], counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=total[:, 1:])
    return total


# --- every figure of a system ----------------------------------------------------------------------


class MetricValues:
    """Every figure of a system under a reference, prepared once for any resamples.

    Figures of the probability and of the map do not depend on the decision; they are given under both, the
    same, so that a filter on the decision always finds them.

    Args:
        cases: Length n.
        reference: `mask` or `report`.
        prevalence: Prevalence for `ppv_at_prevalence` and `npv_at_prevalence`, 0-1; None leaves them out.
        metrics: Only these of METRICS, which takes only their time.

    Attributes:
        keys: (decision, stratum, metric) of each figure, in the order of DECISIONS, `groups.strata`, METRICS.
    """

    def __init__(
        self,
        cases: Cases,
        reference: str,
        prevalence: float | None = None,
        metrics: Collection[str] = METRICS,
    ) -> None:
        left_out = () if prevalence is not None else ("ppv_at_prevalence", "npv_at_prevalence")
        kept = tuple(name for name in METRICS if name in metrics and name not in left_out)
        self._strata = {
            name: _Stratum(cases, reference, films, prevalence, kept)
            for name, films in strata(cases, reference).items()
        }
        self.keys = [(d, stratum, name) for d in DECISIONS for stratum in self._strata for name in kept]

    def films(self, decision: str, stratum: str, metric: str) -> np.ndarray:
        """The films that a figure is over (bool, length n)."""
        return self._strata[stratum].films(decision, metric)

    def needed(self, decision: str, stratum: str, metric: str) -> list[np.ndarray]:
        """The sets of films (bool, length n) of each of which a figure needs enough."""
        if metric in TWO_CLASS:
            return [self._strata[stratum].positive, self._strata[stratum].negative]
        return [self.films(decision, stratum, metric)]

    def values(self, counts: np.ndarray) -> dict[tuple[str, str, str], np.ndarray]:
        """The figures in each resample (float64, length r), by `keys`; NaN where undefined.

        Args:
            counts: Resamples, float64, (r, n).
        """
        found = {name: stratum.values(counts) for name, stratum in self._strata.items()}
        return {key: found[key[1]][key[0], key[2]] for key in self.keys}


class _Stratum:
    """Figures over the films of a stratum."""

    def __init__(
        self,
        cases: Cases,
        reference: str,
        films: np.ndarray,
        prevalence: float | None,
        metrics: Collection[str],
    ) -> None:
        self._prevalence = prevalence
        self.positive, self.negative = films & cases.positive(reference), films & ~cases.positive(reference)
        wanted = set(metrics)
        if wanted & set(_COUNTED):
            wanted |= {"sensitivity", "specificity"}
        if wanted & set(_LIMITS):
            wanted |= {"area_bias", "area_squares"}
        rows: dict[str | None, Rows] = {None: _of_probability(cases, self.positive, self.negative)}
        for decision in DECISIONS:
            called = cases.called(decision)
            rows[decision] = _of_decision(cases, self.positive, self.negative, called)
        table = {(d, name): row for d, each in rows.items() for name, row in each.items() if name in wanted}
        self._films = {key: films for key, (films, _) in table.items()}
        self._films_a_patient = films_a_patient(cases.patient[self.positive & cases.has_mask])
        self._sums = Sums(table) if table else None
        classes = cases.probability, self.positive, self.negative
        self._ranks = Ranks(*classes) if wanted & set(_RANKED) else None
        self._calibration = Calibration(*classes) if wanted & set(_CALIBRATED) else None

    def films(self, decision: str, metric: str) -> np.ndarray:
        """Those that a figure is over (bool, length n)."""
        if metric in _LIMITS:
            metric = "area_bias"
        of_mean = self._films.get((decision, metric), self._films.get((None, metric)))
        return self.positive | self.negative if of_mean is None else of_mean

    def values(self, counts: np.ndarray) -> dict[tuple[str | None, str], np.ndarray]:
        """The figures by decision (None: of no decision) and metric (length r)."""
        totals = self._sums.totals(counts) if self._sums else {}
        found = {key: share(total, films) for key, (total, films) in totals.items()}
        shared = {name: value for (decision, name), value in found.items() if decision is None}
        for part in (self._ranks, self._calibration):
            shared |= part.values(counts) if part else {}
        for decision in DECISIONS:
            more = dict(shared)
            if (decision, "sensitivity") in totals and (decision, "specificity") in totals:
                cells = totals[decision, "sensitivity"], totals[decision, "specificity"]
                more |= _from_counts(*cells, self._prevalence)
            if (decision, "area_squares") in totals:
                squares, _ = totals[decision, "area_squares"]
                more |= agreement(*totals[decision, "area_bias"], squares, self._films_a_patient)
            found |= {(decision, name): value for name, value in more.items()}
        return found


def _from_counts(
    positives: tuple[np.ndarray, np.ndarray],
    negatives: tuple[np.ndarray, np.ndarray],
    prevalence: float | None,
) -> dict[str, np.ndarray]:
    """What follows from TP and the positives, TN and the negatives."""
    (tp, n_positive), (tn, n_negative) = positives, negatives
    fp, fn = n_negative - tn, n_positive - tp
    sensitivity, specificity = share(tp, n_positive), share(tn, n_negative)
    found = {
        "lr_positive": share(sensitivity, share(fp, n_negative)),
        "lr_negative": share(share(fn, n_positive), specificity),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }
    if prevalence is not None:
        true, false = sensitivity * prevalence, share(fp, n_negative) * (1 - prevalence)
        found["ppv_at_prevalence"] = share(true, true + false)
        true, false = specificity * (1 - prevalence), share(fn, n_positive) * prevalence
        found["npv_at_prevalence"] = share(true, true + false)
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
    variance = share(np.maximum(squares - total * bias, 0), n - films_a_patient)
    half = LIMITS_OF_AGREEMENT * np.sqrt(variance)
    return {"area_bias": bias, "area_loa_low": bias - half, "area_loa_high": bias + half}
