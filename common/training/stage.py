"""One training stage: check its inputs, assemble, fit, export. The `train.py` differ by one word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from common import __version__
from common.command_line import Request
from common.compute import seed_torch, set_up, train_repeatably
from common.distributed import Processes, running
from common.files import alone, whole_file, write_json
from common.inference.run_networks import PRECISION, Predictor
from common.networks import weights
from common.networks.imagenet import load_imagenet
from common.networks.unet import PneumothoraxNet
from common.paths import run_lock, shown, weights_file
from common.preparation.film_store import PreparedSet
from common.progress import in_words
from common.removal import remove_temporaries, remove_written
from common.stages import N_FOLDS, STAGES, Stage
from common.training import checkpoint
from common.training.batches import EpochSampler, TrainingFilms, training_loader
from common.training.checkpoint import file_of, read_progress
from common.training.cost_estimate import Cost, measure_cost
from common.training.inputs import (
    RUN_FILES,
    Run,
    StageInputs,
    check_inputs,
    film_rows,
    unlabelled_draws,
)
from common.training.log import METRIC, epoch_in_words
from common.training.loop import Fit
from common.training.run_log import RunLog
from common.training.step import Learner
from common.training.time_left import TimeLeft

_NOTHING_LEARNT = (
    "it has learnt nothing. Look at films.png of its run: are the masks where the lesions are? Else try more "
    "--epochs, or another --learning-rate"
)


def train_stage(stage: Stage, request: Request) -> None:
    """Run a training stage as its command line asks.

    Raises:
        Refusal: Its inputs are missing or do not belong together, before any work.
    """
    with running(request.options.gpu) as processes:
        set_up(processes.device)
        train_repeatably(processes.device)
        inputs = check_inputs(stage, request, processes)
        if request.options.check:
            _print_cost(inputs)
            return
        # All in one process: loading the libraries takes seconds.
        left = TimeLeft([(run.name, run.system, _epochs_left(run, inputs)) for run in inputs.waiting])
        for run in inputs.waiting:
            _train(run, inputs, left)
        if processes.first:
            _summary(inputs.runs)


def _epochs_left(run: Run, inputs: StageInputs) -> int:
    done = None if inputs.options.fresh else read_progress(file_of(run.folder))
    return run.recipe.epochs - (done[0] if done else 0)


def _first_network(
    run: Run, imagenet: Path | None, say: Callable[[str], None]
) -> tuple[PneumothoraxNet, list[dict[str, Any]]]:
    """The network with its first weights, and the lineage up to them."""
    seed_torch(run.recipe.seed)  # new layers depend on the seed alone, not on runs before
    lineage = run.expected["lineage"]
    net = weights.build(run.expected)
    if run.parent is not None:
        state, metadata = run.parent
        source = weights_file(STAGES[metadata["stage"]], run.system)
        new = weights.load(net, state, source)
        say(f"{run.name}: starts from {shown(source)}, {_coverage(net, new)}; {run.chosen.called}")
        return net, lineage
    start: dict[str, Any] = {"stage": "start", "kind": run.expected["network"]["initial_weights"]}
    if start["kind"] == "imagenet":
        assert imagenet is not None  # `check_inputs` has found it
        encoder = run.expected["network"]["encoder"]
        start["sha256"], unused = load_imagenet(net, encoder, imagenet)
        tensors = len(net.unet.encoder.model.state_dict())
        say(
            f"{run.name}: starts from {shown(imagenet)}, {tensors} of {tensors} tensors of the encoder; "
            f"of the file not used: {', '.join(unused) or 'nothing'}"
        )
    return net, [start, *lineage]


def _coverage(net: PneumothoraxNet, new: list[str]) -> str:
    total = len(net.state_dict())
    return f"{total - len(new)} of {total} tensors" + (f"; new: {', '.join(new)}" if new else "")


def _assemble(run: Run, inputs: StageInputs, say: Callable[[str], None] = print) -> Fit:
    """The run's network with its first weights, its films and its validation."""
    net, lineage = _first_network(run, inputs.imagenet.get(run.system), say)
    # with the hash of ImageNet's file, known by now
    return fit_of(run, inputs, net, run.expected | {"lineage": lineage})


