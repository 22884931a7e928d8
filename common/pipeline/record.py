"""What `run.sh` writes down of its stages in `run/` of the workspace: the plan, their logs, how they ended.

No flag and no path of the user's stands in it.
"""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.files import write_json
from common.paths import run_folder, workspace
from common.stages import N_FOLDS, Stage

RUNNING, DONE, FAILED = "running", "done", "failed"


def folder() -> Path:
    """Folder of the plan and the logs."""
    return workspace() / "run"


def log_file(number: str, system: str | None = None) -> Path:
    """What a stage said; of the one system alone that was trained beside the other."""
    return folder() / f"{number}{f'_{system}' if system else ''}.log"


def lock_file() -> Path:
    """Held while a plan runs."""
    return folder() / ".lock"


def remembered() -> dict[str, Any]:
    """The plan that was made last: `costs`, by kind of run; `stages`, by key; empty where there is none."""
    return _read(folder() / "plan.json")


def remember(plan: dict[str, Any]) -> None:
    """Write the plan down."""
    write_json(folder() / "plan.json", plan)


def states() -> dict[str, str]:
    """How each stage ended, by key; RUNNING where nobody said that it had ended."""
    return {key: str(state) for key, state in _read(folder() / "states.json").items()}


def note(key: str, state: str) -> None:
    """Note what became of a stage."""
    write_json(folder() / "states.json", states() | {key: state})


def epoch_seconds(stage: Stage, system: str) -> list[float]:
    """Times of the epochs that were trained of a stage and a system, in whatever fold, in seconds."""
    taken: list[float] = []
    for fold in (None,) if stage.source == "siim" else range(N_FOLDS):
        path = run_folder(stage, system, fold) / "log.csv"
        with suppress(OSError, KeyError, ValueError), path.open(newline="") as file:
            taken += [float(row["seconds"]) for row in csv.DictReader(file)]
    return taken


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
