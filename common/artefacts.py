"""Every file that passes between stages: where it lies, how it is written, what may read it.

Paths are functions of (stage, system, fold). Nothing is found by globbing or by "the newest".
Everything lies under one workspace: the repository itself, or the folder named by PTX_WORKSPACE.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import hmac
import io
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from common.refusal import Refusal

REPOSITORY = Path(__file__).resolve().parents[1]
SYSTEMS = ("eff", "vit")
N_FOLDS = 5


def workspace() -> Path:
    """The folder under which all data and results lie."""
    return _resolved(os.environ.get("PTX_WORKSPACE") or str(REPOSITORY))


@cache  # asked for with every pseudonym, and it asks the disk
def _resolved(folder: str) -> Path:
    return Path(folder).resolve()


def shown(path: Path) -> str:
    """A path as messages show it: relative to the workspace where it lies inside."""
    path = Path(path)
    return str(path.relative_to(workspace())) if path.is_relative_to(workspace()) else str(path)


@dataclass(frozen=True)
class Stage:
    """One of the four training stages.

    Attributes:
        title: As messages name it.
        folder: Of its scripts and results, relative to the repository and the workspace.
        task: `seg` or `cls`.
        source: `siim` or `ntuh`.
        parent: Key of the stage whose weights it starts from; None: ImageNet.
    """

    key: str
    title: str
    folder: str
    task: str
    source: str
    parent: str | None

    @property
    def command(self) -> str:
        return f"cd {self.folder} && bash train.sh"

    @property
    def weights_title(self) -> str:
        return {"siim": "SIIM-ACR", "ntuh": "NTUH"}[self.source] + (
            " segmentation weights" if self.task == "seg" else " classification weights"
        )


STAGES = {
    stage.key: stage
    for stage in (
        Stage(
            "siim_segmentation",
            "SIIM-ACR segmentation",
            "step1_pretraining/step1_segmentation",
            "seg",
            "siim",
            None,
        ),
        Stage(
            "siim_classification",
            "SIIM-ACR classification",
            "step1_pretraining/step2_classification",
            "cls",
            "siim",
            "siim_segmentation",
        ),
        Stage(
            "ntuh_segmentation",
            "NTUH segmentation",
            "step2_ntuh_training/ntuh_segmentation",
            "seg",
            "ntuh",
            "siim_segmentation",
        ),
        Stage(
            "ntuh_classification",
            "NTUH classification",
            "step2_ntuh_training/ntuh_classification",
            "cls",
            "ntuh",
            "siim_classification",
        ),
    )
}
THRESHOLDS_FOLDER = "step2_ntuh_training/get_thres"
THRESHOLDS_COMMAND = f"cd {THRESHOLDS_FOLDER} && bash get_thresholds.sh"
TESTING_FOLDER = "step3_testing/testing"
INFERENCE_COMMAND = f"cd {TESTING_FOLDER} && bash inference.sh"


def run_name(stage: Stage, system: str, fold: int | None = None) -> str:
    """`eff_seg_siim`, `fold_0_eff_seg_ntuh`: the name of one training run."""
    prefix = "" if fold is None else f"fold_{fold}_"
    return f"{prefix}{system}_{stage.task}_{stage.source}"


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


def prepared_folder(name: str) -> Path:
    """A prepared set: `siim`, `ntuh_train` or `ntuh_test`."""
    return workspace() / "data" / "prepared" / name


def leaks_file() -> Path:
    """The pairs of films that the leak check found."""
    return workspace() / "data" / "prepared" / "leaks.csv"


def progress_of(stage: Stage, system: str, fold: int | None = None) -> str | None:
    """How far an unfinished run came, for the refusal of whoever needs its weights; None: no run."""
    folder = run_folder(stage, system, fold)
    try:
        epochs = json.loads((folder / "config.json").read_text(encoding="utf-8"))["recipe"]["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        done = max(len((folder / "log.csv").read_text().splitlines()) - 1, 0)
    except OSError:
        done = 0
    return f"runs/{folder.name}, interrupted at epoch {done} of {epochs} (the same command resumes it)"


# --- written whole or not at all -------------------------------------------------------------------


TEMPORARY = ".tmp"  # the end of the name under which a file is written
LOCK = ".lock"  # file by which a process claims a folder for itself; it holds nothing


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    Raises:
        Refusal: The folder cannot be written or the disk is full; an earlier file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Refusal(
            f"cannot write {shown(path)}", found=error.strerror or error, do="free space or mend the rights"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def alone(lock: Path, busy: str) -> IO[str]:
    """Hold a lock file, until the file that is returned is closed or this process ends.

    Raises:
        Refusal: Another process holds it; `busy` says what that process does.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = open(lock, "a")  # noqa: SIM115  # changes nothing, whatever file of this name is there
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Refusal(busy, do="wait for it, or end it first") from None
    return file


def canonical_json(content: Any) -> str:
    """The one spelling of a JSON value (sorted keys, no spaces, finite numbers only)."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def json_text(content: Any) -> str:
    """`content` as readable JSON; infinities and NaN are refused (ValueError)."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON; infinities and NaN are refused (ValueError), never written."""
    text = json_text(content)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Refusal: The file is missing or malformed; `made_by` is the command that makes it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{path.name} is needed", missing=shown(path), made_by=made_by) from None
    except (ValueError, OSError) as error:
        raise Refusal(
            f"{shown(path)} cannot be read as JSON", found=error, do=f"make it again: {made_by}"
        ) from None
    if not isinstance(content, dict):
        raise Refusal(f"{shown(path)} holds no JSON object", do=f"make it again: {made_by}")
    return content


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, as `csv_text` has them."""
    with whole_file(path) as temporary:
        temporary.write_text(csv_text(columns, rows), encoding="utf-8", newline="")


def csv_text(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; None is an empty cell, a float is written so that it reads back exactly."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({c: "" if row[c] is None else row[c] for c in columns} for row in rows)
    return text.getvalue()


def digest(*parts: bytes | memoryview | str) -> str:
    """SHA-256 (hex) of the parts, each preceded by its length, so that no two lists of parts collide."""
    total = hashlib.sha256()
    for part in parts:
        data = memoryview(part.encode() if isinstance(part, str) else part)
        total.update(data.nbytes.to_bytes(8, "little"))
        total.update(data if data.c_contiguous else data.tobytes())
    return total.hexdigest()


# --- pseudonyms ------------------------------------------------------------------------------------


CASE = "c" + "[0-9a-f]" * 16  # the pseudonym of a case, as a pattern of file names


@cache
def _pseudonyms(root: Path) -> hmac.HMAC:
    """HMAC-SHA-256 with the key of a workspace, before anything is put in."""
    path = root / "data" / "pseudonym.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass  # made earlier, or by another process just now
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    try:
        return hmac.new(bytes.fromhex(path.read_text().strip()), digestmod=hashlib.sha256)
    except ValueError:
        raise Refusal(
            f"{shown(path)} is not a key", do="restore it, or delete it and data/prepared"
        ) from None


def pseudonym(kind: str, identifier: str) -> str:
    """The name under which a case or patient appears in everything written.

    HMAC-SHA-256 (RFC 2104) with the workspace's key, 64 bits of it: without the key nobody can test a
    guessed identifier.

    Args:
        kind: `case` or `patient`; the same identifier gives different names in the two kinds.
        identifier: The hospital's own identifier.
    """
    code = _pseudonyms(workspace()).copy()
    code.update(f"{kind}:{identifier}".encode(errors="surrogateescape"))  # a path may be any bytes
    return f"{kind[0]}{code.hexdigest()[:16]}"
