"""The area under the ROC curve of one set of scores. (`metrics` has that of every resample at once.)"""

from __future__ import annotations

import numpy as np


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """scikit-learn's: the probability that a positive scores higher than a negative, ties as one half.

    Args:
        positive: (n,) bool, whether the film is positive; both classes occur.
        score: (n,) finite scores, higher is more positive.
    """
    from sklearn.metrics import roc_auc_score  # takes seconds, which --help and a refusal need not wait

    return float(roc_auc_score(positive, score))
