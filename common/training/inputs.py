"""What a stage was asked to do, checked before any work: its inputs, its runs, and which are left to do."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.command_line import Request, StudentOptions, TrainOptions
from common.compute import film_readers
from common.distributed import Processes
from common.hints import again
from common.inference.trained_system import TrainedSystem, read_trained, refuse_other_films
from common.networks import weights
from common.networks.imagenet import find_all_imagenet
from common.networks.unet import MEAN, STD
from common.paths import run_folder, run_name, shown, weights_file
from common.preparation.film_store import PreparedSet
from common.preparation.listed_films import ListedFilms
from common.preparation.run import open_prepared
from common.recipes.chosen import ChosenRecipe
from common.recipes.recipe import Recipe, recipe_facts
from common.refusal import Refusal
from common.removal import Written, refuse_foreign
from common.sources.siim_patients import ORIGIN, RECIPE
from common.stages import N_FOLDS, PREPARE_COMMAND, STAGES, Stage, System
from common.training.checkpoint import file_of, read_facts
from common.training.recipe_fit import keeps_size, network_of, refuse_misfit
from common.training.teachers import Teaching, refuse_no_lesson

# The checkpoint goes first: a run half of which is removed is begun anew, whatever is left of it.
RUN_FILES = Written(
    (
        "last.pt",
        "previous.pt",
        "log.csv",
        "curves.png",
        "films.png",
        "recipe.toml",
        "log.txt",
        "events.out.tfevents." + "[0-9]" * 6,  # ours; others' end with host and process
        "config.json",
    ),
    {"config.json": '"recipe"'},  # the mark by which a folder is known as a run's
)


@dataclass(frozen=True)
class Run:
    """One network to train: its data, its first weights and its recipe.

    Attributes:
        fold: Held-out fold; None in pre-training, and of the final student, which holds none out.
        parent: State and metadata of the weights it starts from; None: ImageNet or random.
        expected: Metadata that its weights file will have, but for the result.
        chosen: The recipe that it obeys, of which `recipe` is its part with the changes of flags.
        teaching: Who teaches it, where it is a student.
    """

    stage: Stage
    system: str
    fold: int | None
    recipe: Recipe
    parent: tuple[weights.State, dict[str, Any]] | None
    expected: dict[str, Any]
    chosen: ChosenRecipe
    teaching: Teaching | None = None

    @property
    def promised(self) -> dict[str, Any]:
        """What its weights will tell the stage that starts from them, but for their hash."""
        own = {} if self.chosen.file is None else {"own_recipe": self.chosen.file}
        return self.expected | own | {"sha256": ""}

    @property
    def resolved_recipe(self) -> str:
        """The text of `recipe.toml`: given back by `--recipe`, it makes the same run."""
        return self.chosen.resolved(self.stage, self.system, self.recipe, network_of(self.expected))

    @property
    def final_student(self) -> bool:
        """Whether it learns from all films and all teachers, and holds no fold out."""
        return self.teaching is not None and self.fold is None

    @property
    def name(self) -> str:
        return run_name(self.stage, self.system, self.fold)

    @property
    def folder(self) -> Path:
        return run_folder(self.stage, self.system, self.fold)

    @property
    def file(self) -> Path:
        return weights_file(self.stage, self.system, self.fold)


@dataclass(frozen=True)
class StageInputs:
    """What a stage was asked to do, checked.

    Attributes:
        runs: All runs that were asked for.
        waiting: Runs that are not finished.
        prepared: The films; of a stage that is looked ahead to, perhaps what stands for them.
        imagenet: File of each system's ImageNet weights, where they are wanted.
        workers: Number of processes that read films.
        unlabelled: Films without labels for students, where the user has given any.
    """

    runs: list[Run]
    waiting: list[Run]
    prepared: PreparedSet | ListedFilms
    imagenet: Mapping[str, Path]
    processes: Processes
    workers: int
    options: TrainOptions
    unlabelled: PreparedSet | None = None


def check_inputs(stage: Stage, request: Request, processes: Processes) -> StageInputs:
    """Check everything that can be checked before any work.

    Raises:
        Refusal: Inputs are missing, or do not belong together; what is there was made or begun otherwise.
    """
    options = request.options
    # From cheap to dear: what is missing is said before films are prepared, which takes hours.
    parents = {system: _read_parent(stage, system) for system in options.system}
    encoders: dict[str, str] = {
        system: request.network(system).encoder
        for system in options.system
        if _wants_imagenet(stage, system, request)
    }
    imagenet = find_all_imagenet(encoders, options.imagenet)
    teachers = _read_teachers(stage, options)
    if not options.check:  # which writes nothing
        for system in parents:
            _refuse_unwritable(weights_file(stage, system).parent)
    prepared = _films(stage, options, processes)
    for trained in teachers.values():
        refuse_other_films(trained, prepared)
    unlabelled = _unlabelled(stage, options, processes)
    runs = [
        _run(stage, system, fold, request, parents[system], prepared, teachers.get(system), unlabelled)
        for system in parents
        for fold in _folds(stage, options)
    ]
    waiting = [run for run in runs if options.fresh or not _finished(run)]
    for run in waiting:
        _refuse_impossible(run, prepared, processes.count)  # finished runs need no films
        if not options.fresh:
            _refuse_other_checkpoint(run)
    workers = film_readers(options.workers, processes.device)
    return StageInputs(runs, waiting, prepared, imagenet, processes, workers, options, unlabelled)


def look_ahead(
    stage: Stage,
    request: Request,
    films: PreparedSet | ListedFilms,
    earlier: Mapping[str, Run],
    device: torch.device,
    processes: int,
) -> StageInputs:
    """Check a stage before the ones that it needs are finished, as far as that can be; nothing is written.

    Args:
        stage: A stage that trains no students.
        request: What is asked of it.
        films: The prepared set, or what stands for it.
        earlier: Runs of the stage before that are still to be done, by system: what their weights will be.
        device: Device that will compute.
        processes: Number of processes that will train together.

    Returns:
        The inputs. Where the films or the weights that a run starts from are not there yet, it counts as
        not finished.

    Raises:
        Refusal: As `check_inputs`.
    """
    options = request.options
    wanted: list[System] = [system for system in options.system if _wants_imagenet(stage, system, request)]
    imagenet = find_all_imagenet(
        {system: request.network(system).encoder for system in wanted}, options.imagenet
    )
    runs, waiting = [], []
    for system in options.system:
        before = earlier.get(system)
        parent = _read_parent(stage, system) if before is None else ({}, before.promised)
        known = before is None and isinstance(films, PreparedSet)
        for fold in _folds(stage, options):
            run = _run(stage, system, fold, request, parent, films)
            runs.append(run)
            if options.fresh or not known or not _finished(run, say=lambda text: None):
                _refuse_impossible(run, films, processes)
                if known and not options.fresh:
                    _refuse_other_checkpoint(run)
                waiting.append(run)
    workers = film_readers(options.workers, device)
    return StageInputs(runs, waiting, films, imagenet, Processes(device), workers, options)


def _refuse_impossible(run: Run, prepared: PreparedSet | ListedFilms, processes: int) -> None:
    """Refuse a run that these films, so many processes, or what lies in its place do not allow."""
    _refuse_too_few(run, prepared)
    _refuse_uneven(run, processes)
    _refuse_foreign(run)


def _films(stage: Stage, options: TrainOptions, processes: Processes) -> PreparedSet:
    """The stage's films; where they are not prepared yet, the first process does it."""
    name = "siim" if stage.source == "siim" else "ntuh_train"
    source = options.siim if stage.source == "siim" else options.ntuh
    prepared = processes.first_ahead(lambda: open_prepared(name, source, stage.title, options.siim_patients))
    if processes.first and name == "siim" and prepared.patient_table is None:
        print(
            "SIIM-ACR: without a table of patients, films of one patient lie in training and in "
            f"validation, whose scores are then too good; --siim-patients FILE: {RECIPE}, from {ORIGIN}"
        )
    return prepared


