"""How files are written and read: whole or not at all, by one process at a time, the same bytes each time."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from common.paths import shown, workspace
from common.refusal import Refusal

TEMPORARY = ".tmp"  # the end of the name under which a file is written
_LOOKS = (0.0, 0.05, 0.2)  # seconds before each try: who asks whether it is `held` holds it for an instant
LOCK = ".lock"  # file by which a process claims a folder for itself; it holds nothing


def refuse_small_disk(needed: int, what: str) -> None:
    """Refuse to begin what the disk of the workspace cannot hold.

    Args:
        needed: Bytes that will be written.
        what: What is written, for the message.

    Raises:
        Refusal: Fewer bytes are free.
    """
    free = shutil.disk_usage(workspace()).free
    if needed > free:
        raise Refusal(
            f"the disk is too small for {what}",
            found=f"{free / 1e9:.1f} GB free of {needed / 1e9:.1f} GB needed in {shown(workspace())}",
            do="free space, or set PTX_WORKSPACE to a folder on a larger disk",
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    The name holds the process's number, so that what a killed one left of this file is known, and swept.

    Raises:
        Refusal: The folder cannot be written or the disk is full; an earlier file stays as it was.
    """
    path = Path(path)
    # Beside `path`, because renaming is whole only within one disk.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in _left_over(path.parent).pop(path.name, ()):
            left.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        settle(path.parent)
    except OSError as error:
        raise Refusal(
            f"cannot write {shown(path)}", found=error.strerror or error, do="free space or mend the rights"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@cache
def _left_over(folder: Path) -> dict[str, list[Path]]:
    """What processes that are no more left in a folder, by the name of the file that they were writing.

    A folder is looked through once a process: listing thousands of results at each of them would take longer
    than to write them.
    """
    found: dict[str, list[Path]] = {}
    for path in folder.glob(f".*.*{TEMPORARY}"):
        name, _, process = path.name[1:].removesuffix(TEMPORARY).rpartition(".")
        if process.isdigit() and not path.is_symlink() and path.is_file() and not _lives(int(process)):
            found.setdefault(name, []).append(path)
    return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no process's number
        return True
    return True


def settle(folder: Path) -> None:
    """What was renamed, made or deleted in a folder is so after a power failure, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk of another system, which cannot
            raise
    finally:
        os.close(descriptor)


def alone(lock: Path, busy: str) -> IO[str]:
    """Hold a lock file, until the file that is returned is closed or this process ends.

    Raises:
        Refusal: Another process holds it; `busy` says what that process does.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = open(lock, "a")  # noqa: SIM115  # changes nothing, whatever file of this name is there
    for pause in _LOOKS:
        time.sleep(pause)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
    file.close()
    raise Refusal(busy, do="wait for it, or end it first")


@contextmanager
def in_turn(lock: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock file once it is free, however long another process holds it.

    Args:
        lock: The file.
        shared: Hold it together with others who share it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a+") as file:  # `+`, since a network disk wants who shares to be a reader
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def held(lock: Path) -> bool:
    """Whether a process holds a lock file."""
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False


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
    except (ValueError, OSError, RecursionError) as error:
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


CASE = "c" + "[0-9a-f]" * 16  # the pseudonym of a case, as a pattern of file names
