"""Every metric, declared once: what it is called, what it needs, how it is treated, and its formula.

All else is derived from `METRICS`: columns of metrics.csv, tables of the terminal and of the page, intervals,
notes, comparisons. A new metric is one entry here; metrics stand everywhere in this order.

Two references say which films are positive: `mask`, an annotated lesion (primary), and `report`, the
radiology report. A film positive by report without a mask is a negative under `mask`, and left out under
`mask_or_clear`, which is `mask` otherwise. "Shown" is what the
decision lets through: under `stage_1` the map of every film that stage 1 calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Any, Literal

import numpy as np

from common.statistics.calibration import intercept_interval, observed_over_expected_interval
from common.statistics.intervals import koopman_interval
from common.statistics.tested_films import Cases

# `own`: what only systems of this project have, such as folds, a first stage, and films that they decline
Need = Literal["probability", "decision", "map", "own"]


def share(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient element by element (float64); NaN, without a warning, where the denominator is not above 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)


# --- what a formula is made of ---------------------------------------------------------------------


@dataclass(frozen=True)
class Films:
    """The films of a stratum, as formulas see them: arrays over all n films of the test set.

    Attributes:
        cases: All films.
        positive: Positives of the stratum (bool).
        negative: Negatives of the stratum (bool).
    """

    cases: Cases
    positive: np.ndarray
    negative: np.ndarray

    @cached_property
    def all(self) -> np.ndarray:
        """Films of the stratum (bool)."""
        return self.positive | self.negative

    @cached_property
    def masked(self) -> np.ndarray:
        """Positives with a mask (bool)."""
        return self.positive & self.cases.has_mask

    def with_value(self, column: str) -> np.ndarray:
        """Films of the stratum whose value in a column of numbers is known (bool)."""
        return self.all & np.isfinite(self.cases.column(column))

    @cached_property
    def answered(self) -> np.ndarray:
        """Films of the stratum that prediction would answer (bool)."""
        return self.all & (self.cases.column("no_answer") == 0)

    @cached_property
    def outlined(self) -> np.ndarray:
        """Films of the stratum whose outlines are known: none where stage 2 had no reason to run (bool)."""
        known = np.isfinite(self.cases.column("false_outlines"))
        return self.all & (known | ~(self.cases.has_mask | self.cases.stage_1)) & known.any()

    @cached_property
    def twice_masked(self) -> np.ndarray:
        """Positives with a mask that a second annotator looked at, too, and drew in or not (bool)."""
        return self.masked & self.with_value("dice_annotators")

    @cached_property
    def lesser_half(self) -> np.ndarray:
        """Positives with a mask, of the lesser half by the lesion's area (bool)."""
        area = self.cases.mask_area_fraction
        return self.masked & (area <= np.median(area[self.masked])) if self.masked.any() else self.masked


@dataclass(frozen=True)
class DecidedFilms(Films):
    """The same with a decision; only metrics that need a decision may ask for it.

    Attributes:
        called: Films called positive (bool).
    """

    called: np.ndarray

    @cached_property
    def shown_dice(self) -> np.ndarray:
        """Dice of what is shown, 0-1 (float64): a missed film is 0; NaN without a mask."""
        return np.where(self.called, self.cases.dice_segmentation, 0.0)

    @cached_property
    def shown_area(self) -> np.ndarray:
        """Area shown, % of the film (float64)."""
        return 100 * np.where(self.called, self.cases.area_fraction, 0.0)

    def shown(self, column: str) -> np.ndarray:
        """A number of what is outlined, where the decision shows it (float64); else 0."""
        return np.where(self.called, np.nan_to_num(self.cases.column(column)), 0.0)

    @cached_property
    def excess(self) -> np.ndarray:
        """Area shown minus area of the mask, both in % of the film (float64)."""
        return self.shown_area - 100 * self.cases.mask_area_fraction