def _unlabelled(stage: Stage, options: TrainOptions, processes: Processes) -> PreparedSet | None:
    """The films without labels that a student is to learn from, too, which are prepared as all others are."""
    if not isinstance(options, StudentOptions) or options.unlabelled is None:
        return None
    folder = options.unlabelled
    return processes.first_ahead(lambda: open_prepared("unlabelled", folder, stage.title))


def _folds(stage: Stage, options: TrainOptions) -> tuple[int | None, ...]:
    """The folds to train, in order; None: a network that holds none out."""
    if stage.source == "siim":
        return (None,)
    whole = stage.teachers is not None and set(options.folds) == set(range(N_FOLDS))
    return (*options.folds, None) if whole else options.folds


def _read_teachers(stage: Stage, options: TrainOptions) -> dict[str, TrainedSystem]:
    """The systems whose students are to be trained; none where the stage trains no students."""
    if stage.teachers is None:
        return {}
    # Both tasks of them: a student is of a system, which is refused where its parts do not belong together.
    found = read_trained(options.system, stage.title)
    return {trained.system: trained for trained in found}


def _read_parent(stage: Stage, system: str) -> tuple[weights.State, dict[str, Any]] | None:
    if stage.parent is None:
        return None
    return weights.read_stage_weights(STAGES[stage.parent], system, None, stage.title)


