"""Files: written whole or not at all, and read back as they were written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import files
from common.files import alone, digest, held, refuse_small_disk, whole_file, write_csv, write_json
from common.refusal import Refusal


def test_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("inf")})
    with pytest.raises(UnicodeEncodeError), whole_file(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_reader_of_the_earlier_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with open(path, encoding="utf-8") as reader:
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 2}


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})


def test_what_a_killed_process_left_of_a_file_is_swept_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = tmp_path / f".a.json.{ended.pid}.tmp"
    others = [
        tmp_path / name
        for name in (
            f".b.json.{ended.pid}.tmp",  # of another file, which may be one of a user's
            f".a.json.{os.getppid()}.tmp",  # of a process that may be writing it
            ".a.json.tmp",
            f"a.json.{ended.pid}.tmp",
            f".a.json.{10**30}.tmp",
        )
    ]
    for path in (mine, *others):
        path.touch()
    write_json(tmp_path / "a.json", {})
    assert set(tmp_path.iterdir()) == {tmp_path / "a.json", *others}


def test_folder_that_cannot_be_synced_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    error = OSError(errno.EINVAL, "Invalid argument")  # as some network disks say

    def refuse_folders(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise error
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_json(tmp_path / "a.json", {})
    error.errno = errno.EIO
    with pytest.raises(Refusal, match="cannot write"):
        write_json(tmp_path / "b.json", {})


def test_csv_reads_back_exactly(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    write_csv(tmp_path / "a.csv", ["x", "y"], [{"x": value, "y": None}])
    header, row = (tmp_path / "a.csv").read_text().splitlines()
    assert header == "x,y"
    assert float(row.split(",")[0]) == value
    assert row.endswith(",")


def test_digest_separates_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert digest(pixels.data) == digest(pixels.tobytes())
    assert digest(pixels.T.data) == digest(pixels.T.tobytes()) != digest(pixels.data)


def test_who_only_looks_whether_a_lock_is_held_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / ".lock"
    lock.touch()
    looking = open(lock)  # noqa: SIM115  # as `held` has it for an instant
    fcntl.flock(looking, fcntl.LOCK_SH)
    pauses: list[float] = []
    monkeypatch.setattr(files.time, "sleep", lambda pause: (pauses.append(pause), pause and looking.close()))
    with alone(lock, "busy"):
        assert held(lock)
        assert len(pauses) == 2
        with pytest.raises(Refusal, match="busy"):
            alone(lock, "busy")
    assert not held(lock)


def test_small_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000_000))
    refuse_small_disk(3_000_000_000, "the films")
    with pytest.raises(Refusal, match="too small for the films") as refusal:
        refuse_small_disk(3_200_000_000, "the films")
    assert f"3.0 GB free of 3.2 GB needed in {tmp_path}" in str(refusal.value)
