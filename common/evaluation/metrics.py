"""What the figures are: detection and Dice, for any number of resamples of the films at once.

A resample is a row of `counts`: how often each film was drawn. A row of ones is the full sample, so point
estimates and replicates come from the same code. A figure that a resample does not define (a ratio over
no film) is NaN.

Two references say which films are positive: `mask`, an annotated lesion (primary), and `report`, the
radiology report. Strata are by lesion area over film area, and a stratum is its positives against ALL
negatives of the reference. A film positive by report without a mask is a negative under `mask`, and a
positive only in stratum `all` under `report`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.evaluation.cases import Cases

REFERENCES = ("mask", "report")
DECISIONS = ("two_stage", "stage_1")
STRATA = ("all", "small", "medium", "large")
SIZE_EDGES = (0.032, 0.080)  # of the film's area: small < 0.032 <= medium < 0.080 <= large
CONFUSION = ("tp", "fp", "fn", "tn")
METRICS = (
    "auroc",
    "auprc",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "dice_segmentation",
    "dice_positives",
    "dice_true_positives",
    *CONFUSION,
)


class Figure(NamedTuple):
    """A figure in r resamples.

    Attributes:
        n: Films that it is over, each as often as it was drawn (float64, whole numbers, length r).
        value: The figure (float64, length r); NaN where undefined.
    """

    n: np.ndarray
    value: np.ndarray


def share(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient element by element (float64); NaN, without a warning, where the denominator is 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)


def strata(cases: Cases, reference: str) -> dict[str, np.ndarray]:
    """The positives of each stratum under a reference: bool arrays of length n, by name in STRATA."""
    positive = cases.positive(reference)
    size = np.searchsorted(SIZE_EDGES, cases.mask_area_fraction, side="right")
    sized = {name: positive & cases.has_mask & (size == i) for i, name in enumerate(STRATA[1:])}
    return {"all": positive, **sized}


class RankedNegatives:
    """Areas under the ROC and the precision-recall curve of some positives against fixed negatives.

    The negatives are ranked and summed once, for all strata.

    Args:
        scores: Higher is more positive; length n, finite.
        negative: The negatives, bool, length n.
        counts: Resamples, float64, (r, n).
    """

    def __init__(self, scores: np.ndarray, negative: np.ndarray, counts: np.ndarray) -> None:
        self._scores = scores
        self._counts = counts
        negatives = np.flatnonzero(negative)
        negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        self._ranked = scores[negatives]
        self._below = _running_total(counts[:, negatives])
        self.total = self._below[:, -1]

    def auroc(self, positive: np.ndarray) -> Figure:
        """P(score of a positive > score of a negative) + P(equal) / 2.

        The Mann-Whitney form of the area under the ROC curve (Hanley & McNeil, Radiology 1982;143:29-36);
        equals the trapezoid area, ties included. n: positives + negatives; NaN without either.

        Args:
            positive: The positives, bool, length n.
        """
        members = np.flatnonzero(positive)
        counts = self._counts[:, members]
        below = self._below[:, np.searchsorted(self._ranked, self._scores[members], side="left")]
        not_above = self._below[:, np.searchsorted(self._ranked, self._scores[members], side="right")]
        wins = (counts * (below + not_above)).sum(axis=1) / 2
        n = counts.sum(axis=1)
        return Figure(n + self.total, share(wins, n * self.total))

    def auprc(self, positive: np.ndarray) -> Figure:
        """Average precision: the precision at each positive's score, averaged over the positives.

        The step-wise sum of (R_k - R_k-1) P_k over the distinct scores, as scikit-learn's
        `average_precision_score`: no interpolation, tied films enter together. n: positives + negatives;
        NaN without either (with no negative it would be 1 whatever the scores).

        Args:
            positive: The positives, bool, length n.
        """
        members = np.flatnonzero(positive)
        members = members[np.argsort(self._scores[members], kind="stable")]
        scores, counts = self._scores[members], self._counts[:, members]
        below = _running_total(counts)
        n = below[:, -1]
        true = n[:, None] - below[:, np.searchsorted(scores, scores, side="left")]
        false = self.total[:, None] - self._below[:, np.searchsorted(self._ranked, scores, side="left")]
        # Nothing drawn at or above a score leaves its precision undefined, and its weight 0.
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        value = share((counts * precision).sum(axis=1), n)
        return Figure(n + self.total, np.where(self.total > 0, value, np.nan))


def _running_total(counts: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... k columns: (r, k) -> (r, k + 1)."""
    total = np.zeros((counts.shape[0], counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=total[:, 1:])
    return total


def drawn(members: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many films of `members` (bool, length n) each resample holds, repeats included (float64, length r).

    Not a matrix product: BLAS would start threads for it, which cost six times the work on a busy machine.
    """
    return counts[:, members].sum(axis=1)


def rates(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> dict[str, Figure]:
    """Sensitivity, specificity, PPV and NPV of a yes-or-no decision, and the confusion counts themselves.

    n of a rate is its denominator: positives, negatives, films called positive, films called negative.
    n of a confusion count is positives + negatives.

    Args:
        tp, fp, fn, tn: Films in each cell of the confusion matrix, length r.
    """
    both = tp + fp + fn + tn
    return {
        "sensitivity": Figure(tp + fn, share(tp, tp + fn)),
        "specificity": Figure(tn + fp, share(tn, tn + fp)),
        "ppv": Figure(tp + fp, share(tp, tp + fp)),
        "npv": Figure(tn + fn, share(tn, tn + fn)),
        **{name: Figure(both, cell) for name, cell in zip(CONFUSION, (tp, fp, fn, tn), strict=True)},
    }


def mean_over(values: np.ndarray, members: np.ndarray, counts: np.ndarray) -> Figure:
    """The mean of `values` (float64, length n) over `members` (bool, length n); n: members drawn.

    Summed in the order of the values, so that not even the last digit depends on the order of the films.
    """
    chosen = np.flatnonzero(members)
    chosen = chosen[np.argsort(values[chosen], kind="stable")]
    weights = counts[:, chosen]
    n = weights.sum(axis=1)
    return Figure(n, share((weights * values[chosen]).sum(axis=1), n))


def figures(cases: Cases, reference: str, counts: np.ndarray) -> dict[tuple[str, str, str], Figure]:
    """Every figure of a system under a reference, in each resample.

    - `auroc`, `auprc` of the raw probability; `sensitivity`, `specificity`, `ppv`, `npv` and `tp`, `fp`,
      `fn`, `tn` of the decision.
    - `dice_segmentation`: mean Dice of the stage-2 map over the stratum's positives with a mask.
      `dice_positives`: the same films as the decision shows them, a missed one counting 0.
      `dice_true_positives`: those of them that were called positive. Dice (Ecology 1945;26:297-302) is
      never over a film without a mask, so no convention for two empty masks enters the mean.

    `auroc`, `auprc` and `dice_segmentation` do not depend on the decision; they are given under both, the
    same, so that a filter on the decision always finds them.

    Args:
        reference: `mask` or `report`.
        counts: Resamples, float64, (r, n).

    Returns:
        The figure by (decision, stratum, metric), in the order of DECISIONS, STRATA and METRICS.
    """
    negative = ~cases.positive(reference)
    ranked = RankedNegatives(cases.probability, negative, counts)
    false = {d: drawn(negative & cases.called(d), counts) for d in DECISIONS}
    found: dict[tuple[str, str], dict[str, Figure]] = {}
    for stratum, positive in strata(cases, reference).items():
        masked = positive & cases.has_mask
        shared = {
            "auroc": ranked.auroc(positive),
            "auprc": ranked.auprc(positive),
            "dice_segmentation": mean_over(cases.dice_segmentation, masked, counts),
        }
        for decision in DECISIONS:
            called = cases.called(decision)
            shown = np.where(called, cases.dice_segmentation, 0.0)
            found[decision, stratum] = {
                **shared,
                **rates(
                    tp=drawn(positive & called, counts),
                    fp=false[decision],
                    fn=drawn(positive & ~called, counts),
                    tn=ranked.total - false[decision],
                ),
                "dice_positives": mean_over(shown, masked, counts),
                "dice_true_positives": mean_over(cases.dice_segmentation, masked & called, counts),
            }
    return {
        (decision, stratum, metric): found[decision, stratum][metric]
        for decision in DECISIONS
        for stratum in STRATA
        for metric in METRICS
    }