def fit_of(run: Run, inputs: StageInputs, net: PneumothoraxNet, facts: dict[str, Any]) -> Fit:
    """What trains a network as the run asks.

    Args:
        run: The run.
        inputs: Inputs of its stage.
        net: Network with the weights that it begins with.
        facts: Metadata that its weights will have.
    """
    recipe, processes = run.recipe, inputs.processes
    prepared = cast(PreparedSet, inputs.prepared)  # what stands for it is only timed, which needs no more
    positives, negatives, validation = film_rows(run, prepared)
    unlabelled = inputs.unlabelled
    sampler = EpochSampler(
        positives,
        negatives,
        recipe.batch_size,
        recipe.films_per_epoch,
        recipe.seed,
        processes,
        *unlabelled_draws(recipe, prepared, unlabelled),
    )
    films = TrainingFilms(prepared, recipe.image_size, recipe.seed, recipe.augmentation, unlabelled)
    device = processes.device
    # Twice the films of a step fit: nothing is kept for a backward pass.
    predictor = Predictor(
        prepared,
        recipe.image_size,
        device,
        inputs.workers,
        2 * recipe.batch_size,
        recipe.map_threshold,
    )
    teachers = run.teaching.teachers(device, recipe.precision) if run.teaching else None
    return Fit(
        learner=Learner(net, recipe, processes, inputs.options.checkpointing, teachers),
        loader=training_loader(films, sampler, inputs.workers, pin=device.type == "cuda"),
        sampler=sampler,
        predictor=predictor,
        validation=validation,
        recipe=recipe,
        processes=processes,
        folder=run.folder,
        facts=facts,
        title=run.name,
        save_minutes=inputs.options.save_minutes,
    )


def _train(run: Run, inputs: StageInputs, left: TimeLeft) -> None:
    begun = time.monotonic()
    with _alone(run, inputs.processes):
        # Without a checkpoint, too: a run that was killed before its first one has left a log and events.
        if inputs.options.fresh or not file_of(run.folder).is_file():
            inputs.processes.wait()  # no process may look for a checkpoint that is being dropped
            if inputs.processes.first:
                remove_written(run.folder, RUN_FILES)
        if inputs.processes.first:
            remove_temporaries(run.folder, *RUN_FILES.names)
            remove_temporaries(run.file.parent, run.file.name)
        log = RunLog(run.folder if inputs.processes.first else None)
        if inputs.processes.first and not (run.folder / "config.json").is_file():
            write_json(run.folder / "config.json", run.expected)  # first: by it, the folder is known as ours
        with log.watching():
            _fit(run, inputs, left, log, begun)


def _fit(run: Run, inputs: StageInputs, left: TimeLeft, log: RunLog, begun: float) -> None:
    """Train a run whose folder is ours alone, and write its weights."""
    fit = _assemble(run, inputs, log.say)

    def after_epoch(rows: list[dict[str, Any]]) -> None:
        rest = left.after_epoch(run.name, rows[-1]["seconds"], run.recipe.epochs - len(rows))
        log.say(epoch_in_words(run.name, run.stage.task, run.recipe.epochs, rows, rest))

    fit.after_epoch = after_epoch
    log.say(f"{run.name}: {_describe(run, fit, read_progress(file_of(run.folder)))}")
    if inputs.processes.first:
        write_json(run.folder / "config.json", fit.facts)
        _write_recipe(run)
    inputs.processes.wait()
    best = fit.run()
    if not inputs.processes.first:
        return
    metric = METRIC[run.stage.task]
    result = {
        "metric": metric,
        "score": best.score,
        "epoch": best.epoch,
        "validation_films": len(fit.validation),
    }
    if run.final_student:
        result["in_sample"] = True  # it has learnt from these films
    # recorded beside what later steps compare, and never compared itself
    made = {
        "result": result,
        "computed_on": inputs.processes.device.type,
        "validated_in": PRECISION,
        "version": __version__,
    }
    if inputs.processes.device.type == "cuda":  # on a CPU all are
        made["not_repeatable"] = fit.learner.not_repeatable
    if run.chosen.file is not None:
        made["own_recipe"] = run.chosen.file  # which later stages go on by
    weights.save_weights(run.file, best.state, fit.facts | made)
    if fit.learner.not_repeatable:
        log.say(
            f"{run.name}: the same command may give slightly other weights here: of these operations the GPU "
            f"has no repeatable kernel: {', '.join(fit.learner.not_repeatable)}"
        )
    log.say(
        f"{run.name}: {metric} {best.score:.3f} at epoch {best.epoch}, "
        f"{in_words(time.monotonic() - begun)} -> {shown(run.file)}"
    )
    _warn_of_nothing(run.name, best.score, log.say)
    checkpoint.drop(run.folder)  # last: killed before it, the run ends from its checkpoint again


