"""Five folds as one model: the mean over the folds of what each predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from common.networks.flip import TrainedNet

if TYPE_CHECKING:
    from common.networks.openvino_backend import AcceleratedNets

Nets: TypeAlias = "Sequence[TrainedNet] | Sequence[AcceleratedNets]"
"""One network of each fold; or `AcceleratedNets`, which are all folds in one."""


def fold_probabilities(nets: Nets, film: torch.Tensor) -> torch.Tensor:
    """Films (b, 1, s, s) -> probability of pneumothorax by each fold, (b, folds) float32.

    Args:
        nets: Classification networks.
        film: (b, 1, s, s) float32 grey levels, 0-1.
    """
    # A network gives a value a film, `AcceleratedNets` one a fold: as columns they are the same.
    logits = [net.classify(film).float().view(film.shape[0], -1) for net in nets]
    return torch.cat(logits, dim=1).sigmoid()


def mean_map(nets: Nets, film: torch.Tensor) -> torch.Tensor:
    """Films (b, 1, s, s) -> mean over the folds of the softmax map of pneumothorax, (b, s, s) float32.

    Args:
        nets: Networks of either task.
        film: (b, 1, s, s) float32 grey levels, 0-1.
    """
    folds = [fold for net in nets for fold in net(film)[0].split(2, dim=1)]
    # The mean of the maps, not of the logits: one fold that is very sure must not outvote four.
    return torch.stack([fold.float().softmax(dim=1)[:, 1] for fold in folds]).mean(dim=0)
