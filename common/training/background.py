"""What is written while training goes on, so that a GPU need not wait for a disk or a picture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from threadpoolctl import threadpool_limits


class Background:
    """One thread that does one thing after the other, in the order in which they are given.

    What goes wrong there is raised here, by the next call of a method. Leaving its context waits for what is
    under way, also where training ended with an error.
    """

    def __init__(self) -> None:
        # Without threads of its own within torch: libgomp lets its teams fall asleep after each operation
        # once they have more threads than there are cores, and a step on a CPU took up to twice as long.
        self._thread = ThreadPoolExecutor(1, initializer=threadpool_limits, initargs=(1, "openmp"))
        self._last: Future[None] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.check()

    def do(self, *works: Callable[[], object]) -> None:
        """Begin these, one after the other; the first that fails is the last that is tried.

        What was given before is waited for, so that no more than this is held in memory.
        """

        def each() -> None:
            for work in works:
                work()

        self.finish()
        self._last = self._thread.submit(each)

    def finish(self) -> None:
        """Wait until all is done."""
        if self._last is not None:
            self._last.result()

    def check(self) -> None:
        """Raise what went wrong, if anything did so far."""
        if self._last is not None and self._last.done():
            self._last.result()
