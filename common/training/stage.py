"""One training stage: check its inputs, assemble, fit, export. The four `train.py` differ by one word."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import artefacts
from common.artefacts import N_FOLDS, STAGES, Stage, run_name, shown, weights_file
from common.config import Recipe, Request, parse_train
from common.data.dataset import EpochSampler, TrainingFilms, training_loader
from common.data.preparation import PREPARE_COMMAND, open_prepared
from common.data.store import PreparedSet
from common.evaluation.figures import curves_picture
from common.evaluation.predict import Predictor
from common.models import weights
from common.models.unet import MEAN, STD, PneumothoraxNet
from common.refusal import Refusal
from common.runtime import choose_device, seed_torch, set_deterministic
from common.training.engine import fit

METRIC = {"seg": "Dice", "cls": "AUROC"}


@dataclass(frozen=True)
class Run:
    """One network to train: its data, its first weights and its recipe.

    Attributes:
        fold: Held-out fold; None in pre-training.
        parent: State and metadata of the weights it starts from; None: ImageNet or random.
        expected: The metadata its weights file will have, but for the result.
    """

    stage: Stage
    system: str
    fold: int | None
    recipe: Recipe
    parent: tuple[weights.State, dict[str, Any]] | None
    expected: dict[str, Any]

    @property
    def name(self) -> str:
        return run_name(self.stage, self.system, self.fold)

    @property
    def folder(self) -> Path:
        return artefacts.run_folder(self.stage, self.system, self.fold)

    @property
    def file(self) -> Path:
        return weights_file(self.stage, self.system, self.fold)


def train(key: str, description: str) -> None:
    """Run a training stage from the command line.

    Args:
        key: Of the stage, as in `common.artefacts.STAGES`.
        description: The script's docstring, shown by `--help`.

    Raises:
        Refusal: Its inputs are missing or do not belong together, before any work.
    """
    stage = STAGES[key]
    request = parse_train(stage, description)
    device = choose_device(request.options.gpu)
    set_deterministic(device)
    parents = {system: _read_parent(stage, system) for system in request.options.system}
    imagenet = {
        system: weights.find_imagenet(request.network(system).encoder, request.options.imagenet)
        for system in request.options.system
        if _wants_imagenet(stage, system, request)
    }
    for system in parents:
        _refuse_unwritable(weights_file(stage, system))
    name = "siim" if stage.source == "siim" else "ntuh_train"
    source = request.options.siim if stage.source == "siim" else request.options.ntuh
    prepared = open_prepared(name, source, stage.title)
    folds = (None,) if stage.source == "siim" else request.options.folds
    runs = [
        _plan(stage, system, fold, request, parents[system], prepared) for system in parents for fold in folds
    ]
    waiting = [run for run in runs if request.options.fresh or not _finished(run)]
    for run in waiting:
        _refuse_too_few(run, prepared)
    workers = request.options.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else 4
    for run in waiting:
        _train(run, imagenet.get(run.system), prepared, device, workers)
    _summary(runs)


def _read_parent(stage: Stage, system: str) -> tuple[weights.State, dict[str, Any]] | None:
    if stage.parent is None:
        return None
    return weights.read_stage_weights(STAGES[stage.parent], system, None, stage.title)


def _wants_imagenet(stage: Stage, system: str, request: Request) -> bool:
    finished = weights_file(stage, system).is_file() and not request.options.fresh
    return stage.parent is None and not finished and request.network(system).initial_weights == "imagenet"


def _refuse_unwritable(path: Path) -> None:
    """A week of training must not end at a folder that cannot be written."""
    with artefacts.whole_file(path.with_name(".writable")) as temporary:
        temporary.touch()
    path.with_name(".writable").unlink(missing_ok=True)


def _plan(
    stage: Stage,
    system: str,
    fold: int | None,
    request: Request,
    parent: tuple[weights.State, dict[str, Any]] | None,
    prepared: PreparedSet,
) -> Run:
    recipe = request.recipe(stage, system)
    if parent is None:
        network = weights.network_facts(request.network(system))
        lineage: list[dict[str, Any]] = []
    else:
        metadata = parent[1]
        if request.options.encoder not in (None, metadata["network"]["encoder"]):
            raise Refusal(
                f"--encoder {request.options.encoder}: {stage.title} takes its network from earlier weights",
                found=metadata["network"]["encoder"],
                do="choose the encoder in step 1.1",
            )
        network = metadata["network"]
        if "image_size" not in request.changes:
            recipe = dataclasses.replace(recipe, image_size=metadata["recipe"]["image_size"])
        if metadata["preprocessing"]["replace_saturated"] != prepared.replace_saturated:
            with_or_without = "without" if prepared.replace_saturated else "with"
            raise Refusal(
                f"{stage.title}: the earlier weights were trained {with_or_without} --replace-saturated",
                do=f"prepare SIIM-ACR and NTUH films by the same rules: {PREPARE_COMMAND}",
            )
        own = {key: metadata[key] for key in ("stage", "sha256", "content", "split")}
        lineage = [*metadata["lineage"], own]
        if stage.source == metadata["source"] and own["split"] != prepared.split:
            raise Refusal(
                f"{stage.title} must hold out the films that {STAGES[stage.parent].title} held out",
                found="the films were prepared anew since",
                do=f"train it again: {STAGES[stage.parent].command} --fresh",
            )
    expected = {
        "stage": stage.key,
        "system": system,
        "fold": fold,
        "task": stage.task,
        "source": stage.source,
        "preset": request.options.preset,
        "network": network,
        "recipe": _plain(dataclasses.asdict(recipe)),
        "preprocessing": {
            "mean": list(MEAN),
            "std": list(STD),
            "range": [0, 1],
            "channels": 3,
            "replace_saturated": prepared.replace_saturated,
        },
        "content": prepared.content,
        "split": prepared.split,
        "lineage": lineage,
    }
    return Run(stage, system, fold, recipe, parent, expected)


def _plain(value: Any) -> Any:
    """Tuples as lists, so that what is written equals what is read back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _finished(run: Run) -> bool:
    """Whether the run's weights are there.

    Raises:
        Refusal: They are, but were made otherwise than is asked now.
    """
    metadata = weights.read_metadata(run.file)
    if metadata is None:
        if run.file.exists():
            raise Refusal(f"{shown(run.file)} is damaged", do="train it again: add --fresh")
        return False
    # the start (ImageNet's hash) is known only once it is loaded: its kind is part of `network`
    made = {key: metadata.get(key) for key in run.expected}
    made["lineage"] = [link for link in made["lineage"] or [] if link["stage"] != "start"]
    asked = run.expected | {"lineage": [link for link in run.expected["lineage"] if link["stage"] != "start"]}
    if differences := _differences(made, asked):
        raise Refusal(
            f"{shown(run.file)} was made otherwise than is asked now",
            differs="; ".join(differences),
            do="ask for the same, or train again and replace it: add --fresh",
        )
    print(f"{run.name}: finished before, kept (train again: --fresh)")
    return True


