"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable

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
    weighted sum of the cross-entropies against both (Hinton et al., arXiv 1503.02531, at temperature 1). Of a
    film without a label it is the whole target, and nothing else of the film is learned.

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
        labelled: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: Mask logits (b, 2, s, s), film logits (b,) or None.
            mask: (b, 1, s, s) float32, 0 or 1.
            label: (b,) float32, 0 or 1.
            said: What teachers say, 0-1: the map, (b, 1, s, s), where only masks are learnt, else the
                probability, (b,); None: nobody teaches.
            labelled: (b,) bool, whether `mask` and `label` say anything of a film; None: of all.
        """
        # In float32: fp16 ends at 65,504, and Dice adds up 512 x 512 pixels.
        masks, logits = output[0].float(), output[1]
        loss = self.recipe.dice_weight * self._dice(masks, mask, label, labelled)
        if self.recipe.bce_weight:
            difference = masks[:, 1:] - masks[:, :1]
            pixels = self._entropy(difference, mask, said if logits is None else None, labelled)
            loss = loss + self.recipe.bce_weight * pixels
        if logits is not None:
            loss = loss + self._entropy(logits.float(), label, said, labelled)
        return loss

    def _entropy(
        self,
        found: torch.Tensor,
        truth: torch.Tensor,
        said: torch.Tensor | None,
        labelled: torch.Tensor | None,
    ) -> torch.Tensor:
        """Mean cross-entropy of logits against truth and teachers, over all films of which either speaks."""
        if said is None:
            return _over(labelled, binary_cross_entropy_with_logits, found, truth)
        share: float | torch.Tensor = self.recipe.soft_share
        if labelled is not None:
            share = torch.where(labelled, share, 1.0).view(-1, *[1] * (truth.dim() - 1))
        return binary_cross_entropy_with_logits(found, truth.lerp(said, share))

    def _dice(
        self, masks: torch.Tensor, mask: torch.Tensor, label: torch.Tensor, labelled: torch.Tensor | None
    ) -> torch.Tensor:
        # Without a label, a film is no positive.
        return _over(labelled if self.recipe.dice_films == "all" else label > 0, self.dice, masks, mask)


def _over(
    chosen: torch.Tensor | None,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    found: torch.Tensor,
    truth: torch.Tensor,
) -> torch.Tensor:
    """A mean loss over the films that are chosen, all of them where there is no choice."""
    if chosen is None:
        return loss(found, truth)
    if not chosen.any():
        return 0 * found.sum()  # a loss of which every weight has a gradient
    return loss(found[chosen], truth[chosen])