@dataclass(frozen=True)
class Mean:
    """A mean over films.

    Attributes:
        over: Films that it is over (bool, length n), from `Films`; from `DecidedFilms` where it needs a
            decision.
        value: Value of each film (bool or float64, length n; ignored for other films), from the same.
    """

    over: Callable[[Any], np.ndarray]
    value: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Counts:
    """How many positives and negatives were called what (float64 arrays, one element a resample).

    Attributes:
        tp, tn: True positives, true negatives.
        positives, negatives: Films of either class.
        prevalence: The stated one, 0-1, or NaN.
    """

    tp: np.ndarray
    tn: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    prevalence: float

    @cached_property
    def fp(self) -> np.ndarray:
        return self.negatives - self.tn

    @cached_property
    def fn(self) -> np.ndarray:
        return self.positives - self.tp

    @cached_property
    def sensitivity(self) -> np.ndarray:
        return share(self.tp, self.positives)

    @cached_property
    def specificity(self) -> np.ndarray:
        return share(self.tn, self.negatives)


@dataclass(frozen=True)
class Rates:
    """The two rates of a decision, each with the films, or their effective number, that it is over.

    Attributes:
        sensitivity, specificity: Rates, 0-1.
        positives, negatives: Numbers of films, above 0.
        prevalence: The stated one, 0-1, or NaN.
    """

    sensitivity: float
    positives: float
    specificity: float
    negatives: float
    prevalence: float

    @property
    def lr_positive(self) -> tuple[float, float]:
        """Interval of the likelihood ratio of a positive call, 0 to infinity."""
        true, false = self.sensitivity * self.positives, (1 - self.specificity) * self.negatives
        return koopman_interval(true, self.positives, false, self.negatives)

    @property
    def lr_negative(self) -> tuple[float, float]:
        """Interval of the likelihood ratio of a negative call, 0 to infinity."""
        false, true = (1 - self.sensitivity) * self.positives, self.specificity * self.negatives
        return koopman_interval(false, self.positives, true, self.negatives)

    @property
    def ppv(self) -> tuple[float, float]:
        """Interval of the positive predictive value at the prevalence: it grows with the likelihood ratio."""
        low, high = (_probability(self.prevalence, ratio) for ratio in self.lr_positive)
        return low, high

    @property
    def false_alarms(self) -> tuple[float, float]:
        """Interval of the false alarms a true alarm at the prevalence: it falls with the likelihood ratio."""
        odds = (1 - self.prevalence) / self.prevalence
        high, low = (odds / ratio if ratio else math.inf for ratio in self.lr_positive)
        return low, high

    @property
    def npv(self) -> tuple[float, float]:
        """Interval of the negative predictive value at the prevalence: it falls with the likelihood ratio."""
        high, low = (1 - _probability(self.prevalence, ratio) for ratio in self.lr_negative)
        return low, high


def _probability(prevalence: float, ratio: float) -> float:
    """Bayes' rule: the probability of disease after a call with this likelihood ratio."""
    if math.isinf(ratio):  # the formula would be infinity over infinity
        return 1.0
    return prevalence * ratio / (prevalence * ratio + 1 - prevalence)


@dataclass(frozen=True)
class FromCounts:
    """What follows from the counts of a decision.

    Attributes:
        value: Value in each resample (float64), from `Counts`.
    """

    value: Callable[[Counts], np.ndarray]


@dataclass(frozen=True)
class Number:
    """How many films, of those that it is over.

    Attributes:
        over: Films that it is over, as in `Mean`.
        value: Whether a film counts, as in `Mean`.
    """

    over: Callable[[Any], np.ndarray]
    value: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Ratio:
    """A sum over films divided by another one.

    Attributes:
        over: Films that it is over, as in `Mean`.
        numerator: Value of each film, as in `Mean`.
        denominator: Value of each film that it is divided by, as in `Mean`.
    """

    over: Callable[[Any], np.ndarray]
    numerator: Callable[[Any], np.ndarray]
    denominator: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class ShortcutAuroc:
    """How well a shortcut (`common.inference.shortcuts`) separates the films.

    Attributes:
        column: Column of its probability.
        gain: The system's AUROC minus the shortcut's, instead of the latter.
    """

    column: str
    gain: bool = False


