"""Five folds as one model: the mean over the folds of what each predicts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.models.unet import PneumothoraxNet


def fold_probabilities(nets: Sequence[PneumothoraxNet], film: torch.Tensor) -> torch.Tensor:
    """Films (b, 1, s, s) -> probability of pneumothorax by each fold, (b, folds) float32."""
    return torch.stack([net.classify(film).float().sigmoid() for net in nets], dim=1)


def mean_map(nets: Sequence[PneumothoraxNet], film: torch.Tensor) -> torch.Tensor:
    """Films (b, 1, s, s) -> mean over the folds of the softmax map of pneumothorax, (b, s, s) float32."""
    return torch.stack([net(film)[0].float().softmax(dim=1)[:, 1] for net in nets]).mean(dim=0)
