"""A crash, a hang or a memory bomb costs one task; everything else comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from common.data.workers import Lost, in_workers
from common.refusal import Refusal


def _task(task: str, alive: Callable[[], None]) -> str:
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "leave":
        os._exit(3)
    if task == "hang":
        time.sleep(60)
    if task == "slow":
        for _ in range(6):
            time.sleep(0.5)
            alive()
    if task == "bomb":
        try:
            return str(np.ones(3 * 2**30, np.uint8).sum())
        except MemoryError:
            return "no memory"
    if task == "print":
        os.write(1, b"DOE^JANE")
        os.write(2, b"DOE^JANE")
    return f"did {task}"


def test_every_task_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    tasks = ["a", "crash", "b", "leave", "hang", "slow", "bomb", "print", *map(str, range(20))]
    found = dict(in_workers(_task, tasks, count=2, seconds=2))
    assert sorted(found) == sorted(tasks)
    assert found.pop("crash") == Lost("its decoder crashed (SIGSEGV)")
    assert found.pop("leave") == Lost("its decoder crashed (exit status 3)")
    assert found.pop("hang") == Lost("its decoder hung (no sign of life for 2 s)")
    assert found.pop("bomb") == "no memory"
    assert all(result == f"did {task}" for task, result in found.items())
    assert capfd.readouterr() == ("", "")


def test_tasks_are_taken_as_they_are_needed() -> None:
    taken = []
    tasks = (taken.append(k) or str(k) for k in range(50))
    results = in_workers(_task, tasks, count=1)
    next(results)
    assert len(taken) <= 2
    results.close()


def _dies(task: object, alive: Callable[[], None]) -> None: ...


def test_processes_that_cannot_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.workers._work", _dies)
    with pytest.raises(Refusal, match="cannot be started"):
        list(in_workers(_task, ["a"], count=1))
