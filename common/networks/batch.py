"""What networks read: films, masks and labels as a batch of tensors."""

from __future__ import annotations

import numpy as np
import torch

# film (b, 1, s, s) float32; mask (b, 1, s, s) float32 0/1; label (b,) float32; row (b,) int64
# Where films without labels are among them also labelled (b,) bool: of the others mask and label are 0
Batch = dict[str, torch.Tensor]


def batch_item(film: np.ndarray, mask: np.ndarray, row: int, label: bool) -> Batch:
    """One film of a batch.

    Args:
        film: (s, s) float32 grey levels, 0-1.
        mask: (s, s) mask of the pneumothorax, 0 or 1.
        row: Row of the film in its set.
        label: Whether the film is positive.
    """
    return {
        "film": torch.from_numpy(film)[None],
        "mask": torch.from_numpy(mask.astype(np.float32, copy=False))[None],
        "label": torch.tensor(float(label)),
        "row": torch.tensor(row),  # the loader does not say which film it was
    }
