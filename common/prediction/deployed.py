"""Everything that decides what a trained system says of a film, checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from common.files import canonical_json, digest
from common.inference.trained_system import TrainedSystem, operating_point, read_trained
from common.inference.two_stage_rule import OperatingPoint
from common.inference.unlike_training import TrainingLikeness

# How a film is brought to the networks (`resample.resample`, `PneumothoraxNet`): part of what a system is
PREPROCESSING = {
    "grey_scale": "DICOM PS3.3 C.11 to 8 bits, air dark",
    "geometry": "stretched by area to 1024 x 1024, then to the working size",
    "values": "0 to 1, then ImageNet mean and standard deviation, three equal channels",
}


@dataclass(frozen=True)
class Deployed:
    """A system ready to predict.

    Attributes:
        trained: Networks of the system and their metadata.
        point: Thresholds by which the system decides.
        likeness: Description of what the training films look like.
        thresholds: Content of the thresholds file that `point` and `likeness` stand in.
    """

    trained: TrainedSystem
    point: OperatingPoint
    likeness: TrainingLikeness
    thresholds: dict[str, Any]

    @classmethod
    def of_workspace(cls, system: str, needed_by: str) -> Deployed:
        """The system that was trained in this workspace.

        Raises:
            Refusal: Networks or thresholds are missing, or do not belong together.
        """
        trained = read_trained([system], needed_by)[0]
        return cls.of(trained, *operating_point(trained))

    @classmethod
    def of(cls, trained: TrainedSystem, point: OperatingPoint, thresholds: dict[str, Any]) -> Deployed:
        """A system from its networks and its thresholds file."""
        return cls(trained, point, TrainingLikeness.of_json(thresholds.get("novelty")), thresholds)

    @property
    def system(self) -> str:
        """`eff` or `vit`; `eff_student` or `vit_student`."""
        return self.trained.system

    @property
    def image_size(self) -> int:
        """Working size in pixels."""
        return self.trained.image_size

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) of all that decides a result; the same wherever the system lies."""
        return digest(
            self.system,
            canonical_json(self.trained.made_from["weights"]),
            canonical_json([*self.point.facts().values()]),
            canonical_json(self.thresholds["novelty"]),
            canonical_json(PREPROCESSING),
            *(canonical_json([flipped]) for flipped in self.trained.made_from.get("flip", [])),
        )
