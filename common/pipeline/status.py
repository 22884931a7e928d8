"""What is done, running, failed and left of a plan, by names and logs alone: it is answered at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import held
from common.paths import (
    SETS,
    epochs_of,
    result_folder,
    run_folder,
    run_lock,
    run_name,
    set_is_prepared,
    thresholds_file,
    weights_file,
    workspace,
)
from common.pipeline import record
from common.pipeline.planned_stages import FILMS, INFERENCE, METRICS, SOURCES, THRESHOLDS, PlannedStage
from common.progress import in_words
from common.stages import N_FOLDS, TESTING_FOLDER, Stage, stages_of

_Left = tuple[str, str, float | None]  # state, words, and seconds left; None: nothing is known of the time
_RUNNING, _DONE, _WAITS = "running", "done", "waits"


def lines(stages: Sequence[PlannedStage], parsed: dict[str, Any]) -> list[str]:
    """A line for each stage, and one for the time that is left in all.

    Args:
        stages: The stages of the plan.
        parsed: The options of each, by its key.
    """
    plan, ended, works = record.remembered().get("stages", {}), record.states(), held(record.lock_file())
    found: list[str] = []
    times: list[float | None] = []
    sound = True  # whether all before it is done
    for stage in stages:
        state, told, left = _look(stage, parsed[stage.key], plan.get(stage.key, {}), sound)
        sound &= state == _DONE
        if state == _WAITS and ended.get(stage.key) == record.FAILED:
            state = record.FAILED
        elif state == _WAITS and ended.get(stage.key) == record.RUNNING:
            state = _RUNNING if works else "interrupted"
        rest = f"about {in_words(left)} left" if left else ""
        told = "; ".join(filter(None, (told, rest)))
        found.append(f"{stage.number:<4} {stage.title:<24} {state:<12} {told}".rstrip())
        times.append(left)
    words = [f"about {in_words(sum(filter(None, times)))}"] if any(times) or None not in times else []
    words += ["what is not known yet (--check)"] if None in times else []
    whole = f"left: {' and '.join(words)}"
    return [*found, whole if works else f"{whole}; run.sh is not running"]


def _look(stage: PlannedStage, options: Any, known: dict[str, Any], sound: bool) -> _Left:
    """A stage of which an earlier plan knew something."""
    if stage.training is not None:
        return _training(stage.training, options.options.system, known)
    if sound and _is_made(stage.key, options):
        return _DONE, "", 0.0
    return _WAITS, "", known.get("seconds")


def _training(stage: Stage, systems: Sequence[str], known: dict[str, Any]) -> _Left:
    """A training stage, run by run."""
    folds: Sequence[int | None] = (None,) if stage.source == "siim" else range(N_FOLDS)
    done, working, left, unknown = 0, [], 0.0, False
    for system in systems:
        taken = record.epoch_seconds(stage, system)
        for fold in folds:
            checkpoint = run_folder(stage, system, fold) / "last.pt"
            if weights_file(stage, system, fold).is_file() and not checkpoint.is_file():
                done += 1
                continue
            epochs = epochs_of(stage, system, fold) if checkpoint.is_file() else None
            name = run_name(stage, system, fold)
            planned, pace = known.get("runs", {}).get(name, (0, None))
            pace = sum(taken) / len(taken) if taken else pace
            count = epochs[1] - epochs[0] if epochs else planned
            unknown |= pace is None or not (epochs or planned)
            left += count * (pace or 0.0)
            runs = held(run_lock(stage, system, fold))
            if runs or epochs:
                at = f" at epoch {epochs[0]} of {epochs[1]}" if epochs else ""
                working.append((runs, f"{name}{at}{'' if runs else ', interrupted'}"))
    total = len(systems) * len(folds)
    of_all = f"{total} run{'s' * (total != 1)}"
    if done == total:
        return _DONE, of_all, 0.0
    state = _RUNNING if any(runs for runs, _ in working) else _WAITS
    told = "; ".join([f"{done} of {of_all}", *(text for _, text in working)])
    return state, told, None if unknown else left


def _is_made(key: str, options: Any) -> bool:
    """Whether what a stage makes that trains nothing is there, and no older than what it is made from."""
    if key == FILMS:
        return all(set_is_prepared(name) for source in SOURCES for name in SETS[source])
    results = [result_folder(system) / "meta.json" for system in options.system]
    if key == METRICS:
        return _newer([workspace() / TESTING_FOLDER / "metrics.json"], results)
    made = {
        THRESHOLDS: (
            [thresholds_file(system) for system in options.systems],
            [
                weights_file(stage, system, fold)
                for system in options.systems
                for stage in stages_of(system)
                for fold in range(N_FOLDS)
            ],
        ),
        INFERENCE: (results, [thresholds_file(system) for system in options.systems]),
    }
    return _newer(*made[key])


def _newer(made: Sequence[Path], sources: Sequence[Path]) -> bool:
    try:
        return min(map(_time, made)) >= max(map(_time, sources))
    except OSError:
        return False


def _time(path: Path) -> float:
    return path.stat().st_mtime
