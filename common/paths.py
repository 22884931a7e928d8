"""Where every file that passes between stages lies.

Paths are functions of (stage, system, fold). Nothing is found by globbing or by "the newest".
Everything lies under one workspace: the repository itself, or the folder named by PTX_WORKSPACE.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from common.stages import PREDICTION_FOLDER, STUDENTS, TESTING_FOLDER, THRESHOLDS_FOLDER, Stage

REPOSITORY = Path(__file__).resolve().parents[1]


def workspace() -> Path:
    """The folder under which all data and results lie."""
    return _resolved(os.environ.get("PTX_WORKSPACE") or str(REPOSITORY))


@cache  # asked for with every pseudonym, and it asks the disk
def _resolved(folder: str) -> Path:
    return Path(folder).resolve()


def shown(path: Path) -> str:
    """A path as messages show it, so that it can be typed as it stands: from the folder in which the user
    stands where it lies below that, else whole."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def run_name(stage: Stage, system: str, fold: int | None = None) -> str:
    """`eff_seg_siim`, `fold_0_eff_seg_ntuh`, `eff_seg_student`: the name of one training run."""
    prefix = "" if fold is None else f"fold_{fold}_"
    # By its teachers' system, which it may be called by, too: its name would say `student` twice.
    whose = STUDENTS.get(system, system)
    return f"{prefix}{whose}_{stage.task}_{'student' if stage.teachers else stage.source}"


def run_folder(stage: Stage, system: str, fold: int | None = None) -> Path:
    """Folder of a run's configuration, log and curves."""
    return workspace() / stage.folder / "runs" / run_name(stage, system, fold)


def weights_file(stage: Stage, system: str, fold: int | None = None) -> Path:
    """The weights that a finished run leaves."""
    return workspace() / stage.folder / "model_weights" / f"{run_name(stage, system, fold)}.safetensors"


def thresholds_file(system: str) -> Path:
    """The operating point of a system, from its out-of-fold predictions."""
    return workspace() / THRESHOLDS_FOLDER / f"cls_{system}_5fold_result" / "5cv_avg.json"


def result_folder(system: str) -> Path:
    """The result files of inference on the test set."""
    return workspace() / TESTING_FOLDER / f"result_{system}"


# Sets of each source, prepared together
SETS = {"siim": ("siim",), "ntuh": ("ntuh_train", "ntuh_test"), "unlabelled": ("unlabelled",)}


def source_folder(key: str, named: str | None) -> Path:
    """Folder of the films as the user has them: the named one, or `data/siim`, `data/ntuh`."""
    return Path(named).expanduser().resolve() if named else workspace() / "data" / key


def prepared_folder(name: str) -> Path:
    """A prepared set: `siim`, `ntuh_train`, `ntuh_test` or `unlabelled`."""
    return workspace() / "data" / "prepared" / name


def set_is_prepared(name: str) -> bool:
    """Whether a set is prepared to its end: its manifest is written last."""
    return (prepared_folder(name) / "manifest.json").exists()


def leaks_file() -> Path:
    """The pairs of films that the leak check found."""
    return workspace() / "data" / "prepared" / "leaks.csv"


def run_lock(stage: Stage, system: str, fold: int | None = None) -> Path:
    """Held while a run is trained. Beside its folder: in it, it would count as somebody else's file."""
    folder = run_folder(stage, system, fold)
    return folder.with_name(f".{folder.name}.lock")


def epochs_of(stage: Stage, system: str, fold: int | None = None) -> tuple[int, int] | None:
    """The epochs of a run that are done, and all of them; None: no run."""
    folder = run_folder(stage, system, fold)
    try:
        epochs = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["recipe"]["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        return max(len((folder / "log.csv").read_text().splitlines()) - 1, 0), epochs
    except OSError:
        return 0, epochs


def progress_of(stage: Stage, system: str, fold: int | None = None) -> str | None:
    """How far an unfinished run came, for the refusal of whoever needs its weights; None: no run."""
    found = epochs_of(stage, system, fold)
    if found is None:
        return None
    done, epochs = found
    folder = run_folder(stage, system, fold)
    return f"{shown(folder)}, at epoch {done} of {epochs}; the command resumes it"


def bundle_file(system: str) -> Path:
    """Where a system is packed unless another file is named."""
    return workspace() / PREDICTION_FOLDER / f"{system}.bundle"


def onnx_folder(system: str) -> Path:
    """Where a system's ONNX files are written unless another folder is named."""
    return workspace() / PREDICTION_FOLDER / f"{system}_onnx"
