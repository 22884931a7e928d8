"""What the command line of `run.sh`, or of a phase's `train.sh`, asks for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.command_line import Request
from common.paths import REPOSITORY, shown
from common.pipeline.planned_stages import WHOLE, PlannedStage, planned_stages
from common.pipeline.shared_flags import divide, numbers_of_several, table_of_flags

_USAGE = "usage: run.sh [GPU] [--check | --status | --help] [FLAGS]"
_FLAGS = """Flags, by the steps that take them; each script's own --help explains its flags:
  0 common/prepare.sh, 1.1 to 2.2 and 2.4 train.sh, 2.3 get_thresholds.sh, 3.1 inference.sh, 3.2 bootstrap.py
"""


@dataclass(frozen=True)
class Asked:
    """A plan, and what is to be done with it.

    Attributes:
        phase: Folder of the trainings to run; WHOLE: everything.
        stages: The stages, in order.
        parsed: The options of each, by its key.
        words: The command line of each, by its key.
        gpu: The GPU argument.
        modes: Those of `--check` and `--status` that were given.
        again: The command that asks for the work, as it can be typed from here.
        notes: Lines on flags that may reach further than was meant.
    """

    phase: str
    stages: Sequence[PlannedStage]
    parsed: dict[str, Any]
    words: Mapping[str, Sequence[str]]
    gpu: str
    modes: Sequence[str]
    again: str
    notes: Sequence[str]

    @classmethod
    def of(cls, words: Sequence[str]) -> Asked:
        """What these words ask for, in which `launch.sh` has put the GPU, and a phase's script its folder.

        Raises:
            Refusal: A flag that no stage has, or a value that one of them could not use.
        """
        words = list(words)
        phase, gpu = _taken(words, "--phase") or WHOLE, _taken(words, "--gpu") or "0"
        modes = [word for word in words if word in ("--check", "--status")]
        words = [word for word in words if word not in modes]
        stages = planned_stages(phase)
        each = divide(words, stages)
        parsed = {stage.key: stage.parse(gpu, each[stage.key]) for stage in stages}
        script = REPOSITORY / ("run.sh" if phase == WHOLE else f"{phase}/train.sh")
        again = shlex.join(["bash", shown(script), *([gpu] if gpu != "0" else []), *words])
        return cls(phase, stages, parsed, each, gpu, modes, again, numbers_of_several(words, stages))

    @property
    def first(self) -> Request:
        """What is asked of the first training, in which all flags are that hold for all."""
        return next(request for request in self.parsed.values() if isinstance(request, Request))

    @property
    def students(self) -> bool:
        """Whether students are to be trained, which are in no plan."""
        return any(stage.training and stage.training.teachers for stage in self.stages)

    @property
    def sources(self) -> list[str]:
        """Keys of the sources whose films the trainings need."""
        return list(dict.fromkeys(stage.training.source for stage in self.stages if stage.training))


def manual(description: str, words: Sequence[str]) -> str:
    """What `--help` prints."""
    stages = planned_stages(_taken(list(words), "--phase") or WHOLE)
    return "\n".join([_USAGE, "", description.strip(), "", _FLAGS, table_of_flags(stages)])


def _taken(words: list[str], flag: str) -> str | None:
    """The value of a flag, the last one where it is given twice; the words lose it."""
    value = None
    while flag in words[:-1]:
        place = words.index(flag)
        value = words[place + 1]
        del words[place : place + 2]
    return value
