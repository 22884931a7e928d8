"""System + task -> network: a U-Net on a timm encoder, with a head on the encoder for classification."""

from __future__ import annotations

import torch
from torch import nn

from common.recipes.recipe import Network
from common.refusal import Refusal

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
CLASSES = 2  # background, pneumothorax


class PneumothoraxNet(nn.Module):
    """The network of one system and task.

    Args:
        network: Numbers of encoder and decoder.
        task: `seg`: masks; `cls`: masks and one logit a film.

    Raises:
        Refusal: timm has no such encoder, or it cannot carry a U-Net.
    """

    mean: torch.Tensor  # buffers, (1, 3, 1, 1) float32
    std: torch.Tensor

    def __init__(self, network: Network, task: str) -> None:
        super().__init__()
        from common.networks.libraries import smp  # takes seconds, which a refusal need not wait
        from common.networks.memory_traffic import spare_memory_traffic  # imports it, too

        head = {"classes": 1, "pooling": "avg", "dropout": network.head_dropout} if task == "cls" else None
        try:
            self.unet = smp.Unet(
                f"tu-{network.encoder}",
                encoder_weights=None,  # `tu-` encoders would fetch them; ours come through `weights.py`
                encoder_depth=network.encoder_depth,
                decoder_channels=network.decoder_channels,
                classes=CLASSES,
                aux_params=head,
                **network.encoder_args,
            )
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise Refusal(f"no network can be built on the encoder {network.encoder}", found=error) from error
        spare_memory_traffic(self.unet)
        self.task = task
        # Not persistent: constants of the program, which a weights file has in its metadata.
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        # a training step is 1.2 to 1.4 times as fast on a CPU, and a GPU's mixed precision wants it
        self.to(memory_format=torch.channels_last)

    def _input(self, film: torch.Tensor) -> torch.Tensor:
        """(b, 1, s, s) in 0-1 -> three equal channels, normalised."""
        return (film - self.mean) / self.std

    def forward(self, film: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Films (b, 1, s, s) float32, 0-1 -> mask logits (b, 2, s, s); film logits (b,) or None."""
        features = self.features(film)
        return self.masks(features), None if self.task == "seg" else self.logits(features)

    def classify(self, film: torch.Tensor) -> torch.Tensor:
        """Films (b, 1, s, s) float32, 0-1 -> film logits (b,), without running the decoder."""
        return self.logits(self.features(film))

    def features(self, film: torch.Tensor) -> list[torch.Tensor]:
        """Films (b, 1, s, s) float32, 0-1 -> (b, channels, side, side) at each of its scales."""
        return self.unet.encoder(self._input(film))

    def masks(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Features -> mask logits (b, 2, s, s)."""
        return self.unet.segmentation_head(self.unet.decoder(features))

    def logits(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Features -> film logits (b,), of a classification network."""
        return self.unet.classification_head(features[-1]).squeeze(1)
