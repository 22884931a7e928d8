"""The systems, the folds, the training stages, and the commands and folders of all steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

System = Literal["eff", "vit"]
Tested = Literal["eff", "vit", "eff_student", "vit_student"]  # a student is a system of its own
SYSTEMS: tuple[System, ...] = ("eff", "vit")
STUDENTS: dict[str, System] = {
    "eff_student": "eff",
    "vit_student": "vit",
}  # whose teachers are of that system
N_FOLDS = 5


@dataclass(frozen=True)
class Stage:
    """One of the four training stages, or of the two in which students learn from what these have left.

    Attributes:
        title: Name of the stage in messages.
        folder: Folder of its scripts and results, relative to the repository and the workspace.
        task: `seg` or `cls`.
        source: `siim` or `ntuh`.
        parent: Key of the stage whose weights it starts from; None: ImageNet.
        teachers: Key of the stage whose networks teach it; None: it learns from the masks and labels alone.
    """

    key: str
    title: str
    folder: str
    task: str
    source: str
    parent: str | None
    teachers: str | None = None

    @property
    def command(self) -> str:
        return f"cd {self.folder} && bash train.sh"

    @property
    def weights_title(self) -> str:
        whose = "student's" if self.teachers else {"siim": "SIIM-ACR", "ntuh": "NTUH"}[self.source]
        return f"{whose} {'segmentation' if self.task == 'seg' else 'classification'} weights"


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
STUDENT_STAGES = {
    stage.key: stage
    for stage in (
        Stage(
            "student_segmentation",
            "student segmentation",
            "step2_ntuh_training/student/segmentation",
            "seg",
            "ntuh",
            "siim_segmentation",
            "ntuh_segmentation",
        ),
        Stage(
            "student_classification",
            "student classification",
            "step2_ntuh_training/student/classification",
            "cls",
            "ntuh",
            "siim_classification",
            "ntuh_classification",
        ),
    )
}


def stages_of(system: str) -> tuple[Stage, Stage]:
    """The stages that make the segmentation and the classification networks of `eff`, `eff_student` ..."""
    if system in STUDENTS:
        return STUDENT_STAGES["student_segmentation"], STUDENT_STAGES["student_classification"]
    return STAGES["ntuh_segmentation"], STAGES["ntuh_classification"]


def student_of(system: str) -> str:
    """Name of the student that learns from a system."""
    return next(student for student, teachers in STUDENTS.items() if teachers == system)


def command_of(command: str, system: str) -> str:
    """A command that makes something of a system, with the flag by which it makes a student's."""
    return f"{command} --student" if system in STUDENTS else command


def folds_of(system: str) -> tuple[int | None, ...]:
    """Folds of the networks by which a system predicts; None: trained on all films, as a student is."""
    return (None,) if system in STUDENTS else tuple(range(N_FOLDS))


THRESHOLDS_FOLDER = "step2_ntuh_training/get_thres"
THRESHOLDS_COMMAND = f"cd {THRESHOLDS_FOLDER} && bash get_thresholds.sh"
TESTING_FOLDER = "step3_testing/testing"
INFERENCE_COMMAND = f"cd {TESTING_FOLDER} && bash inference.sh"
BOOTSTRAP_COMMAND = f"cd {TESTING_FOLDER} && python bootstrap.py"
PREPARE_COMMAND = "bash common/prepare.sh"
PREDICTION_FOLDER = "step3_testing/prediction"
EXPORT_COMMAND = f"cd {PREDICTION_FOLDER} && bash export.sh"
LISTENER_FOLDER = f"{PREDICTION_FOLDER}/listener"
READING_FOLDER = "step3_testing/reading"
