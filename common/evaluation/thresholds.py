"""Out-of-fold predictions -> operating point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve


@dataclass(frozen=True)
class ClassificationThreshold:
    """The point of the pooled ROC that was chosen, with the rates there."""

    threshold: float
    sensitivity: float  # tpr
    false_positive_rate: float  # fpr
    auc: float


def youden(positive: np.ndarray, probability: np.ndarray) -> ClassificationThreshold:
    """The threshold of the largest sensitivity + specificity - 1 (Youden, Cancer 1950;3:32).

    A film is positive when its probability reaches the threshold, which is the probability of one of the
    films. Of equally good points, the one with the highest threshold.

    Args:
        positive: (n,) bool, with both classes.
        probability: (n,) float64, each by the fold that held the film out.
    """
    false_rate, true_rate, thresholds = roc_curve(positive, probability, drop_intermediate=False)
    # the first point is "nothing is positive", at an infinite threshold: never the best, and not a number
    best = 1 + int(np.argmax((true_rate - false_rate)[1:]))
    return ClassificationThreshold(
        threshold=float(thresholds[best]),
        sensitivity=float(true_rate[best]),
        false_positive_rate=float(false_rate[best]),
        auc=float(roc_auc_score(positive, probability)),
    )


def smallest_overlap(overlaps: np.ndarray) -> int | None:
    """The smallest lesion that the system has shown it can find.

    Args:
        overlaps: (positives,) int: pixels shared by predicted and true mask of each out-of-fold positive.

    Returns:
        The smallest overlap above 0, in pixels; None when there is none.
    """
    found = overlaps[overlaps > 0]
    return int(found.min()) if len(found) else None
