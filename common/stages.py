"""The systems, the folds, the four training stages, and the commands and folders of all steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

System = Literal["eff", "vit"]
SYSTEMS: tuple[System, ...] = ("eff", "vit")
N_FOLDS = 5


@dataclass(frozen=True)
class Stage:
    """One of the four training stages.

    Attributes:
        title: Name of the stage in messages.
        folder: Folder of its scripts and results, relative to the repository and the workspace.
        task: `seg` or `cls`.
        source: `siim` or `ntuh`.
        parent: Key of the stage whose weights it starts from; None: ImageNet.
    """

    key: str
    title: str
    folder: str
    task: str
    source: str
    parent: str | None

    @property
    def command(self) -> str:
        return f"cd {self.folder} && bash train.sh"

    @property
    def weights_title(self) -> str:
        return {"siim": "SIIM-ACR", "ntuh": "NTUH"}[self.source] + (
            " segmentation weights" if self.task == "seg" else " classification weights"
        )


STAGES = {
    stage.key: stage
    for stage in (
        Stage(
            "siim_segmentation",
            "SIIM-ACR segmentation",
            "step1_pretraining/step1_segmentation",
            "seg",
            "siim",
            None,
        ),
        Stage(
            "siim_classification",
            "SIIM-ACR classification",
            "step1_pretraining/step2_classification",
            "cls",
            "siim",
            "siim_segmentation",
        ),
        Stage(
            "ntuh_segmentation",
            "NTUH segmentation",
            "step2_ntuh_training/ntuh_segmentation",
            "seg",
            "ntuh",
            "siim_segmentation",
        ),
        Stage(
            "ntuh_classification",
            "NTUH classification",
            "step2_ntuh_training/ntuh_classification",
            "cls",
            "ntuh",
            "siim_classification",
        ),
    )
}
THRESHOLDS_FOLDER = "step2_ntuh_training/get_thres"
THRESHOLDS_COMMAND = f"cd {THRESHOLDS_FOLDER} && bash get_thresholds.sh"
TESTING_FOLDER = "step3_testing/testing"
INFERENCE_COMMAND = f"cd {TESTING_FOLDER} && bash inference.sh"
PREPARE_COMMAND = "bash common/prepare.sh"
PREDICTION_FOLDER = "step3_testing/prediction"
EXPORT_COMMAND = f"cd {PREDICTION_FOLDER} && bash export.sh"
LISTENER_FOLDER = f"{PREDICTION_FOLDER}/listener"
