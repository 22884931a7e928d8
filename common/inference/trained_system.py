"""The networks of a trained system, checked to belong together: ten of an ensemble, two of a student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.inference.two_stage_rule import OperatingPoint, read_thresholds
from common.memory import ANOTHER_DEVICE, enough_memory
from common.missing import refuse_missing_networks
from common.networks import weights
from common.networks.flip import FlippedNet, TrainedNet
from common.networks.unet import PneumothoraxNet
from common.paths import shown, thresholds_file, weights_file
from common.preparation.film_store import PreparedSet
from common.refusal import Refusal
from common.stages import (
    N_FOLDS,
    PREPARE_COMMAND,
    STAGES,
    STUDENTS,
    THRESHOLDS_COMMAND,
    Stage,
    command_of,
    folds_of,
    stages_of,
)

CLASSIFICATION, SEGMENTATION = STAGES["ntuh_classification"], STAGES["ntuh_segmentation"]
# What all folds of a task must share, and what the two tasks must share
_SAME_IN_FOLDS = ("network", "recipe", "preset", "content", "split", "lineage", "unlabelled")
# Not the recipe, which each task has of its own, nor the lineage, which is longer in classification.
_SAME_IN_TASKS = ("network", "preset", "content", "split")


@dataclass(frozen=True)
class TrainedSystem:
    """The networks of both tasks of a system: five folds of each; of a student, one.

    Attributes:
        system: `eff` or `vit`; `eff_student` or `vit_student`.
        image_size: Working size in pixels.
        made_from: Hashes of the networks, the training films and the folds; `flip`, the tasks whose
            networks average a film and its mirror image, where there are such; of a student, `teachers`, and
            by task the `unlabelled` films that it learnt from, where there were any.
        map_threshold: How the map's threshold is chosen, as in the recipe of its networks: `half` or
            `out-of-fold`.
        facts: Metadata of the first classification model; the other folds' differ in the fold only.
    """

    system: str
    image_size: int
    made_from: dict[str, Any]
    map_threshold: str
    facts: dict[str, Any]
    _states: dict[str, list[weights.State]]  # by task
    _facts: dict[str, list[dict[str, Any]]]  # by task

    @classmethod
    def of(cls, system: str, read: dict[str, list[tuple[weights.State, dict[str, Any]]]]) -> TrainedSystem:
        """A system from its networks, wherever they were read.

        Args:
            system: `eff` or `vit`; `eff_student` or `vit_student`.
            read: Key of each task's stage -> state and metadata (with `sha256`) of each fold, fold 0 first.

        Raises:
            Refusal: The parts do not belong together.
        """
        facts = {key: [metadata for _, metadata in folds] for key, folds in read.items()}
        _refuse_strangers(system, facts)
        segmentation, classification = stages_of(system)
        first = facts[classification.key][0]
        hashes = {key: [metadata["sha256"] for metadata in folds] for key, folds in facts.items()}
        made_from = {"weights": hashes, "content": first["content"], "split": first["split"]}
        if flipped := sorted(key for key, folds in facts.items() if folds[0]["recipe"].get("flip")):
            made_from["flip"] = flipped
        if system in STUDENTS:
            made_from["teachers"] = {key: folds[0]["teachers"].get("sha256") for key, folds in facts.items()}
        if learnt := {
            key: folds[0]["unlabelled"] for key, folds in facts.items() if "unlabelled" in folds[0]
        }:
            made_from["unlabelled"] = learnt
        both = (segmentation, classification)
        return cls(
            system=system,
            image_size=first["recipe"]["image_size"],
            made_from=made_from,
            map_threshold=facts[segmentation.key][0]["recipe"].get("map_threshold", "half"),
            facts=first,
            _states={stage.task: [state for state, _ in read[stage.key]] for stage in both},
            _facts={stage.task: facts[stage.key] for stage in both},
        )

    def facts_of(self, stage: Stage) -> dict[str, Any]:
        """Metadata of the first network of a stage's task."""
        return self._facts[stage.task][0]

    def networks(self, stage: Stage, device: torch.device) -> list[TrainedNet]:
        """The networks of a stage's task, fold 0 first, on the device, folded: they can only predict."""
        return list(self.each_network(stage, device))

    def each_network(self, stage: Stage, device: torch.device) -> Iterator[TrainedNet]:
        """The same, one after the other."""
        own = next(each for each in stages_of(self.system) if each.task == stage.task)
        flipped = own.key in self.made_from.get("flip", ())
        for net in self.plain_networks(stage, device, range(len(self._states[stage.task]))):
            yield FlippedNet(net) if flipped else net

    def plain_networks(
        self, stage: Stage, device: torch.device, folds: Sequence[int]
    ) -> Iterator[PneumothoraxNet]:
        """The networks of some folds one after the other, each by itself: none averages in a mirror image."""
        from common.networks.fuse_batchnorm import fuse_batchnorm  # imports timm: a refusal need not wait

        trained = [(self._states[stage.task][fold], weights_file(stage, self.system, fold)) for fold in folds]
        for net in weights.build_trained(self.facts, stage.task, trained):
            with enough_memory(f"the networks of {self.system}", device, ANOTHER_DEVICE):
                fuse_batchnorm(net.to(device).eval())  # eval: only there are BatchNorm's statistics fixed
            yield net


def read_trained(systems: Sequence[str], needed_by: str, preset: str | None = None) -> list[TrainedSystem]:
    """Read the networks of the systems asked for, before any work.

    Args:
        systems: `eff`, `vit` or both.
        needed_by: Step that needs them, for the refusal.
        preset: Preset that they must have been trained with; None: any.

    Raises:
        Refusal: Some are missing (all are listed), or they do not belong together.
    """
    for system in systems:
        refuse_missing_networks(system, needed_by)
    return [_read_system(system, preset, needed_by) for system in systems]