def _recorded(
    stage: Stage,
    system: str,
    parent: tuple[weights.State, dict[str, Any]] | None,
    trained: TrainedSystem | None,
) -> ChosenRecipe | None:
    """The recipe by which earlier weights go on: those of a student's teachers, else its first ones."""
    if trained and stage.teachers:
        taught_by = STAGES[stage.teachers]
        return ChosenRecipe.of_weights(trained.facts_of(taught_by), weights_file(taught_by, system, 0))
    return None if parent is None else ChosenRecipe.of_weights(parent[1], _parent_file(stage, system))


def _parent_file(stage: Stage, system: str) -> Path:
    assert stage.parent is not None
    return weights_file(STAGES[stage.parent], system)


def _wants_imagenet(stage: Stage, system: str, request: Request) -> bool:
    # An interrupted run is built from them, too, before its checkpoint is put in: they are in its lineage.
    interrupted = file_of(run_folder(stage, system)).is_file()
    finished = weights_file(stage, system).is_file() and not interrupted and not request.options.fresh
    return stage.parent is None and not finished and request.network(system).initial_weights == "imagenet"


def _refuse_unwritable(folder: Path) -> None:
    """A week of training must not end at a folder that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(
            f"cannot write {shown(folder)}", found=error.strerror or error, do="free space or mend the rights"
        ) from None


def _refuse_foreign(run: Run) -> None:
    """Refuse to write where something lies that training did not write."""
    refuse_foreign(run.folder, RUN_FILES)
    there = run.file.exists() or run.file.is_symlink()
    if there and (run.file.is_symlink() or weights.read_metadata(run.file) is None):
        raise Refusal(
            f"{shown(run.file)} would be replaced",
            found="a link" if run.file.is_symlink() else "no weights file of this project, or a damaged one",
            do="move it away",
        )


def _run(
    stage: Stage,
    system: str,
    fold: int | None,
    request: Request,
    parent: tuple[weights.State, dict[str, Any]] | None,
    prepared: PreparedSet | ListedFilms,
    trained: TrainedSystem | None = None,
    unlabelled: PreparedSet | None = None,
) -> Run:
    recorded = _recorded(stage, system, parent, trained)
    recipe, chosen = request.recipe(stage, system, recorded), request.chosen(recorded)
    if parent is None or recorded is None:
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
        refuse_misfit(stage, system, chosen, recorded, metadata)
        if "image_size" not in request.changes and keeps_size(stage, system, chosen):
            recipe = dataclasses.replace(recipe, image_size=metadata["recipe"]["image_size"])
        _refuse_other_films(stage, metadata, prepared)
        # A link a stage, by hashes: any later weights can be traced to the films that made them.
        own = {key: metadata[key] for key in ("stage", "sha256", "content", "split")}
        own |= _patients(metadata.get("patient_table"))
        lineage = [*metadata["lineage"], own]
    teaching = Teaching.of(trained, stage, fold) if trained else None
    if trained:
        recipe = dataclasses.replace(recipe, image_size=request.changes.get("image_size", trained.image_size))
        refuse_no_lesson(stage, recipe, trained.image_size, unlabelled is not None)
    # What runs are compared by: all that decides the weights, and nothing that changes only time or memory.
    expected = {
        "stage": stage.key,
        "system": system,
        "fold": fold,
        "task": stage.task,
        "source": stage.source,
        "preset": chosen.name,
        "network": network,
        "recipe": _plain(recipe_facts(_decisive(recipe, unlabelled))),
        "preprocessing": _preprocessing(prepared),
        "content": prepared.content,
        "split": prepared.split,
        **_patients(prepared.patient_table),
        "lineage": lineage,
        **({"teachers": teaching.facts} if teaching else {}),
        **({"unlabelled": _unlabelled_facts(unlabelled)} if unlabelled else {}),
    }
    return Run(stage, system, fold, recipe, parent, expected, chosen, teaching)


def _preprocessing(prepared: PreparedSet | ListedFilms) -> dict[str, Any]:
    """What becomes of a film's grey levels before a network sees them."""
    return {
        "mean": list(MEAN),
        "std": list(STD),
        "range": [0, 1],
        "channels": 3,
        "replace_saturated": prepared.replace_saturated,
    }


