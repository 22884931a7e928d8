"""A crash, a hang or a memory bomb costs one task; everything else comes back."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from common.preparation.crash_safe_pool import Lost, in_workers
from common.refusal import Refusal


def _task(task: str, alive: Callable[[], None]) -> str:
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "leave":
        os._exit(3)
    if task == "spin":
        _compute(60)
    if task == "block":
        threading.Event().wait()
    if task == "wait":  # as for a slow disk, or for its turn on a busy machine
        time.sleep(3)
    if task == "slow":
        for _ in range(6):
            _compute(0.5)
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


def _compute(seconds: float) -> None:
    """Use so much processor time, however long that takes on a busy machine."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.slow
def test_every_task_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    tasks = ["a", "crash", "b", "leave", "spin", "slow", "wait", "bomb", "print", *map(str, range(20))]
    found = dict(in_workers(_task, tasks, count=2, seconds=1))
    assert sorted(found) == sorted(tasks)
    assert found.pop("crash") == Lost("its decoder crashed (SIGSEGV)")
    assert found.pop("leave") == Lost("its decoder crashed (exit status 3)")
    assert found.pop("spin") == Lost("its decoder hung (1 s of processor time)")
    assert found.pop("bomb") == "no memory"
    assert all(result == f"did {task}" for task, result in found.items())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_every_task_has_the_whole_processor_time() -> None:
    """What the tasks before it used in the same process is not counted."""
    found = [result for _, result in in_workers(_compute_some, range(5), count=1, seconds=1)]
    assert len(set(found)) == 1  # one process did all
    assert not isinstance(found[0], Lost)


def _compute_some(task: int, alive: Callable[[], None]) -> int:
    _compute(0.5)
    return os.getpid()


def test_a_process_that_is_blocked_costs_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def tasks() -> Iterator[str]:  # asked for when the process is ready: it had all the time to start
        monkeypatch.setattr("common.preparation.crash_safe_pool.PATIENCE", 0.3)
        yield "block"

    results = in_workers(_task, tasks(), count=1)
    assert next(results) == ("block", Lost("its decoder hung (no sign of life for 0.005 min)"))
    results.close()


def _core_limit(task: str, alive: Callable[[], None]) -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_CORE)


def test_a_crash_leaves_no_picture_of_the_memory() -> None:
    """A core dump would hold the film and its header."""
    assert list(in_workers(_core_limit, ["a"], count=1)) == [("a", (0, 0))]


def test_tasks_are_taken_as_they_are_needed() -> None:
    taken = []
    tasks = (taken.append(k) or str(k) for k in range(50))
    results = in_workers(_task, tasks, count=1)
    next(results)
    assert len(taken) <= 2
    results.close()


def _dies(task: object, alive: Callable[[], None]) -> None: ...


def test_processes_that_cannot_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.preparation.crash_safe_pool._work", _dies)
    with pytest.raises(Refusal, match="cannot be started"):
        list(in_workers(_task, ["a"], count=1))
