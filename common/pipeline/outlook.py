"""What is left of a plan, checked: the inputs of every stage, also of those whose inputs are yet to be made.

Nothing is written. What only finished work can tell (its pixels, its weights) is checked by the stage itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from common.command_line import Request, Rules
from common.inference.choose_thresholds import FILES as THRESHOLD_FILES
from common.inference.choose_thresholds import are_chosen
from common.inference.peer_files import TABLE as PEER_TABLE
from common.inference.resumable_result import written_in
from common.inference.test_set import is_tested
from common.inference.trained_system import read_trained, refuse_other_films
from common.paths import SETS, result_folder, thresholds_file, workspace
from common.pipeline.planned_stages import FILMS, INFERENCE, METRICS, SOURCES, THRESHOLDS, PlannedStage
from common.preparation.film_store import PreparedSet
from common.preparation.listed_films import ListedFilms
from common.preparation.run import look_ahead as look_at_films
from common.refusal import Refusal, gather
from common.removal import refuse_foreign
from common.report.terminal import FILES as METRIC_FILES
from common.report.terminal import is_reported
from common.stages import TESTING_FOLDER, Stage
from common.statistics.plan import read_plan
from common.training.inputs import StageInputs
from common.training.inputs import look_ahead as look_at_training


@dataclass(frozen=True)
class StageOutlook:
    """One stage, and what is left of it.

    Attributes:
        stage: The stage.
        done: Whether all that it makes is there, made from the present inputs as is asked now.
        inputs: What a training stage has to do; None of another stage.
    """

    stage: PlannedStage
    done: bool
    inputs: StageInputs | None = None


@dataclass
class Outlook:
    """What is left of the stages that are looked at one after the other, in their order.

    Args:
        parsed: The options of each stage, by its key.
        devices: The devices that the trainings will compute on.
    """

    parsed: dict[str, Any]
    devices: Sequence[torch.device]
    films: dict[str, PreparedSet | ListedFilms] = field(default_factory=dict)  # by set
    _left: dict[str, StageInputs] = field(default_factory=dict)  # trainings that are looked at, by key
    _refused: set[str] = field(default_factory=set)  # trainings that could not run, by key
    _made_anew: bool = False  # whether what thresholds, inference and metrics are made from is yet to be made

    def of(self, stage: PlannedStage) -> StageOutlook:
        """Check a stage; those that it needs come before it, or are finished.

        Raises:
            Refusal: It could not run, or not as it is asked.
        """
        options = self.parsed[stage.key]
        if stage.key == FILMS:
            gather(partial(self._look_at_films, key, stage.title) for key in SOURCES)
            return StageOutlook(stage, all(isinstance(each, PreparedSet) for each in self.films.values()))
        if stage.training is not None:
            if stage.training.parent in self._refused:  # what it lacks follows from what is said of that one
                self._refused.add(stage.key)
                return StageOutlook(stage, False)
            try:
                return self._training(stage, stage.training, options)
            except Refusal:
                self._refused.add(stage.key)
                self._made_anew = True
                raise
        look: dict[str, Callable[[Any], bool]] = {
            THRESHOLDS: self._thresholds,
            INFERENCE: self._inference,
            METRICS: self._metrics,
        }
        done = look[stage.key](options)
        self._made_anew |= not done
        return StageOutlook(stage, done)

    def _look_at_films(self, key: str, needed_for: str) -> None:
        """The films of a source, which are looked at once."""
        if SETS[key][0] in self.films:
            return
        options = self.parsed.get(FILMS) or next(iter(self.parsed.values())).options
        rules = getattr(options, "rules", Rules())
        found = look_at_films(
            key,
            options.siim if key == "siim" else options.ntuh,
            options.siim_patients,
            rules if rules != Rules() else None,
            needed_for,
        )
        self.films |= found

    def _training(self, planned: PlannedStage, stage: Stage, request: Request) -> StageOutlook:
        self._look_at_films(stage.source, planned.title)
        films = self.films["siim" if stage.source == "siim" else "ntuh_train"]
        before = self._left.get(stage.parent or "")
        earlier = {run.system: run for run in before.waiting} if before else {}
        inputs = look_at_training(stage, request, films, earlier, self.devices[0], len(self.devices))
        self._left[stage.key] = inputs
        self._made_anew |= bool(inputs.waiting) and stage.source == "ntuh"
        return StageOutlook(planned, not inputs.waiting, inputs)

    def _thresholds(self, options: Any) -> bool:
        for system in options.systems:
            refuse_foreign(thresholds_file(system).parent, THRESHOLD_FILES)
        if self._made_anew:
            return False
        return all(are_chosen(each, options) for each in self._trained(options))

    def _inference(self, options: Any) -> bool:
        for system in options.systems:
            folder = result_folder(system)
            for each in (folder, folder.with_name(f"{folder.name}.partial")):
                refuse_foreign(each, written_in(each))
        if self._made_anew:
            return False
        systems, tested = self._trained(options), self.films["ntuh_test"]
        assert isinstance(tested, PreparedSet)  # else the networks would be yet to be trained
        return all(is_tested(each, tested) for each in systems)

    def _trained(self, options: Any) -> list[Any]:
        self._look_at_films("ntuh", "testing")
        systems = read_trained(options.systems, "testing", options.preset)
        films = self.films["ntuh_train"]
        for trained in systems:
            assert isinstance(films, PreparedSet)
            refuse_other_films(trained, films)
        return systems

    def _metrics(self, options: Any) -> bool:
        refuse_foreign(workspace() / TESTING_FOLDER, METRIC_FILES)
        if options.plan:
            read_plan(options.plan)
        if options.readers and not options.readers.is_file():
            raise Refusal("there is no such table of readers' calls", missing=options.readers)
        for name, folder in options.peers.items():
            if not (folder / PEER_TABLE).is_file():
                raise Refusal(f"there is no table of {name}", missing=folder / PEER_TABLE)
        return not self._made_anew and is_reported(options)


def look(
    stages: Sequence[PlannedStage], parsed: dict[str, Any], devices: Sequence[torch.device]
) -> tuple[Outlook, list[StageOutlook]]:
    """Check all stages of a plan before any of them runs.

    Raises:
        Refusal: What is missing or wrong, of all stages that could be looked at.
    """
    outlook = Outlook(parsed, devices)
    first = [outlook.of(stage) for stage in stages if stage.key == FILMS]  # the others are of these films
    return outlook, first + gather(partial(outlook.of, stage) for stage in stages if stage.key != FILMS)