def _refuse_other_films(stage: Stage, metadata: dict[str, Any], prepared: PreparedSet | ListedFilms) -> None:
    """Refuse films that do not go with the earlier weights, whose metadata these are."""
    if isinstance(prepared, ListedFilms):
        return  # known once they are prepared
    # Weights that have learned from other grey levels would start from a wrong place.
    if metadata["preprocessing"]["replace_saturated"] != prepared.replace_saturated:
        with_or_without = "without" if prepared.replace_saturated else "with"
        raise Refusal(
            f"{stage.title}: the earlier weights were trained {with_or_without} --replace-saturated",
            do=f"prepare SIIM-ACR and NTUH films by the same rules: {PREPARE_COMMAND}",
        )
    # Else films that the earlier weights were trained on would choose this run's epoch.
    if stage.source == metadata["source"] and metadata["split"] != prepared.split:
        earlier = STAGES[metadata["stage"]]
        raise Refusal(
            f"{stage.title} must hold out the films that {earlier.title} held out",
            found="the films were prepared anew since",
            do=f"train it again: {earlier.command} --fresh",
        )


def _patients(table: dict[str, Any] | None) -> dict[str, Any]:
    """By which table of patients films were divided; nothing without one, as before there was any."""
    return {"patient_table": table} if table else {}


def _decisive(recipe: Recipe, unlabelled: PreparedSet | None) -> Recipe:
    """The recipe without what decides nothing: the share of unlabelled films where there are none."""
    return recipe if unlabelled else dataclasses.replace(recipe, unlabelled_share=0.0)


def _unlabelled_facts(unlabelled: PreparedSet) -> dict[str, Any]:
    """What weights record of unlabelled films: which they are, and which test films they are apart from."""
    test = unlabelled.manifest["compared_with"]["ntuh_test"]
    return {"number": unlabelled.manifest["films"], "sha256": unlabelled.content, "apart_from": test}