class Joint(Enum):
    """Formulas of several metrics that are computed together; each gives them by name."""

    RANKS = auto()  # metrics.Ranks
    CALIBRATION = auto()  # calibration.Calibration
    AGREEMENT = auto()  # metrics.agreement, over the films of `area_bias`


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        title: Title on the page.
        formula: How it is computed.
        needs: What it is computed from. One that needs no decision is given under each, the same.
        short: Title in the terminal; empty: `title`.
        both_classes: It needs positives and negatives; otherwise, the films that it is over.
        case_mix: Another mix of positives and negatives would give another value.
        at_prevalence: It is for a stated prevalence, and left out where none is stated.
        if_known: Column of the result file without any value of which it is left out.
        kind: Value of any range, share of films (Wilson's interval fits), or number of films.
        in_unit: Its value is from 0 to 1.
        descriptive: It says what the films are, not how good the system is: no interval, no comparison.
        interval: Interval from the rates of the decision; None: by the kind.
        by_patients: Interval from probabilities, labels and patients of its films; None: by the kind. It
            counts what patients there happened to be, so that it is not conditional on the case mix.
        auroc_of: Columns of scores whose AUROC it is; of two, that of the first minus that of the second.
        comparable: A difference between systems says something; not of ratios, nor of what is best near a
            value.
    """

    title: str
    formula: Mean | Number | Ratio | FromCounts | ShortcutAuroc | Joint
    needs: tuple[Need, ...]
    short: str = ""
    both_classes: bool = False
    case_mix: bool = False
    at_prevalence: bool = False
    if_known: str = ""
    kind: Literal["value", "proportion", "count"] = "value"
    in_unit: bool = True
    descriptive: bool = False
    interval: Callable[[Rates], tuple[float, float]] | None = None
    by_patients: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, float]] | None = None
    auroc_of: tuple[str, ...] = ()
    comparable: bool = True

    @property
    def short_title(self) -> str:
        """Title in the terminal."""
        return self.short or self.title

    @property
    def compared(self) -> bool:
        """Whether systems are compared by it."""
        return self.comparable and not self.descriptive

    def known(self, cases: Cases) -> bool:
        """Whether the results hold what it is left out without."""
        return not self.if_known or bool(np.isfinite(cases.column(self.if_known)).any())

    @property
    def by_decision(self) -> bool:
        """Whether each decision has its own value."""
        return "decision" in self.needs


def _predictive_value(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Bayes' rule, from how much of all films is rightly and how much is wrongly called so."""
    return share(true, true + false)


def _count(title: str, short: str, value: Callable[[Counts], np.ndarray]) -> Metric:
    return Metric(title, FromCounts(value), ("decision",), short, kind="count", descriptive=True)


# --- the metrics -----------------------------------------------------------------------------------

METRICS: dict[str, Metric] = {
    "auroc": Metric("AUROC", Joint.RANKS, ("probability",), both_classes=True, auroc_of=("probability",)),
    # Shortcuts are not compared: they are of the films, so both systems have the same.
    "auroc_thumbnail": Metric(
        "AUROC of a shortcut: the film at 24 x 24 pixels",
        ShortcutAuroc("thumbnail_probability"),
        (),
        auroc_of=("thumbnail_probability",),
        short="AUROC, 24 x 24 px",
        both_classes=True,
        comparable=False,
    ),
    "auroc_over_thumbnail": Metric(
        "AUROC above that of 24 x 24 pixels",
        ShortcutAuroc("thumbnail_probability", gain=True),
        ("probability",),
        auroc_of=("probability", "thumbnail_probability"),
        short="AUROC above 24 x 24",
        both_classes=True,
        comparable=False,
        in_unit=False,
    ),
    "auroc_header": Metric(
        "AUROC of a shortcut: facts of the header",
        ShortcutAuroc("header_probability"),
        (),
        auroc_of=("header_probability",),
        short="AUROC, header",
        both_classes=True,
        comparable=False,
    ),
    "auroc_over_header": Metric(
        "AUROC above that of the header",
        ShortcutAuroc("header_probability", gain=True),
        ("probability",),
        auroc_of=("probability", "header_probability"),
        short="AUROC above header",
        both_classes=True,
        comparable=False,
        in_unit=False,
    ),
    "auprc": Metric(
        "AUPRC (average precision)",
        Joint.RANKS,
        ("probability",),
        short="AUPRC",
        both_classes=True,
        case_mix=True,
    ),
    "prevalence": Metric("Prevalence", Mean(lambda f: f.all, lambda f: f.positive), (), descriptive=True),
    # Brier, Mon Weather Rev 1950;78:1-3
    "brier": Metric(
        "Brier score",
        Mean(lambda f: f.all, lambda f: (f.cases.probability - f.positive) ** 2),
        ("probability",),
        both_classes=True,
        case_mix=True,
    ),
    "calibration_slope": Metric(
        "Calibration slope",
        Joint.CALIBRATION,
        ("probability",),
        short="Calibr. slope",
        both_classes=True,
        case_mix=True,
        comparable=False,
        in_unit=False,
    ),
    "calibration_intercept": Metric(
        "Calibration intercept",
        Joint.CALIBRATION,
        ("probability",),
        short="Calibr. intercept",
        both_classes=True,
        by_patients=intercept_interval,
        comparable=False,
        in_unit=False,
    ),
    # Steyerberg, Clinical Prediction Models, 2019, section 15.3: 1 where as many are positive as foretold
    "observed_over_expected": Metric(
        "Positives observed over expected by the probabilities",
        Ratio(lambda f: f.all, lambda f: f.positive, lambda f: f.cases.probability),
        ("probability",),
        short="Observed / expected",
        both_classes=True,
        by_patients=observed_over_expected_interval,
        comparable=False,
        in_unit=False,
    ),
    "sensitivity_at_specificity_90": Metric(
        "Sensitivity at specificity 0.90",
        Joint.RANKS,
        ("probability",),
        short="Sens. at spec. 0.90",
        both_classes=True,
    ),
    "sensitivity_at_specificity_95": Metric(
        "Sensitivity at specificity 0.95",
        Joint.RANKS,
        ("probability",),
        short="Sens. at spec. 0.95",
        both_classes=True,
    ),
    "sensitivity": Metric(
        "Sensitivity", Mean(lambda f: f.positive, lambda f: f.called), ("decision",), kind="proportion"
    ),
    # Drains lie on the lesion's side: a network may have learnt them
    "sensitivity_without_tube": Metric(
        "Sensitivity, films without a chest tube",
        Mean(lambda f: f.positive & (f.cases.chest_tube == 0), lambda f: f.called),
        ("decision",),
        short="Sens. without tube",
        kind="proportion",
    ),
    # The thresholds are chosen on single folds' probabilities, and applied to the mean of five
    "sensitivity_single_folds": Metric(
        "Sensitivity of single folds at the threshold: mean",
        Mean(lambda f: f.positive & f.with_value("fold_votes"), lambda f: f.cases.column("fold_votes")),
        ("own",),
        short="Sens., single folds",
        comparable=False,
    ),
    "specificity_single_folds": Metric(
        "Specificity of single folds at the threshold: mean",
        Mean(lambda f: f.negative & f.with_value("fold_votes"), lambda f: 1 - f.cases.column("fold_votes")),
        ("own",),
        short="Spec., single folds",
        comparable=False,
    ),
    # The median of five reaches a threshold where three do: it stays on a single fold's scale
    "sensitivity_majority": Metric(
        "Sensitivity where a majority of the folds decides",
        Mean(lambda f: f.positive & f.with_value("fold_votes"), lambda f: f.cases.column("fold_votes") > 0.5),
        ("own",),
        short="Sens., majority",
        kind="proportion",
        comparable=False,
    ),
    "specificity_majority": Metric(
        "Specificity where a majority of the folds decides",
        Mean(lambda f: f.negative & f.with_value("fold_votes"), lambda f: f.cases.column("fold_votes") < 0.5),
        ("own",),
        short="Spec., majority",
        kind="proportion",
        comparable=False,
    ),
    "specificity": Metric(
        "Specificity", Mean(lambda f: f.negative, lambda f: ~f.called), ("decision",), kind="proportion"
    ),
    # Prediction's third answer: the decision above counts these films, too; systems share most of them
    "no_answer": Metric(
        "No answer: share of the films that prediction would decline",
        Mean(lambda f: f.with_value("no_answer"), lambda f: f.cases.column("no_answer")),
        ("own",),
        short="No answer",
        case_mix=True,
        kind="proportion",
        comparable=False,
    ),
    "no_answer_positives": Metric(
        "No answer: share of the positives",
        Mean(lambda f: f.positive & f.with_value("no_answer"), lambda f: f.cases.column("no_answer")),
        ("own",),
        short="No answer, positives",
        kind="proportion",
        comparable=False,
    ),
    "sensitivity_answered": Metric(
        "Sensitivity, films that prediction would answer",
        Mean(lambda f: f.positive & f.answered, lambda f: f.called),
        ("decision", "own"),
        short="Sens., answered",
        kind="proportion",
        comparable=False,
    ),
    "specificity_answered": Metric(
        "Specificity, films that prediction would answer",
        Mean(lambda f: f.negative & f.answered, lambda f: ~f.called),
        ("decision", "own"),
        short="Spec., answered",
        kind="proportion",
        comparable=False,
    ),
    "ppv": Metric(
        "Positive predictive value",
        Mean(lambda f: f.all & f.called, lambda f: f.positive),
        ("decision",),
        short="PPV",
        case_mix=True,
        kind="proportion",
    ),
    "npv": Metric(
        "Negative predictive value",
        Mean(lambda f: f.all & ~f.called, lambda f: f.negative),
        ("decision",),
        short="NPV",
        case_mix=True,
        kind="proportion",
    ),
    "lr_positive": Metric(
        "Likelihood ratio, positive",
        FromCounts(lambda c: share(c.sensitivity, share(c.fp, c.negatives))),
        ("decision",),
        short="LR+",
        both_classes=True,
        interval=lambda r: r.lr_positive,
        comparable=False,
        in_unit=False,
    ),
    "lr_negative": Metric(
        "Likelihood ratio, negative",
        FromCounts(lambda c: share(share(c.fn, c.positives), c.specificity)),
        ("decision",),
        short="LR-",
        both_classes=True,
        interval=lambda r: r.lr_negative,
        comparable=False,
        in_unit=False,
    ),
    "f1": Metric(
        "F1 score",
        FromCounts(lambda c: share(2 * c.tp, 2 * c.tp + c.fp + c.fn)),
        ("decision",),
        short="F1",
        both_classes=True,
        case_mix=True,
    ),
    "accuracy": Metric(
        "Accuracy",
        Mean(lambda f: f.all, lambda f: f.called == f.positive),
        ("decision",),
        both_classes=True,
        case_mix=True,
        kind="proportion",
    ),
    "ppv_at_prevalence": Metric(
        "ppv at prevalence",
        FromCounts(
            lambda c: _predictive_value(
                c.sensitivity * c.prevalence, share(c.fp, c.negatives) * (1 - c.prevalence)
            )
        ),
        ("decision",),
        short="PPV at prevalence",
        both_classes=True,
        interval=lambda r: r.ppv,
        at_prevalence=True,
    ),
    "npv_at_prevalence": Metric(
        "npv at prevalence",
        FromCounts(
            lambda c: _predictive_value(
                c.specificity * (1 - c.prevalence), share(c.fn, c.positives) * c.prevalence
            )
        ),
        ("decision",),
        short="NPV at prevalence",
        both_classes=True,
        interval=lambda r: r.npv,
        at_prevalence=True,
    ),
    "false_alarms_a_true_alarm": Metric(
        "False alarms a true alarm, at prevalence",
        FromCounts(
            lambda c: share(share(c.fp, c.negatives) * (1 - c.prevalence), c.sensitivity * c.prevalence)
        ),
        ("decision",),
        short="False alarms a true",
        both_classes=True,
        interval=lambda r: r.false_alarms,
        at_prevalence=True,
        comparable=False,
        in_unit=False,
    ),
    # Dice, Ecology 1945;26:297-302; of the stage-2 map, whatever the decision
    "dice_segmentation": Metric(
        "Dice, segmentation", Mean(lambda f: f.masked, lambda f: f.cases.dice_segmentation), ("map",)
    ),
    "dice_positives": Metric(
        "Dice, positives (a miss is 0)",
        Mean(lambda f: f.masked, lambda f: f.shown_dice),
        ("map", "decision"),
        short="Dice, positives",
    ),
    "dice_true_positives": Metric(
        "Dice, true positives",
        Mean(lambda f: f.masked & f.called, lambda f: f.cases.dice_segmentation),
        ("map", "decision"),
    ),
    "dice_full_size": Metric(
        "Dice, segmentation, at the film's full size",
        Mean(lambda f: f.masked & f.with_value("dice_full_size"), lambda f: f.cases.column("dice_full_size")),
        ("map",),
        short="Dice, full size",
    ),
    "dice_lesser_half": Metric(
        "Dice of the lesser half of the lesions, at the film's full size",
        Mean(
            lambda f: f.lesser_half & f.with_value("dice_full_size"),
            lambda f: f.cases.column("dice_full_size"),
        ),
        ("map",),
        short="Dice, lesser half",
    ),
    "dice_annotators": Metric(
        "Dice, second annotator with the first, at the film's full size",
        Mean(lambda f: f.twice_masked, lambda f: f.cases.column("dice_annotators")),
        (),
        short="Dice, annotators",
        if_known="dice_annotators",
        comparable=False,
    ),
    "dice_first": Metric(
        "Dice, system with the first annotator, on the same films",
        Mean(lambda f: f.twice_masked, lambda f: f.cases.column("dice_full_size")),
        ("map",),
        short="Dice, with the first",
        if_known="dice_annotators",
    ),
    "dice_second": Metric(
        "Dice, system with the second annotator, on the same films",
        Mean(lambda f: f.twice_masked, lambda f: f.cases.column("dice_second")),
        ("map",),
        short="Dice, with the second",
        if_known="dice_annotators",
    ),
    "second_only": Metric(
        "Negatives in which the second annotator alone drew a lesion",
        Mean(
            lambda f: f.negative & ~f.cases.has_mask & f.with_value("dice_annotators"),
            lambda f: f.cases.column("dice_annotators") == 0,
        ),
        (),
        short="Second alone drew",
        kind="proportion",
        if_known="dice_annotators",
        comparable=False,
    ),
    "laterality": Metric(
        "Laterality: the map reaches higher on the lesion's side",
        Mean(lambda f: f.masked & f.with_value("laterality"), lambda f: f.cases.column("laterality")),
        ("map",),
        short="Laterality",
        kind="proportion",
    ),
    "outline_laterality": Metric(
        "Laterality of the outline shown",
        Mean(
            lambda f: f.masked & f.called & f.with_value("outline_laterality"),
            lambda f: f.cases.column("outline_laterality"),
        ),
        ("map", "decision"),
        short="Laterality, outline",
        kind="proportion",
    ),
    "hit": Metric(
        "Hit: the brightest pixel is at the lesion",
        Mean(lambda f: f.masked & f.with_value("hit"), lambda f: f.cases.column("hit")),
        ("map",),
        short="Hit",
        kind="proportion",
    ),
    # Chakraborty, Med Phys 1989;16:561-568; the curve is curves.froc
    "lesions_found": Metric(
        "Lesions found by an outline shown",
        Ratio(
            lambda f: f.masked & f.with_value("lesions"),
            lambda f: f.shown("lesions_found"),
            lambda f: f.cases.column("lesions"),
        ),
        ("map", "decision"),
        short="Lesions found",
    ),
    "false_outlines": Metric(
        "False outlines shown a film",
        Mean(lambda f: f.outlined, lambda f: f.shown("false_outlines")),
        ("map", "decision"),
        short="False outlines",
        both_classes=True,
        case_mix=True,
        in_unit=False,
    ),
    "iou": Metric(
        "Intersection over union",
        Mean(lambda f: f.masked, lambda f: f.cases.iou),
        ("map",),
        short="IoU",
    ),
    "hd95_mm": Metric(
        "Surface distance, 95th percentile (mm)",
        Mean(lambda f: f.masked & f.cases.in_mm, lambda f: f.cases.hd95),
        ("map",),
        short="HD95, mm",
        in_unit=False,
    ),
    "hd95_px": Metric(
        "Surface distance, 95th percentile (pixels)",
        Mean(lambda f: f.masked & ~f.cases.in_mm, lambda f: f.cases.hd95),
        ("map",),
        short="HD95, pixels",
        in_unit=False,
    ),
    "nsd_mm": Metric(
        "Normalised surface Dice (tolerance in mm)",
        Mean(lambda f: f.masked & f.cases.in_mm, lambda f: f.cases.nsd),
        ("map",),
        short="NSD, in mm",
    ),
    "nsd_px": Metric(
        "Normalised surface Dice (tolerance in pixels)",
        Mean(lambda f: f.masked & ~f.cases.in_mm, lambda f: f.cases.nsd),
        ("map",),
        short="NSD, in pixels",
    ),
    # 1 where nothing is shown and there is no mask
    "dice_all_films": Metric(
        "Dice, all films",
        Mean(lambda f: f.all, lambda f: np.where(f.cases.has_mask, f.shown_dice, f.shown_area == 0)),
        ("map", "decision"),
        both_classes=True,
        case_mix=True,
    ),
    # The same of a system that shows nothing
    "dice_always_empty": Metric(
        "Dice, all films, of always answering “empty”",
        Mean(lambda f: f.all, lambda f: ~f.cases.has_mask),
        (),
        short="Dice, always empty",
        descriptive=True,
    ),
    "false_positive_area": Metric(
        "False-positive area on negatives",
        Mean(lambda f: f.negative, lambda f: f.shown_area),
        ("map", "decision"),
        short="Area on negatives, %",
        in_unit=False,
    ),
    "area_bias": Metric(
        "Area, shown minus true: mean",
        Mean(lambda f: f.masked, lambda f: f.excess),
        ("map", "decision"),
        short="Area shown - true, %",
        comparable=False,
        in_unit=False,
    ),
    "area_loa_low": Metric(
        "Area, lower limit of agreement",
        Joint.AGREEMENT,
        ("map", "decision"),
        short="agreement, low",
        comparable=False,
        in_unit=False,
    ),
    "area_loa_high": Metric(
        "Area, upper limit of agreement",
        Joint.AGREEMENT,
        ("map", "decision"),
        short="agreement, high",
        comparable=False,
        in_unit=False,
    ),
    "tp": _count("True positives", "TP", lambda c: c.tp),
    "fp": _count("False positives", "FP", lambda c: c.fp),
    "fn": _count("False negatives", "FN", lambda c: c.fn),
    "tn": _count("True negatives", "TN", lambda c: c.tn),
    "vetoed": Metric(
        "Called by stage 1, vetoed by the area rule",
        Number(lambda f: f.all, lambda f: f.cases.stage_1 & ~f.called),
        ("decision", "own"),
        short="Vetoed",
        kind="count",
        descriptive=True,
    ),
}
