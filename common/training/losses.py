"""What training minimises."""

from __future__ import annotations

import torch
from torch import nn


class TaskLoss(nn.Module):
    """Weighted Dice loss of the masks, plus, for classification, the binary cross-entropy of the label.

    Dice is MONAI's: softmax, both channels, each film on its own, then the mean.

    Args:
        dice_weight: 1 for segmentation, 0.5 for classification in the published recipe.
    """

    def __init__(self, dice_weight: float) -> None:
        super().__init__()
        from monai.losses import DiceLoss  # takes seconds, which a refusal need not wait

        self.dice_weight = dice_weight
        self.dice = DiceLoss(softmax=True, to_onehot_y=True)

    def forward(
        self,
        output: tuple[torch.Tensor, torch.Tensor | None],
        mask: torch.Tensor,
        label: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: Mask logits (b, 2, s, s), film logits (b,) or None.
            mask: (b, 1, s, s) float32, 0 or 1.
            label: (b,) float32, 0 or 1.
        """
        masks, logits = output
        # In float32: fp16 ends at 65,504, and Dice adds up 512 x 512 pixels.
        loss = self.dice_weight * self.dice(masks.float(), mask)
        if logits is not None:
            loss = loss + nn.functional.binary_cross_entropy_with_logits(logits.float(), label)
        return loss
