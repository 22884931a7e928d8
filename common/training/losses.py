"""What training minimises."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from common.recipes.recipe import Recipe


class TaskLoss(nn.Module):
    """Weighted Dice loss and cross-entropy of the masks, plus, for classification, that of the label.

    Dice is MONAI's: softmax, both channels, each film on its own, then the mean over all films of a batch or
    over the positives only: that of an empty mask says how little is found, and nothing of a lesion. (Where a
    batch is computed in pieces, the positives of each piece count as much as those of another.) The binary
    cross-entropy of a pixel is that of the difference of its two logits, whose sigmoid the softmax is.

    What a student's teachers say is mixed into the target of the cross-entropy of its task: the same as a
    weighted sum of the cross-entropies against both (Hinton et al., arXiv 1503.02531, at temperature 1).

    Args:
        recipe: Recipe with the weights.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        from monai.losses import DiceLoss  # takes seconds, which a refusal need not wait

        self.recipe = recipe
        self.dice = DiceLoss(softmax=True, to_onehot_y=True)

    def forward(
        self,
        output: tuple[torch.Tensor, torch.Tensor | None],
        mask: torch.Tensor,
        label: torch.Tensor,
        said: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: Mask logits (b, 2, s, s), film logits (b,) or None.
            mask: (b, 1, s, s) float32, 0 or 1.
            label: (b,) float32, 0 or 1.
            said: What teachers say, 0-1: the map, (b, 1, s, s), where only masks are learnt, else the
                probability, (b,); None: nobody teaches.
        """
        # In float32: fp16 ends at 65,504, and Dice adds up 512 x 512 pixels.
        masks, logits = output[0].float(), output[1]
        loss = self.recipe.dice_weight * self._dice(masks, mask, label)
        if self.recipe.bce_weight:
            pixels = self._mixed(mask, said if logits is None else None)
            difference = masks[:, 1:] - masks[:, :1]
            loss = loss + self.recipe.bce_weight * binary_cross_entropy_with_logits(difference, pixels)
        if logits is not None:
            films = self._mixed(label, said)
            loss = loss + binary_cross_entropy_with_logits(logits.float(), films)
        return loss

    def _mixed(self, truth: torch.Tensor, said: torch.Tensor | None) -> torch.Tensor:
        return truth if said is None else truth.lerp(said, self.recipe.soft_share)

    def _dice(self, masks: torch.Tensor, mask: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        if self.recipe.dice_films == "all":
            return self.dice(masks, mask)
        positive = label > 0
        if not positive.any():
            return 0 * masks.sum()  # a loss of which every weight has a gradient
        return self.dice(masks[positive], mask[positive])
