"""Out-of-fold predictions -> operating point: the rules that choose it, and how steady their choice is.

A film is called positive when its probability reaches the threshold, and a threshold is the probability of
one of the films: "nothing is positive" is no operating point. Among equally good thresholds, every rule takes
the highest; merits that differ by less than rounding (1e-12) are equally good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from common.statistics.bootstrap import resample_counts
from common.statistics.metrics import share

YOUDEN, SENSITIVITY_95, LOWEST_COST = "youden", "sensitivity-95", "lowest-cost"
RULES = {
    YOUDEN: "largest sensitivity + specificity - 1 (Youden, Cancer 1950;3:32)",
    SENSITIVITY_95: "highest specificity at a sensitivity of at least 0.95",
    LOWEST_COST: "lowest expected cost at a stated prevalence and cost ratio (Metz, Semin Nucl Med 1978)",
}
SMALLEST, PERCENTILE = "smallest", "percentile-2.5"
AREA_RULES = {
    SMALLEST: "smallest out-of-fold overlap above 0",
    PERCENTILE: "2.5th percentile of the out-of-fold overlaps above 0",
}
_SHARES = {SMALLEST: 0.0, PERCENTILE: 0.025}
MAP_THRESHOLDS = np.arange(256) / 256  # of a map of pneumothorax; 0.5 is one of them
_ROUNDING = 1e-12
_EXTREME = 0.05
Rates = TypeVar("Rates", float, np.ndarray)


@dataclass(frozen=True)
class Costs:
    """What mistakes cost where the system is to be used.

    Attributes:
        prevalence: Prevalence of pneumothorax where the system is to be used, between 0 and 1.
        ratio: Cost of a miss over cost of a false alarm, above 0.
    """

    prevalence: float
    ratio: float = 1.0

    def expected(self, sensitivity: Rates, false_positive_rate: Rates) -> Rates:
        """Expected cost of a film, in costs of one false alarm.

        prevalence * ratio * (1 - sensitivity) + (1 - prevalence) * (1 - specificity), what a correct answer
        costs being left out (Metz, Semin Nucl Med 1978;8:283). It is lowest where a line of the slope
        (1 - prevalence) / (prevalence * ratio) touches the ROC curve from above (Zweig & Campbell, Clin Chem
        1993;39:561).

        Args:
            sensitivity: Sensitivity, 0-1, a number or an array of any shape.
            false_positive_rate: 1 - specificity, 0-1, in the shape of `sensitivity`.
        """
        missed = self.prevalence * self.ratio * (1 - sensitivity)
        return missed + (1 - self.prevalence) * false_positive_rate


@dataclass(frozen=True)
class RocPoint:
    """A threshold with the rates there, all 0-1."""

    threshold: float
    sensitivity: float
    false_positive_rate: float

    @property
    def specificity(self) -> float:
        return 1 - self.false_positive_rate


@dataclass(frozen=True)
class Roc:
    """The ROC curves of r resamples of the films: their k points, highest threshold first.

    Attributes:
        thresholds: (k,) float64, falling: the distinct probabilities of the films.
        sensitivity: (r, k) float64, 0-1; NaN in a resample without a positive film.
        false_positive_rate: (r, k) float64, 0-1; NaN in a resample without a negative film.
        drawn: (r, k) bool, whether the resample holds a film of exactly this probability.
    """

    thresholds: np.ndarray
    sensitivity: np.ndarray
    false_positive_rate: np.ndarray
    drawn: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, probability: np.ndarray, counts: np.ndarray | None = None) -> Roc:
        """Trace the curves.

        Args:
            positive: (n,) bool, whether the film is positive.
            probability: (n,) float64, finite probabilities, 0-1.
            counts: How often each film was drawn, float64 whole numbers, (r, n); None: the films themselves.
        """
        # Not scikit-learn's: its curve begins at an infinite threshold, and takes one resample at a time.
        counts = np.ones((1, len(positive))) if counts is None else counts
        order = np.argsort(-probability, kind="stable")
        falling = probability[order]
        last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of each distinct probability
        films = counts[:, order]
        called = films.cumsum(axis=1)[:, last]
        true = (films * positive[order]).cumsum(axis=1)[:, last]
        false = called - true
        return cls(
            thresholds=falling[last],
            sensitivity=share(true, np.broadcast_to(true[:, -1:], true.shape)),
            false_positive_rate=share(false, np.broadcast_to(false[:, -1:], false.shape)),
            drawn=np.diff(called, axis=1, prepend=0) > 0,
        )

    def chosen(self, rule: str, costs: Costs | None = None) -> np.ndarray:
        """The point that a rule chooses in each resample: (r,) int64, into `thresholds`.

        Where a resample lacks positive or negative films, the number says nothing.

        Args:
            rule: A key of RULES.
            costs: Costs for the rule `lowest-cost`; None for the others.
        """
        if rule == YOUDEN:
            merit = self.sensitivity - self.false_positive_rate
        elif rule == SENSITIVITY_95:
            merit = np.where(self.sensitivity >= 0.95 - _ROUNDING, -self.false_positive_rate, -np.inf)
        elif costs is None:
            raise ValueError(f"{rule} needs costs")
        else:
            merit = -costs.expected(self.sensitivity, self.false_positive_rate)
        merit = np.where(self.drawn, merit, -np.inf)  # only a drawn film's probability is a threshold
        # The first of the equally good: thresholds fall, so it is the highest.
        return np.argmax(merit >= merit.max(axis=1, keepdims=True) - _ROUNDING, axis=1)


def choose(rule: str, positive: np.ndarray, probability: np.ndarray, costs: Costs | None = None) -> RocPoint:
    """The operating point by a rule.

    Args:
        rule: A key of RULES.
        positive: (n,) bool, whether the film is positive; both classes occur.
        probability: (n,) float64, probability by the fold that held the film out, 0-1.
        costs: Costs for the rule `lowest-cost`; None for the others.
    """
    roc = Roc.of(positive, probability)
    best = roc.chosen(rule, costs)[0]
    return RocPoint(
        float(roc.thresholds[best]), float(roc.sensitivity[0, best]), float(roc.false_positive_rate[0, best])
    )


def extreme(threshold: float) -> str | None:
    """What is to be feared of a probability threshold near 0 or 1; None where it is neither.

    It is chosen on single folds' probabilities and applied to the mean of five, which is rarely as extreme.
    """
    if _EXTREME <= threshold <= 1 - _EXTREME:
        return None
    few, rate = ("fewer", "sensitivity") if threshold > 0.5 else ("more", "specificity")
    return (
        f"cls_threshold {threshold:.4g} is extreme: it was chosen on single folds' probabilities, and the "
        f"mean of five reaches it for {few} films; expect a lower {rate} than out of fold"
    )


def area_threshold(overlaps: np.ndarray, rule: str = SMALLEST) -> int | None:
    """The area that the system must find, from lesions that it has shown it can find.

    The smallest overlap hangs on one film; the percentile is steadier, and gives up the smallest lesions.

    Args:
        overlaps: (positives,) int: pixels shared by predicted and true mask of each out-of-fold positive.
        rule: A key of AREA_RULES.

    Returns:
        An overlap above 0 that occurred, in pixels; None when there is none.
    """
    found = np.sort(overlaps[overlaps > 0])
    return int(found[_place(np.ones((1, len(found))), rule)[0]]) if len(found) else None


def _place(counts: np.ndarray, rule: str) -> np.ndarray:
    """Place of a rule's overlap among rising ones, each there as often as drawn (r, k): (r,) int64."""
    reached = counts.cumsum(axis=1)
    enough = np.maximum(_SHARES[rule] * reached[:, -1:] - _ROUNDING, 1)
    return np.argmax(reached >= enough, axis=1)