def operating_point(trained: TrainedSystem) -> tuple[OperatingPoint, dict[str, Any]]:
    """The thresholds that were computed from these very networks, and the whole file they stand in.

    Raises:
        Refusal: The thresholds are missing, malformed, or of other networks.
    """
    point, content = read_thresholds(trained.system)
    if content["made_from"] != trained.made_from or point.image_size != trained.image_size:
        raise Refusal(
            f"the thresholds of {trained.system} were computed from other networks or another working size",
            found=shown(thresholds_file(trained.system)),
            do=f"make it again: {command_of(THRESHOLDS_COMMAND, trained.system)}",
        )
    return point, content


def refuse_other_films(trained: TrainedSystem, prepared: PreparedSet) -> None:
    """Refuse networks that were trained on other films, or other folds, than are prepared now.

    Raises:
        Refusal: Then neither the films they did not see nor the patients they saw are known.
    """
    made_from = trained.made_from
    if (made_from["content"], made_from["split"]) != (prepared.content, prepared.split):
        raise Refusal(
            f"the {trained.system} networks were trained on other films or folds than are prepared now",
            found=shown(prepared.folder),
            do="bring back the films they were trained on, or train them again with --fresh",
        )


def refuse_unseparated(trained: TrainedSystem, tested: PreparedSet) -> None:
    """Refuse to test a student on films other than those that its unlabelled films were kept apart from.

    Raises:
        Refusal: It may have learnt from films of these patients.
    """
    for learnt in trained.made_from.get("unlabelled", {}).values():
        if learnt["apart_from"] != tested.content:
            raise Refusal(
                f"{trained.system} learnt from unlabelled films that were compared with other test films",
                found=shown(tested.folder),
                do="bring back the test films as they were; or compare with these and train it again: "
                f"{PREPARE_COMMAND} --unlabelled PATH --fresh",
            )


def _read_system(system: str, preset: str | None, needed_by: str) -> TrainedSystem:
    trained = _read_folds(system, folds_of(system), needed_by)
    if preset not in (None, trained.facts["preset"]):
        raise Refusal(
            f"the {system} networks were trained with the preset {trained.facts['preset']}, not {preset}"
        )
    return trained


def _read_folds(system: str, folds: Sequence[int | None], needed_by: str) -> TrainedSystem:
    teachers = STUDENTS.get(system, system)  # by which a student's weights are named
    return TrainedSystem.of(
        system,
        {
            stage.key: [weights.read_stage_weights(stage, teachers, fold, needed_by) for fold in folds]
            for stage in stages_of(system)
        },
    )


def read_out_of_fold(trained: TrainedSystem, needed_by: str) -> TrainedSystem:
    """The networks that predict the training films for a system, each the fold that it holds out.

    They are the networks of an ensemble itself, and the five students of a final one.

    Raises:
        Refusal: Students are missing, or have other teachers, films or recipes than the final one.
    """
    if trained.system not in STUDENTS:
        return trained
    refuse_missing_networks(trained.system, needed_by, folds=range(N_FOLDS))
    five = _read_folds(trained.system, range(N_FOLDS), needed_by)
    for stage in stages_of(trained.system):
        final, others = trained.facts_of(stage), five._facts[stage.task]
        for key in _SAME_IN_FOLDS:
            if final.get(key) != others[0].get(key):
                _refuse_mixture(f"the five and the final {trained.system} of {stage.task}", key, stage)
        hashes = final["teachers"].get("sha256", [])
        if [each["teachers"].get("sha256") for each in others] != [[teacher] for teacher in hashes]:
            _refuse_mixture(f"the five and the final {trained.system} of {stage.task}", "teachers", stage)
    return five


def _refuse_strangers(system: str, facts: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse networks that do not belong together, by the metadata of the folds of each task."""
    segmentation, classification = stages_of(system)
    for stage in (segmentation, classification):
        first = facts[stage.key][0]
        for fold, other in enumerate(facts[stage.key]):
            for key in _SAME_IN_FOLDS:
                if other.get(key) != first.get(key):
                    _refuse_mixture(f"folds 0 and {fold} of the {system} {stage.weights_title}", key, stage)
    seg, cls = facts[segmentation.key][0], facts[classification.key][0]
    both = f"the segmentation and classification models of {system}"
    for key in _SAME_IN_TASKS:
        if seg[key] != cls[key]:
            _refuse_mixture(both, key, segmentation)
    if seg["recipe"]["image_size"] != cls["recipe"]["image_size"]:
        _refuse_mixture(both, "working size", segmentation)
    if _ancestor(seg) != _ancestor(cls):
        _refuse_mixture(both, "lineage", classification)


def _ancestor(metadata: dict[str, Any]) -> str | None:
    """Hash of the step 1.1 weights that a network descends from."""
    return next(
        (link["sha256"] for link in metadata["lineage"] if link["stage"] == "siim_segmentation"), None
    )


def pretraining_patients(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """What SIIM-ACR's table of patients told in the pre-training of a network; None: there was none."""
    return next((link["patient_table"] for link in metadata["lineage"] if "patient_table" in link), None)


def _refuse_mixture(who: str, key: str, stage: Stage) -> None:
    told = {
        "content": "other films",
        "split": "other folds",
        "lineage": "other earlier weights",
        "teachers": "other teachers",
        "unlabelled": "other unlabelled films",
    }
    reason = told.get(key, f"another {key}")
    raise Refusal(
        f"{who} do not belong together",
        found=f"they were made with {reason}",
        do=f"train again what is out of date: {stage.command} --fresh",
    )
