"""The stages from films to report, in their order: the one list that `run.sh` plans and runs.

A phase is a folder whose `train.sh` runs the trainings in it. The plan of `run.sh` is of all phases, with the
films before them and the metrics behind them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.command_line import (
    EvaluationOptions,
    PrepareOptions,
    ReportOptions,
    Rules,
    StudentOptions,
    ThresholdOptions,
    TrainOptions,
    override_type,
    parse_evaluation,
    parse_prepare,
    parse_report,
    parse_thresholds,
    parse_train,
)
from common.stages import STAGES, STUDENT_STAGES, TESTING_FOLDER, THRESHOLDS_FOLDER, Stage

WHOLE = "."  # the plan of all phases, by its folder
FILMS, THRESHOLDS, INFERENCE, METRICS = "films", "thresholds", "inference", "metrics"
SOURCES = ("siim", "ntuh")  # whose films a plan prepares
# What is meant for one stage alone, or asks for something else than its work. `run.sh` has none of them
OF_ONE_STAGE = {
    "folds",
    "fresh",
    "student",
    "write_plan",
    "check_table",
    "write_template",
    "unlabelled",
    "shard",
}


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        number: Number of its step in the tutorial, such as `1.1`; `0` prepares the films.
        key: Key of the stage in `common.stages`, or one of FILMS, THRESHOLDS, INFERENCE, METRICS.
        title: Its name in messages.
        script: The customer's script, relative to the repository.
        flags: Names of its flags, as `siim_patients`.
        training: The training stage; None: it trains nothing.
    """

    number: str
    key: str
    title: str
    script: str
    flags: frozenset[str]
    training: Stage | None = None

    @property
    def takes_gpu(self) -> bool:
        """Whether its script takes the GPU argument."""
        return self.key not in (FILMS, METRICS)

    def parse(self, gpu: str, words: Sequence[str]) -> Any:
        """The options that its script would read from these words, refused as the script refuses them.

        Returns:
            A `Request` of a training, else the dataclass of the script's options.

        Raises:
            Refusal: A value that the stage could not use. (What is no value at all is tyro's exit 2.)
        """
        words = ["--gpu", gpu, *words] if self.takes_gpu else list(words)
        if self.training is not None:
            return parse_train(self.training, self.title, words)
        return _PARSERS[self.key](self.title, words)


_PARSERS: dict[str, Callable[[str, Sequence[str]], Any]] = {
    FILMS: parse_prepare,
    THRESHOLDS: parse_thresholds,
    INFERENCE: parse_evaluation,
    METRICS: parse_report,
}


def _names(*kinds: type) -> frozenset[str]:
    return frozenset(item.name for kind in kinds for item in dataclasses.fields(kind)) - {"gpu", "check"}


def _training(number: str, stage: Stage) -> PlannedStage:
    flags = _names(StudentOptions if stage.teachers else TrainOptions, override_type(stage))
    return PlannedStage(number, stage.key, stage.title, f"{stage.folder}/train.sh", flags, stage)


def planned_stages(phase: str = WHOLE) -> tuple[PlannedStage, ...]:
    """The stages of a plan, in order.

    Args:
        phase: Folder of the trainings to run, such as `step1_pretraining`; WHOLE: all from films to report.
    """
    numbers = dict(zip(STAGES, ("1.1", "1.2", "2.1", "2.2"), strict=True))
    numbers |= dict.fromkeys(STUDENT_STAGES, "2.4")
    if phase != WHOLE:
        every = (STAGES | STUDENT_STAGES).items()
        inside = [(key, stage) for key, stage in every if stage.folder.rpartition("/")[0] == phase]
        return tuple(_training(numbers[key], stage) for key, stage in inside)
    prepare, thresholds, inference = map(_names, (PrepareOptions, ThresholdOptions, EvaluationOptions))
    stages = (
        PlannedStage("0", FILMS, "films", "common/prepare.sh", (prepare - {"rules"}) | _names(Rules)),
        *(_training(numbers[key], stage) for key, stage in STAGES.items()),
        PlannedStage("2.3", THRESHOLDS, "thresholds", f"{THRESHOLDS_FOLDER}/get_thresholds.sh", thresholds),
        PlannedStage("3.1", INFERENCE, "inference", f"{TESTING_FOLDER}/inference.sh", inference),
        PlannedStage("3.2", METRICS, "metrics", f"{TESTING_FOLDER}/bootstrap.py", _names(ReportOptions)),
    )
    return tuple(dataclasses.replace(stage, flags=stage.flags - OF_ONE_STAGE) for stage in stages)
