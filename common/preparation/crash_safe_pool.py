"""Worker processes that may crash or hang: each costs the film at hand, never the run."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from common.refusal import Refusal

SECONDS = 10  # of processor time without a sign of life, after which a worker is taken to hang
PATIENCE = 3600.0  # seconds by the clock without one: it is blocked, however busy the machine is
SIGN_SECONDS = 0.1  # from one sign of life to the next, at least
MEMORY = 3 * 2**29  # bytes a worker may use beyond what it starts with: 2 GB in all
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_SPAWN = get_context("spawn")  # not forked: the parent may have started threads

Function = Callable[[Any, Callable[[], None]], Any]


@dataclass(frozen=True)
class Lost:
    """What comes back instead of a result when the worker crashed or hung."""

    reason: str


@dataclass
class _Worker:
    """One process, our end of its pipe, the task it holds and when it is given up."""

    process: BaseProcess
    pipe: connection.Connection
    deadline: float
    ready: bool = False
    task: Any = None

    @property
    def free(self) -> bool:
        return self.ready and self.task is None


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes that run `function(task, alive)` and may be lost. They start at once, while others load.

    Args:
        function: Function of a module. `alive()` tells the parent that it makes progress. What it prints is
            dropped: decoders print what they find in a header. It must catch its own exceptions.
        count: Number of processes.
        seconds: Processor time without a sign of life, after which a worker is killed. A process that waits
            its turn on a busy machine, or for a slow disk, uses none.
        memory: Bytes a worker may use beyond what it starts with (Linux); more is a MemoryError in it.
    """

    def __init__(self, function: Function, count: int, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self._function, self._seconds, self._memory = function, seconds, memory
        self._workers: list[_Worker] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        """Start further processes, up to so many in all."""
        while len(self._workers) < count:
            self._workers.append(self._start())

    def results(self, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Run every task.

        Args:
            tasks: Tasks, none of them None, taken as workers become free, so that few are in memory.

        Yields:
            (task, result) in the order of completion; the result is a `Lost` after a crash or a hang.

        Raises:
            Refusal: The processes cannot be started.
        """
        waiting, workers, more = iter(tasks), self._workers, True
        while True:
            for worker in workers:
                if more and worker.free:
                    more = _give_next(worker, waiting)
            if not more and all(worker.task is None for worker in workers):
                return
            for worker in _heard_or_late(workers):
                held = worker.task
                lost, result = _listen(worker, self._seconds)
                if lost:
                    workers[workers.index(worker)] = self._start()
                if held is not None and worker.task is None:
                    yield held, result

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.process.kill()
            worker.pipe.close()

    def _start(self) -> _Worker:
        ours, theirs = _SPAWN.Pipe()
        what = (self._function, theirs, self._seconds, self._memory)
        process = _SPAWN.Process(target=_work, args=what, daemon=True)
        process.start()
        theirs.close()  # so that our end says when the process is gone
        return _Worker(process, ours, time.monotonic() + PATIENCE)


def in_workers(
    function: Function,
    tasks: Iterable[Any],
    count: int | None = None,
    seconds: int = SECONDS,
    memory: int = MEMORY,
) -> Generator[tuple[Any, Any], None, None]:
    """`Workers.results` of processes (None: one a core) that end with the tasks; arguments as there."""
    workers = Workers(function, count or cores(), seconds, memory)
    try:
        yield from workers.results(tasks)
    finally:  # also when nobody asks for further results
        workers.close()


def _give_next(worker: _Worker, waiting: Iterator[Any]) -> bool:
    """Hand over the next task; False when there is none."""
    task = next(waiting, None)
    worker.deadline = math.inf if task is None else time.monotonic() + PATIENCE
    if task is not None:
        worker.task = task
        with suppress(OSError):  # it died while idle: its pipe says so next
            worker.pipe.send(task)
    return task is not None


def _heard_or_late(workers: list[_Worker]) -> list[_Worker]:
    """Wait for the first worker that says something, dies, or is past its deadline."""
    nearest = min(worker.deadline for worker in workers)
    wait = None if nearest == math.inf else max(nearest - time.monotonic(), 0)
    heard = set(connection.wait([worker.pipe for worker in workers], wait))
    now = time.monotonic()
    return [worker for worker in workers if worker.pipe in heard or now > worker.deadline]


def _listen(worker: _Worker, seconds: int) -> tuple[bool, Any]:
    """Take one message of a worker, or its loss: (is it lost, the result of its task)."""
    try:
        if not worker.pipe.poll():
            return True, _give_up(worker, f"its decoder hung (no sign of life for {PATIENCE / 60:g} min)")
        kind, result = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        if worker.process.exitcode == -signal.SIGXCPU:
            return True, _give_up(worker, f"its decoder hung ({seconds} s of processor time)")
        return True, _give_up(worker, f"its decoder crashed ({_ending(worker.process.exitcode)})")
    if kind == "alive":
        worker.deadline = time.monotonic() + PATIENCE
    else:
        worker.ready, worker.task, worker.deadline = True, None, math.inf
    return False, result


def _give_up(worker: _Worker, reason: str) -> Lost:
    worker.process.kill()
    worker.pipe.close()
    if not worker.ready:
        # No film's fault: one after the other would be started and lost.
        raise Refusal("the processes that read films cannot be started", found=reason)
    worker.task = None
    return Lost(reason)


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


def _work(function: Function, pipe: connection.Connection, seconds: int, memory: int) -> None:
    """The life of a worker process: a task comes, its result goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _keep_memory()
    _limit_memory(memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the film
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    pipe.send(("ready", None))
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            _limit_time(seconds)  # before the task comes: what the last one left is not enough to receive it
            task = pipe.recv()
            pipe.send(("done", function(task, _sign_of_life(pipe, seconds))))


def _sign_of_life(pipe: connection.Connection, seconds: int) -> Callable[[], None]:
    """`alive` of a task. Most tasks end sooner than one is due: each wakes the parent, which costs."""
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last > SIGN_SECONDS:
            last = time.monotonic()
            _limit_time(seconds)
            pipe.send(("alive", None))

    return alive


def _keep_memory() -> None:
    """Have glibc keep what is freed: else every film's large arrays are fetched from the system anew.

    A third of the time of decoding went there (`benchmarks/preparing.py`).
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, 2**30)


def _limit_time(seconds: int) -> None:
    """Have the kernel end this process (SIGXCPU) when it has computed for so long from now on."""
    limit = math.ceil(time.process_time()) + seconds  # the kernel counts whole seconds since the start
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def _limit_memory(memory: int) -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        pass  # not Linux, or a lower limit is set already