def _plain(value: Any) -> Any:
    """Tuples as lists, so that what is written equals what is read back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _finished(run: Run, say: Callable[[str], None] = print) -> bool:
    """Whether the run's weights are there.

    Raises:
        Refusal: The weights are there, but were made otherwise than is asked now.
    """
    if file_of(run.folder).is_file():  # interrupted, perhaps when it was trained again with --fresh
        return False
    metadata = weights.read_metadata(run.file)
    if metadata is None:
        if run.file.exists():
            raise Refusal(
                f"{shown(run.file)} is damaged, or no weights file of this project",
                do="move it away, then train again",
            )
        return False
    if differences := _differences_of_runs(metadata, run.expected):
        raise Refusal(
            f"{shown(run.file)} was made otherwise than is asked now",
            differs="; ".join(differences),
            do=f"ask for the same, or train again and replace it: {again(run.stage.command)} --fresh",
        )
    say(f"{run.name}: finished before, kept (train again: --fresh)")
    return True


def _refuse_other_checkpoint(run: Run) -> None:
    """Refuse to go on with a run that was begun otherwise than is asked now."""
    begun = read_facts(file_of(run.folder))
    if begun is not None and (differences := _differences_of_runs(begun, run.expected)):
        raise Refusal(
            f"{shown(run.folder)} was begun otherwise than is asked now",
            differs="; ".join(differences),
            do=f"ask for the same to go on with it, or drop it and start anew: {run.stage.command} --fresh",
        )


def _differences_of_runs(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """How two runs differ. ImageNet's hash is known only once it is loaded: its kind is part of `network`."""

    def compared(facts: Mapping[str, Any]) -> dict[str, Any]:
        lineage = [link for link in facts.get("lineage") or [] if link["stage"] != "start"]
        # Keys of what is asked only: a weights file also records its result and version, which may differ.
        return {key: facts.get(key) for key in asked} | {"lineage": lineage}

    return [*dict.fromkeys(_differences(compared(made), compared(asked)))]  # "other films" once, not twice


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
    told = {
        "lineage": "other earlier weights",
        "teachers.sha256": "other teachers",
        "unlabelled.sha256": "other unlabelled films",
        "unlabelled.apart_from": "other test films",
    }
    if path in ("content", "split", *told):
        return [told.get(path, "other films")]  # hashes tell a person nothing
    return [f"{path}: {made} -> {asked}"]


def film_rows(run: Run, prepared: PreparedSet | ListedFilms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the positive and negative training films, and of the validation films.

    The final student holds no film out. It is scored on fold 0 like the first of the five, but has learnt
    from these films: the score says whether it learns, and chooses nothing.
    """
    if run.final_student:
        judged = prepared.part == 0
        held_out = np.zeros_like(judged)
    else:
        judged = held_out = prepared.part == (1 if run.fold is None else run.fold)
    positive = prepared.has_mask
    validation = judged & positive if run.stage.task == "seg" else judged  # no Dice without a lesion
    return (
        np.flatnonzero(~held_out & positive),
        np.flatnonzero(~held_out & ~positive),
        np.flatnonzero(validation),
    )


def unlabelled_draws(
    recipe: Recipe, prepared: PreparedSet, unlabelled: PreparedSet | None
) -> tuple[Sequence[int], float]:
    """Rows of the unlabelled films, which follow those of `prepared`, and their share of the draws."""
    if unlabelled is None:
        return (), 0.0
    first = len(prepared.cases)
    return range(first, first + len(unlabelled.cases)), recipe.unlabelled_share


def _refuse_too_few(run: Run, prepared: PreparedSet | ListedFilms) -> None:
    positives, negatives, validation = film_rows(run, prepared)
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
    if drawn and not len(negatives):
        raise Refusal(
            f"{run.name}: no negative film to draw",
            found=f"{len(positives)} positive films",
            do="bring negative films" + ("" if run.stage.task == "cls" else ", or add --films-per-epoch 0"),
        )
    masked = prepared.has_mask[validation]
    lacking = "positive" if not masked.any() else "negative" if masked.all() else None
    # Dice needs positives, AUROC both; segmentation validates on positives only.
    if lacking == "positive" or (lacking and run.stage.task == "cls"):
        raise Refusal(
            f"{run.name}: no {lacking} film to validate on",
            found=f"{len(validation)} validation films",
            do="bring more films of both kinds",
        )


def _refuse_uneven(run: Run, processes: int) -> None:
    # The mean over equal pieces is that of the batch; in unequal ones some films would weigh more.
    pieces = processes * run.recipe.accumulation
    if run.recipe.batch_size % pieces:
        raise Refusal(
            f"{run.name}: a batch of {run.recipe.batch_size} cannot be divided evenly",
            found=f"{processes} GPUs, --accumulation {run.recipe.accumulation}",
            do=f"choose them so that their product divides {run.recipe.batch_size}, or another --batch-size",
        )
