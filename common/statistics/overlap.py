"""How much of a lesion was found: overlap of a predicted mask with the true one."""

from __future__ import annotations

import numpy as np

MAP_THRESHOLD = 0.5  # a pixel belongs to the predicted mask when its map is above this


def overlap(predicted: np.ndarray, truth: np.ndarray) -> int:
    """Pixels in both masks; two bool arrays of one shape."""
    return int(np.count_nonzero(predicted & truth))


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient 2 |A and B| / (|A| + |B|) (Dice, Ecology 1945;26:297) of two bool masks.

    Convention: 1 when both are empty, 0 when one of them is.
    """
    total = np.count_nonzero(predicted) + np.count_nonzero(truth)
    return 2 * overlap(predicted, truth) / total if total else 1.0


def iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union |A and B| / |A or B| (Jaccard, New Phytologist 1912;11:37) of two bool masks.

    Convention: 1 when both are empty, 0 when one of them is.
    """
    union = np.count_nonzero(predicted | truth)
    return overlap(predicted, truth) / union if union else 1.0