def best_map_threshold(dice: np.ndarray) -> float:
    """The map's threshold at which the mean Dice is highest; of equally good ones the nearest to 0.5.

    Args:
        dice: (positives, 256) float64, Dice at each of MAP_THRESHOLDS of each out-of-fold positive, 0-1.
    """
    mean = dice.mean(axis=0)
    best = MAP_THRESHOLDS[mean >= mean.max() - _ROUNDING]
    return float(best[np.abs(best - 0.5).argmin()])


def dice_by_threshold(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The Dice coefficient of a map against the true mask at every threshold of MAP_THRESHOLDS at once.

    From two histograms of the map, inside and outside the true mask. Their bins end exactly at the thresholds
    (256 * map is exact in float32), so each value is the one that `map > threshold` gives, and none of a
    rounded map.

    Args:
        found: Any shape, float32, 0-1: the map of pneumothorax.
        truth: The same shape, bool: the true mask.

    Returns:
        (256,) float64, 0-1; as in `overlap.dice`, 1 where both masks are empty.
    """
    shared, outside = _pixels_above(found, truth)
    total = shared + outside + np.count_nonzero(truth)
    return np.divide(2 * shared, total, out=np.ones(256), where=total > 0)


def overlap_by_threshold(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The pixels shared by a map above each of MAP_THRESHOLDS and the true mask: (256,) int64, as above."""
    return _pixels_above(found, truth)[0]


def _pixels_above(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels above each of MAP_THRESHOLDS, inside and outside the true mask: (256,) int64 each."""
    # a pixel of bin b is above the thresholds 0 ... b - 1
    bins = np.minimum(np.ceil(found * np.float32(256)), 256).astype(np.int64)
    # Both histograms in one pass over the map: what lies in the mask goes to the second 257 bins.
    outside, inside = np.bincount((bins + 257 * truth).ravel(), minlength=2 * 257).reshape(2, 257)
    # From bin 256 down to 1: a pixel of bin 0 is above no threshold.
    return inside[:0:-1].cumsum()[::-1], outside[:0:-1].cumsum()[::-1]


def resampled_thresholds(
    rule: str,
    positive: np.ndarray,
    probability: np.ndarray,
    overlaps: np.ndarray,
    patient: np.ndarray,
    costs: Costs | None = None,
    replicates: int = 2000,
    seed: int = 0,
    area_rule: str = SMALLEST,
) -> tuple[np.ndarray, np.ndarray]:
    """Both thresholds in resamples of the patients, drawn as in `bootstrap.resample_counts`.

    This shows how much they hang on single films. It is no confidence interval: the bootstrap is inconsistent
    for a minimum, below which no resample can fall (Bickel & Freedman, Ann Stat 1981;9:1196), and for a
    cut-point that maximises an empirical curve, as Youden's (Abrevaya & Huang, Econometrica 2005;73:1175).

    Args:
        rule: A key of RULES.
        positive: (n,) bool, whether the film is positive.
        probability: (n,) float64, probability by the fold that held the film out, 0-1.
        overlaps: (n,) int: pixels shared by predicted and true mask; none above 0 without a mask.
        patient: (n,) pseudonyms of the films' patients.
        costs: Costs for the rule `lowest-cost`; None for the others.
        replicates: Number of resamples.
        seed: Seed of the resampling, 0 or more.
        area_rule: A key of AREA_RULES.

    Returns:
        `cls_threshold` and `seg_threshold` (in pixels), each (replicates,) float64; NaN where a resample
        lacks positive or negative films, or any overlap.
    """
    found = np.flatnonzero(overlaps > 0)
    found = found[np.argsort(overlaps[found], kind="stable")]  # rising
    rising = overlaps[found].astype(float)
    cls, seg = [], []
    for counts in resample_counts(patient, positive, replicates, seed):
        roc = Roc.of(positive, probability, counts)
        defined = np.isfinite(roc.sensitivity[:, 0] + roc.false_positive_rate[:, 0])
        cls.append(np.where(defined, roc.thresholds[roc.chosen(rule, costs)], np.nan))
        drawn = counts[:, found]
        seg.append(
            np.where(drawn.any(axis=1), rising[_place(drawn, area_rule)], np.nan)
            if len(found)
            else np.full(len(counts), np.nan)
        )
    return np.concatenate(cls), np.concatenate(seg)
