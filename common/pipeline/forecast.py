"""What the stages of a plan will cost: films, runs, time, memory and disk, each and in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.pipeline.outlook import Outlook, StageOutlook
from common.pipeline.paces import Machine
from common.pipeline.planned_stages import FILMS, INFERENCE, METRICS, THRESHOLDS
from common.pipeline.record import epoch_seconds
from common.preparation.crash_safe_pool import cores
from common.preparation.listed_films import ListedFilms
from common.progress import in_words
from common.stages import N_FOLDS
from common.training.batches import EpochSampler
from common.training.checkpoint import file_of, read_progress
from common.training.cost_estimate import Cost
from common.training.inputs import Run, StageInputs, film_rows

MEASURED, TIMED, ESTIMATED = "measured", "timed", "estimated"  # from the surest to the least sure
# Estimates: benchmarks/preparing.py and bootstrap.py measure both
_PREPARING = 0.2  # seconds a film and core
_INTERVALS = 1.5e-6  # seconds a resample and film
_BEGIN = 15.0  # seconds until a script has loaded its libraries and read its inputs
_PICTURES = 250_000  # bytes of the pictures of a tested film with a lesion, at most
_CHECKPOINTS = 10  # times the weights: two checkpoints of network, AdamW, average and best epoch


@dataclass(frozen=True)
class Forecast:
    """What is left of one stage.

    Attributes:
        films: Number of films that it works on.
        runs: Number of networks that it has to train yet.
        all_runs: Number of networks that it trains in all; 0 of a stage that trains none.
        seconds: Time that it will take.
        how: How that is known, MEASURED, TIMED or ESTIMATED; empty where nothing is left.
        memory: Bytes at the peak, of the GPU where there is one; None: not known.
        disk: Bytes that it will write and leave.
        passing: Bytes on the disk while it runs.
        runs_left: Epochs left and seconds an epoch of each run that is left, by its name.
    """

    films: int
    runs: int = 0
    all_runs: int = 0
    seconds: float = 0.0
    how: str = ""
    memory: int | None = None
    disk: int = 0
    passing: int = 0
    runs_left: Mapping[str, tuple[int, float]] | None = None


def forecast(
    outlook: Outlook, plan: Sequence[StageOutlook], machine: Machine, known: Mapping[str, Any]
) -> tuple[dict[str, Forecast], dict[str, Cost]]:
    """What is left of each stage, by key, and the costs of a step that were found out for it.

    Args:
        outlook: The films.
        plan: The stages.
        machine: What computes.
        known: What an earlier plan remembered of the costs of a step, by kind.

    Raises:
        Refusal: The memory does not suffice for one of the trainings.
    """
    trained = [(run, each.inputs) for each in plan if each.inputs for run in each.inputs.runs]
    tested = any(each.stage.key in (THRESHOLDS, INFERENCE) and not each.done for each in plan)
    # of the networks that test films, one of each five
    testing = [(run, inputs) for run, inputs in trained if tested and run.fold == 0]
    untimed = [(r, i) for r, i in trained if r in i.waiting and not epoch_seconds(r.stage, r.system)]
    wanted: dict[str, tuple[Run, StageInputs]] = {}
    for run, inputs in [*testing, *untimed]:
        wanted.setdefault(machine.kind_of(run, inputs), (run, inputs))
    costs = machine.time_steps(wanted, known)
    networks = [(run, costs[machine.kind_of(run, inputs)]) for run, inputs in testing]
    found = {}
    for each in plan:
        if each.inputs:
            found[each.stage.key] = _training(each.inputs, machine, costs)
        else:
            found[each.stage.key] = _other(each, outlook, networks)
    return found, costs


def _training(inputs: StageInputs, machine: Machine, costs: Mapping[str, Cost]) -> Forecast:
    """Time of the epochs that are left; memory and weights of the costliest run."""
    left: dict[str, tuple[int, float]] = {}
    hows, memory, disk, films = [], [], [0], 0
    for run in inputs.runs:
        positives, negatives, validation = film_rows(run, inputs.prepared)
        drawn = len(negatives) if run.recipe.films_per_epoch else 0
        films = max(films, len(positives) + drawn + len(validation))
        if run not in inputs.waiting:
            continue
        cost = costs.get(machine.kind_of(run, inputs))
        taken = epoch_seconds(run.stage, run.system)
        if cost:
            memory.append(cost.measured)
            disk.append(cost.weights)
        if taken:
            pace = float(np.mean(taken))
        else:
            assert cost is not None  # one of each kind was timed
            recipe = run.recipe
            steps = len(EpochSampler(positives, negatives, recipe.batch_size, recipe.films_per_epoch, 0))
            pace = cost.seconds(steps, 1, -(-len(validation) // len(machine.devices)))
        hows.append(MEASURED if taken else TIMED)
        done = None if inputs.options.fresh else read_progress(file_of(run.folder))
        left[run.name] = (run.recipe.epochs - (done[0] if done else 0), pace)
    return Forecast(
        films,
        len(inputs.waiting),
        len(inputs.runs),
        sum(epochs * pace for epochs, pace in left.values()) + (_BEGIN if left else 0.0),
        _least_sure(hows),
        max(memory, default=None),
        len(inputs.waiting) * max(disk),
        _CHECKPOINTS * max(disk),
        left,
    )


def _other(each: StageOutlook, outlook: Outlook, networks: Sequence[tuple[Run, Cost]]) -> Forecast:
    """A stage that trains nothing."""
    sets, key = outlook.films, each.stage.key
    if key == FILMS:
        listed = [films for films in sets.values() if isinstance(films, ListedFilms)]
        count = sum(len(films.has_mask) for films in listed)
        total = sum(len(films.has_mask) for films in sets.values())
        seconds = count * _PREPARING / cores()
        return Forecast(total, 0, 0, seconds, ESTIMATED if listed else "", None, sum(f.bytes for f in listed))
    films = sets["ntuh_train" if key == THRESHOLDS else "ntuh_test"].has_mask
    if each.done:
        return Forecast(len(films))
    if key == METRICS:
        options = outlook.parsed[key]
        seconds = _BEGIN + options.replicates * len(films) * _INTERVALS * len(options.system)
        return Forecast(len(films), seconds=seconds, how=ESTIMATED)
    # each training film by one fold's networks, each test film by all of them
    times = 1 if key == THRESHOLDS else N_FOLDS
    of_system = {"cls": len(films), "seg": int(films.sum())}
    seconds = sum(times * of_system[run.stage.task] * cost.film for run, cost in networks)
    seconds = _BEGIN + seconds / len(outlook.devices)
    pictures = int(films.sum()) * _PICTURES * len(outlook.parsed[key].systems) if key == INFERENCE else 0
    return Forecast(len(films), seconds=seconds, how=TIMED, disk=pictures)


# --- for people ------------------------------------------------------------------------------------


def table(plan: Sequence[StageOutlook], found: Mapping[str, Forecast]) -> str:
    """The stages and their sum, a line each."""
    head = ("step", "", "films", "runs", "time", "", "memory", "disk", "")
    rows = [head]
    for each in plan:
        cost = found[each.stage.key]
        runs = f"{cost.runs} of {cost.all_runs}" if cost.all_runs else ""
        rows.append(
            (
                *(each.stage.number, each.stage.title, f"{cost.films:,}", runs),
                *(("", "") if each.done else (in_words(cost.seconds), cost.how)),
                *(("", "") if each.done else (_size(cost.memory), _size(cost.disk or None))),
                "done, kept" if each.done else "",
            )
        )
    every = list(found.values())
    memory = max((cost.memory for cost in every if cost.memory), default=None)
    how = _least_sure([cost.how for cost in every])
    total = sum(cost.seconds for cost in every)
    runs = f"{sum(cost.runs for cost in every)} of {sum(cost.all_runs for cost in every)}"
    disk = _size(needed_disk(found))
    rows.append(("all", "", "", runs, in_words(total), how, _size(memory), disk, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 2 <= column <= 4 or 6 <= column <= 7 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _least_sure(hows: Sequence[str]) -> str:
    return max(hows, key=("", MEASURED, TIMED, ESTIMATED).index, default="")


def needed_disk(found: Mapping[str, Forecast]) -> int:
    """Bytes that the plan needs at its fullest moment."""
    every = found.values()
    return sum(cost.disk for cost in every) + max((cost.passing for cost in every), default=0)


def _size(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"


def notes(machine: Machine, found: Mapping[str, Forecast]) -> list[str]:
    """How sure the times are, as lines."""
    more = len(machine.devices) - 1
    lines = [f"on {machine.name}" + (f" and {more} more" if more else "")]
    hows = {cost.how for cost in found.values()}
    told = {
        MEASURED: "measured: by epochs that were trained here",
        TIMED: "timed: by a few steps on this machine, without other work on it",
        ESTIMATED: "estimated: by the number of films alone",
    }
    lines += [text for how, text in told.items() if how in hows]
    if machine.devices[0].type == "cuda" and MEASURED not in hows:
        lines.append(f"No run was measured on this GPU yet ({machine.name}): all times are estimates.")
    return lines
