"""Who teaches a student: what a system's networks say of the films that it draws, beside masks and labels.

A student is one network that learns from the five of its task (Hinton et al., arXiv 1503.02531): its
cross-entropies are against a mixture of the truth and of what the teachers say, here of the very view that
was drawn and augmented for it (Beyer et al., CVPR 2022;10925-10934). Its Dice is of the true mask.

Who may teach whom? Thresholds are chosen by what networks say of films that they know nothing of. The network
of fold j has learnt from every film but those of fold j, so each teacher but that of fold k has learnt from
the films of fold k, and could pass on what it knows of them. So

    student k           learns from the films outside fold k, taught by the network of fold k alone. Neither
                        has ever trained on fold k, for which it predicts: out of fold, it is honest. (Its
                        teacher's epoch was chosen on fold k, as it is in the ensemble's own thresholds.)
    the final student   learns from all training films, taught by all five: it is what is used.

What teachers say of the films that they teach is what they have learnt there: of student k all of it, of the
final student four of five. What a student is taught is thus of the same kind in both, and the thresholds that
five single-taught students choose are used with the one that five have taught, as those of five single
networks are used with their mean. The epoch of a student is not chosen: its last one is kept, since the final
student has no films left to choose by.

Films without labels, which the user may add, are of no patient of the test set or of any fold: no teacher
knows them, and no threshold is chosen by them. So all students draw them alike, each taught by its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.compute import autocast, evaluating
from common.inference.trained_system import TrainedSystem
from common.networks.ensemble import fold_probabilities, mean_map
from common.networks.unet import PneumothoraxNet
from common.recipes.recipe import Recipe
from common.refusal import Refusal
from common.stages import N_FOLDS, STAGES, Stage


def refuse_no_lesson(student: Stage, recipe: Recipe, image_size: int, unlabelled: bool = False) -> None:
    """Refuse a recipe by which a student would learn nothing from its teachers, or not what they know.

    Args:
        student: Stage of the student.
        recipe: Numbers of its run.
        image_size: Working size of the teachers in pixels.
        unlabelled: Whether there are films without labels.

    Raises:
        Refusal: It is such a recipe.
    """
    if unlabelled and not recipe.unlabelled_share:
        raise Refusal(
            f"{student.title}: none of the unlabelled films would be drawn",
            found="unlabelled_share is 0",
            do="choose --unlabelled-share above 0, or leave --unlabelled off",
        )
    if recipe.image_size != image_size:
        raise Refusal(
            f"{student.title}: a student works at the size of its teachers",
            found=f"{recipe.image_size} pixels, and {image_size} of theirs",
            do="leave --image-size off",
        )
    silent = [name for name in ("soft_share", "bce_weight") if not getattr(recipe, name)]
    if "soft_share" in silent or (student.task == "seg" and silent):
        raise Refusal(
            f"{student.title}: the student would learn nothing from its teachers",
            found=f"{silent[0]} is 0: they speak by the cross-entropies",
            do=f"choose --{silent[0].replace('_', '-')} above 0",
        )


@dataclass(frozen=True)
class Teaching:
    """Which networks of a system teach a student.

    Attributes:
        trained: System of the teachers.
        stage: Stage that trained them.
        folds: Their folds.
    """

    trained: TrainedSystem
    stage: Stage
    folds: tuple[int, ...]

    @classmethod
    def of(cls, trained: TrainedSystem, student: Stage, fold: int | None) -> Teaching:
        """Who may teach the student of a fold, or the final one (None); see the top of this file.

        Args:
            trained: System of the teachers.
            student: Stage of the student.
            fold: Fold that the student holds out.
        """
        folds = tuple(range(N_FOLDS)) if fold is None else (fold,)
        return cls(trained, STAGES[str(student.teachers)], folds)

    @property
    def facts(self) -> dict[str, Any]:
        """What the student's metadata say of its teachers."""
        hashes = self.trained.made_from["weights"][self.stage.key]
        return {
            "stage": self.stage.key,
            "folds": list(self.folds),
            "sha256": [hashes[fold] for fold in self.folds],
        }

    def teachers(self, device: torch.device, precision: str) -> Teachers:
        """The networks, on the device.

        They say what they see of a film itself, also where the system averages in its mirror image: the
        student is shown every second film mirrored, and so learns from both.
        """
        nets = list(self.trained.plain_networks(self.stage, device, self.folds))
        return Teachers(nets, device, precision)


class Teachers:
    """Trained networks that say what they find in the films of a batch.

    Args:
        nets: Networks of one task, on the device.
        device: Device to compute on.
        precision: Precision of the student's recipe: `auto` or `fp32`.
    """

    def __init__(self, nets: Sequence[PneumothoraxNet], device: torch.device, precision: str) -> None:
        self.nets, self.device, self.precision = nets, device, precision

    def say(self, film: torch.Tensor) -> torch.Tensor:
        """What they say of films, on average.

        Args:
            film: (b, 1, s, s) float32, 0-1, as the student sees them.

        Returns:
            The map, (b, 1, s, s), where they are segmentation networks, else the probability, (b,). Both are
            float32, 0-1, without a gradient.
        """
        with evaluating(*self.nets), autocast(self.device, self.precision):
            if self.nets[0].task == "seg":
                return mean_map(self.nets, film)[:, None]
            return fold_probabilities(self.nets, film).mean(dim=1)
