"""The moving average of a network's weights, which is steadier than any of its last steps."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import AveragedModel

from common.networks.unet import PneumothoraxNet


def moving_average(net: PneumothoraxNet, decay: float) -> AveragedModel:
    """An average that is moved towards a network whenever `update_parameters` is called with it.

    a <- d a + (1 - d) w, after n updates with d = min(decay, (1 + n) / (10 + n)), as TensorFlow's
    ExponentialMovingAverage has it: in a short run the first weights would else count for too much.
    BatchNorm's statistics are averaged like the weights; of its count of batches the last value is kept.

    Args:
        net: Network, on its device; the average begins as a copy of it.
        decay: Largest decay, 0-1.
    """

    def averaged(average: torch.Tensor, value: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        number = int(updates)
        return torch.lerp(average, value, 1 - min(decay, (1 + number) / (10 + number)))

    return AveragedModel(net, avg_fn=averaged, use_buffers=True)