def _differences(made: Any, asked: Any, path: str = "") -> list[str]:
    """`recipe.epochs: 20 -> 3` for each value that differs."""
    if isinstance(made, dict) and isinstance(asked, dict):
        keys = sorted({*made, *asked})
        return [
            line
            for key in keys
            for line in _differences(made.get(key), asked.get(key), f"{path}.{key}" if path else key)
        ]
    if made == asked:
        return []
    if path in ("content", "split", "lineage"):
        return [{"lineage": "other earlier weights"}.get(path, "other films")]
    return [f"{path}: {made} -> {asked}"]


def _rows(run: Run, prepared: PreparedSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the positive and negative training films, and of the validation films."""
    held_out = prepared.part == (1 if run.fold is None else run.fold)
    positive = prepared.has_mask
    validation = held_out & positive if run.stage.task == "seg" else held_out
    return (
        np.flatnonzero(~held_out & positive),
        np.flatnonzero(~held_out & ~positive),
        np.flatnonzero(validation),
    )


def _refuse_too_few(run: Run, prepared: PreparedSet) -> None:
    positives, negatives, _ = _rows(run, prepared)
    films = len(positives) if run.stage.task == "seg" else len(positives) + len(negatives)
    batch, drawn = run.recipe.batch_size, run.recipe.films_per_epoch
    if films < batch or (drawn and drawn < batch):
        raise Refusal(
            f"{run.name}: fewer training films than one batch",
            found=f"{films} films"
            + (f", {drawn} drawn an epoch" if drawn else "")
            + f"; a batch has {batch}",
            do="bring more films, or lower --batch-size",
        )


def _first_network(run: Run, imagenet: Path | None) -> tuple[PneumothoraxNet, list[dict[str, Any]]]:
    """The network with its first weights, and the lineage up to them."""
    seed_torch(run.recipe.seed)
    lineage = run.expected["lineage"]
    net = weights.build(run.expected)
    if run.parent is not None:
        weights.load(net, run.parent[0], weights_file(STAGES[run.stage.parent], run.system))
        return net, lineage
    start: dict[str, Any] = {"stage": "start", "kind": run.expected["network"]["initial_weights"]}
    if start["kind"] == "imagenet":
        encoder = run.expected["network"]["encoder"]
        start["sha256"] = weights.load_imagenet(net, encoder, imagenet)
    return net, [start, *lineage]


def _train(run: Run, imagenet: Path | None, prepared: PreparedSet, device: Any, workers: int) -> None:
    begun = time.monotonic()
    recipe = run.recipe
    net, lineage = _first_network(run, imagenet)
    positives, negatives, validation = _rows(run, prepared)
    sampler = EpochSampler(positives, negatives, recipe.batch_size, recipe.films_per_epoch, recipe.seed)
    films = TrainingFilms(prepared, recipe.image_size, recipe.seed, recipe.augmentation)
    print(
        f"{run.name}: {len(positives)} positive"
        + (f" and {len(negatives)} negative" if run.stage.task == "cls" else "")
        + f" films, {len(validation)} for validation, {recipe.epochs} epochs of {len(sampler)} steps of "
        f"{recipe.batch_size} at {recipe.image_size} px, {weights.parameters(net) / 1e6:.1f} M parameters",
        flush=True,
    )
    shutil.rmtree(run.folder, ignore_errors=True)
    metadata = run.expected | {"lineage": lineage}
    artefacts.write_json(run.folder / "config.json", metadata)
    predictor = Predictor(
        prepared, recipe.image_size, device, recipe.precision, workers, 2 * recipe.batch_size
    )
    best, log = fit(
        net.to(device),
        training_loader(films, sampler, workers, pin=device.type == "cuda"),
        sampler,
        lambda trained: predictor.validation_score(trained, validation),
        recipe,
        device,
        run.folder,
        run.name,
    )
    metric = METRIC[run.stage.task]
    curves_picture(run.folder / "curves.png", f"{run.name} (validation n = {len(validation)})", log, metric)
    result = {"metric": metric, "score": best.score, "epoch": best.epoch, "validation_films": len(validation)}
    weights.save_weights(run.file, best.state, metadata | {"result": result, "computed_on": device.type})
    print(
        f"{run.name}: {metric} {best.score:.3f} at epoch {best.epoch}, {time.monotonic() - begun:.0f} s "
        f"-> {shown(run.file)}",
        flush=True,
    )


def _summary(runs: list[Run]) -> None:
    """What now lies where."""
    print(f"\n{runs[0].stage.title} is finished. Validation scores (each epoch was chosen by them):")
    for run in runs:
        result = weights.read_metadata(run.file)["result"]
        fold = "" if run.fold is None else f"fold {run.fold} of 0-{N_FOLDS - 1}  "
        print(
            f"  {run.system}  {fold}{result['metric']} {result['score']:.3f}  "
            f"n = {result['validation_films']}  epoch {result['epoch']}"
        )
    print(f"  weights: {shown(runs[0].file.parent)}    logs and curves: {shown(runs[0].folder.parent)}\n")
