"""A film and its mirror image, predicted together: what the recipe's `flip` asks for."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

from common.networks.unet import PneumothoraxNet


class FlippedNet(nn.Module):
    """Takes the place of a trained network; its logits are the means over a film and its mirror image.

    Training flips every second film left to right, so that both are films as the network knows them.

    Args:
        net: Network that predicts.
    """

    def __init__(self, net: PneumothoraxNet) -> None:
        super().__init__()
        self.task, self.net = net.task, net

    def classify(self, film: torch.Tensor) -> torch.Tensor:
        """Films (b, 1, s, s) float32, 0-1 -> film logits (b,)."""
        return (self.net.classify(film) + self.net.classify(film.flip(-1))) / 2

    def forward(self, film: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Films (b, 1, s, s) float32, 0-1 -> mask logits (b, 2, s, s); film logits (b,) or None."""
        masks, logits = self.net(film)
        mirrored, others = self.net(film.flip(-1))
        return (masks + mirrored.flip(-1)) / 2, None if logits is None else (logits + others) / 2


TrainedNet: TypeAlias = PneumothoraxNet | FlippedNet
"""A network that predicts, as its recipe says."""
