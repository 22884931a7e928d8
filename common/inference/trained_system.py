"""The ten networks of a trained system, checked to belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.inference.two_stage_rule import OperatingPoint, read_thresholds
from common.missing import refuse_missing_networks
from common.networks import weights
from common.networks.flip import FlippedNet, TrainedNet
from common.paths import shown, thresholds_file, weights_file
from common.preparation.film_store import PreparedSet
from common.refusal import Refusal
from common.stages import N_FOLDS, STAGES, THRESHOLDS_COMMAND, Stage

CLASSIFICATION, SEGMENTATION = STAGES["ntuh_classification"], STAGES["ntuh_segmentation"]
# What all folds of a task must share, and what the two tasks must share
_SAME_IN_FOLDS = ("network", "recipe", "preset", "content", "split", "lineage")
# Not the recipe, which each task has of its own, nor the lineage, which is longer in classification.
_SAME_IN_TASKS = ("network", "preset", "content", "split")


@dataclass(frozen=True)
class TrainedSystem:
    """Five folds of both models of a system.

    Attributes:
        system: `eff` or `vit`.
        image_size: Working size in pixels.
        made_from: Hashes of the ten networks, the training films and the folds; `flip`, the tasks whose
            networks average a film and its mirror image, where there are such.
        map_threshold: How the map's threshold is chosen, as in the recipe of its networks: `half` or
            `out-of-fold`.
        facts: Metadata of fold 0's classification model; the other folds' differ in the fold only.
    """

    system: str
    image_size: int
    made_from: dict[str, Any]
    map_threshold: str
    facts: dict[str, Any]
    _states: dict[str, list[weights.State]]

    @classmethod
    def of(cls, system: str, read: dict[str, list[tuple[weights.State, dict[str, Any]]]]) -> TrainedSystem:
        """A system from its networks, wherever they were read.

        Args:
            system: `eff` or `vit`.
            read: Key of each task's stage -> state and metadata (with `sha256`) of each fold, fold 0 first.

        Raises:
            Refusal: The parts do not belong together.
        """
        facts = {key: [metadata for _, metadata in folds] for key, folds in read.items()}
        _refuse_strangers(system, facts)
        first = facts[CLASSIFICATION.key][0]
        hashes = {key: [metadata["sha256"] for metadata in folds] for key, folds in facts.items()}
        made_from = {"weights": hashes, "content": first["content"], "split": first["split"]}
        if flipped := sorted(key for key, folds in facts.items() if folds[0]["recipe"].get("flip")):
            made_from["flip"] = flipped
        return cls(
            system=system,
            image_size=first["recipe"]["image_size"],
            made_from=made_from,
            map_threshold=facts[SEGMENTATION.key][0]["recipe"].get("map_threshold", "half"),
            facts=first,
            _states={key: [state for state, _ in folds] for key, folds in read.items()},
        )

    def networks(self, stage: Stage, device: torch.device) -> list[TrainedNet]:
        """The five networks of a task, fold 0 first, on the device, folded: they can only predict."""
        return list(self.each_network(stage, device))

    def each_network(self, stage: Stage, device: torch.device) -> Iterator[TrainedNet]:
        """The same, one after the other."""
        from common.networks.fuse_batchnorm import fuse_batchnorm  # imports timm: a refusal need not wait

        for fold, state in enumerate(self._states[stage.key]):
            net = weights.build(self.facts, stage.task)
            weights.load(net, state, weights_file(stage, self.system, fold))
            fuse_batchnorm(net.to(device).eval())  # eval: only there are BatchNorm's statistics fixed
            yield FlippedNet(net) if stage.key in self.made_from.get("flip", ()) else net


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
            do=f"make it again: {THRESHOLDS_COMMAND}",
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


def _read_system(system: str, preset: str | None, needed_by: str) -> TrainedSystem:
    trained = TrainedSystem.of(
        system,
        {
            stage.key: [weights.read_stage_weights(stage, system, fold, needed_by) for fold in range(N_FOLDS)]
            for stage in (SEGMENTATION, CLASSIFICATION)
        },
    )
    if preset not in (None, trained.facts["preset"]):
        raise Refusal(
            f"the {system} networks were trained with the preset {trained.facts['preset']}, not {preset}"
        )
    return trained


def _refuse_strangers(system: str, facts: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse networks that do not belong together, by the metadata of the folds of each task."""
    for stage in (SEGMENTATION, CLASSIFICATION):
        first = facts[stage.key][0]
        for fold, other in enumerate(facts[stage.key]):
            for key in _SAME_IN_FOLDS:
                if other[key] != first[key]:
                    _refuse_mixture(f"folds 0 and {fold} of the {system} {stage.weights_title}", key, stage)
    seg, cls = facts[SEGMENTATION.key][0], facts[CLASSIFICATION.key][0]
    for key in _SAME_IN_TASKS:
        if seg[key] != cls[key]:
            _refuse_mixture(f"the segmentation and classification models of {system}", key, SEGMENTATION)
    if seg["recipe"]["image_size"] != cls["recipe"]["image_size"]:
        _refuse_mixture(
            f"the segmentation and classification models of {system}", "working size", SEGMENTATION
        )
    if _ancestor(seg) != _ancestor(cls):
        _refuse_mixture(f"the segmentation and classification models of {system}", "lineage", CLASSIFICATION)


def _ancestor(metadata: dict[str, Any]) -> str | None:
    """Hash of the step 1.1 weights that a network descends from."""
    return next(
        (link["sha256"] for link in metadata["lineage"] if link["stage"] == "siim_segmentation"), None
    )


def pretraining_patients(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """What SIIM-ACR's table of patients told in the pre-training of a network; None: there was none."""
    return next((link["patient_table"] for link in metadata["lineage"] if "patient_table" in link), None)


def _refuse_mixture(who: str, key: str, stage: Stage) -> None:
    reason = {"content": "other films", "split": "other folds", "lineage": "other earlier weights"}.get(
        key, f"another {key}"
    )
    raise Refusal(
        f"{who} do not belong together",
        found=f"they were made with {reason}",
        do=f"train again what is out of date: {stage.command} --fresh",
    )