def _warn_of_nothing(name: str, score: float, say: Callable[[str], None]) -> None:
    """Say what a score of 0.000 is likely to come from: an unattended run would pass on a useless network."""
    if score < 0.0005:
        say(f"warning: {name}: {_NOTHING_LEARNT}")


def _write_recipe(run: Run) -> None:
    with whole_file(run.folder / "recipe.toml") as temporary:
        temporary.write_text(
            f"# All numbers of {run.name}, as it was trained. To train by them: --recipe FILE\n\n"
            + run.resolved_recipe,
            encoding="utf-8",
        )


@contextmanager
def _alone(run: Run, processes: Processes) -> Iterator[None]:
    """Refuse to train a run that is being trained: two would write the same files."""
    if not processes.first:
        yield
        return
    with alone(run_lock(run.stage, run.system, run.fold), f"{run.name} is being trained by another process"):
        yield


def _describe(run: Run, fit: Fit, done: tuple[int, int] | None) -> str:
    """What will be trained, in one line. `done`: as `read_progress` has it."""
    sampler, recipe = fit.sampler, run.recipe
    negatives = f" and {len(sampler.negatives)} negative" if sampler.films else ""
    unlabelled = f", {len(sampler.unlabelled)} unlabelled" if len(sampler.unlabelled) else ""
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return (
        f"{len(sampler.positives)} positive{negatives} films{unlabelled}, "
        f"{len(fit.validation)} for validation, "
        f"{epochs} of {len(sampler)} steps of {recipe.batch_size} at {recipe.image_size} px, "
        f"{weights.parameters(fit.learner.net) / 1e6:.1f} M parameters"
        + (f", taught by {len(run.teaching.folds)}" if run.teaching else "")
        + (f"; goes on at epoch {done[0] + 1}, step {done[1] + 1}" if done else "")
    )


def _print_cost(inputs: StageInputs) -> None:
    """Print what would be trained, with its memory and time. Folds cost the same, so one of each is timed.

    A final student has more teachers, whom it waits for in each step.
    """
    if not inputs.waiting:
        return
    total = 0.0
    costs: dict[tuple[str, int], Cost] = {}
    for run in inputs.waiting:
        fit = _assemble(run, inputs)
        done = None if inputs.options.fresh else read_progress(file_of(run.folder))
        print(f"{run.name}: {_describe(run, fit, done)}", flush=True)
        kind = run.system, len(run.teaching.folds) if run.teaching else 0
        if kind not in costs:
            costs[kind] = measure_cost(fit)  # changes the network, which is built anew to train
            print(costs[kind].lines(run.recipe.precision))
        epochs, steps = done or (0, 0)
        left = run.recipe.epochs - epochs
        seconds = costs[kind].seconds(left * len(fit.sampler) - steps, left, len(fit.validation))
        print(f"  time:   about {in_words(seconds)}")
        total += seconds
        del fit  # or its memory would count for the next system
    print(f"\n{len(inputs.waiting)} runs, about {in_words(total)} in all. Nothing was trained (--check).")


def _summary(runs: list[Run]) -> None:
    """What now lies where."""
    chosen = "the last epoch is kept" if runs[0].teaching else "each epoch was chosen by them"
    print(f"\n{runs[0].stage.title} is finished. Validation scores ({chosen}):")
    for run in runs:
        metadata = weights.read_metadata(run.file)
        if metadata is None:
            continue  # somebody has taken it away
        result = metadata["result"]
        fold = "" if run.fold is None else f"fold {run.fold} of 0-{N_FOLDS - 1}  "
        if run.final_student:
            fold = "all films, scored on some of them  "
        print(
            f"  {run.system}  {fold}{result['metric']} {result['score']:.3f}  "
            f"n = {result['validation_films']}  epoch {result['epoch']}"
        )
    if left := _folds_left(runs):
        print(f"  left:    {left}; later steps need all of them (the same command without --folds)")
    print(f"  weights: {shown(runs[0].file.parent)}    logs and curves: {shown(runs[0].folder.parent)}\n")


def _folds_left(runs: list[Run]) -> str:
    """The folds of the runs' systems that have no weights yet, in words; empty where there are none."""
    stage = runs[0].stage
    if stage.source == "siim":
        return ""
    wanted: dict[int | None, str] = {fold: f"fold {fold}" for fold in range(N_FOLDS)}
    if stage.teachers:
        wanted[None] = "all films"
    left = {
        system: [text for fold, text in wanted.items() if not weights_file(stage, system, fold).is_file()]
        for system in dict.fromkeys(run.system for run in runs)
    }
    return "; ".join(f"{system} {', '.join(texts)}" for system, texts in left.items() if texts)
