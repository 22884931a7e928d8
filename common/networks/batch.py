"""What networks read: films, masks and labels as a batch of tensors."""

from __future__ import annotations

import numpy as np
import torch

Batch = dict[
    str, torch.Tensor
]  # film (b, 1, s, s) float32; mask (b, 1, s, s) float32 0/1; label (b,) float32


def batch_item(film: np.ndarray, mask: np.ndarray, row: int, label: bool) -> Batch:
    """One film of a batch.

    Args:
        film: (s, s) float32.
        mask: (s, s), 0 or 1.
        row: Where the film lies in its set.
        label: Whether it is positive.
    """
    return {
        "film": torch.from_numpy(film)[None],
        "mask": torch.from_numpy(mask.astype(np.float32, copy=False))[None],
        "label": torch.tensor(float(label)),
        "row": torch.tensor(row),
    }
