"""How far long work has come: a bar in a terminal, else a line now and then (nohup, SLURM, a pipe)."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from tqdm import tqdm

_FIRST = 30.0  # seconds after which the first line is printed; shorter work needs none
_GROWTH = 1.5  # each later line comes after so many times the time of the one before, at most _LONGEST apart
_LONGEST = 600.0


class Progress(Protocol):
    """What callers use of either form, as a context."""

    def __enter__(self) -> Progress: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...
    def update(self, n: int = 1, /) -> object: ...


def progress(total: int, title: str | None, unit: str = "film", done: int = 0) -> Progress:
    """Show how far work has come.

    Args:
        total: Number of pieces of work.
        title: What is done, before the numbers; None: nothing is shown.
        unit: Name of a piece.
        done: Number of pieces that were done before.
    """
    if title is None or sys.stderr.isatty():
        return tqdm(total=total, initial=done, desc=title, unit=unit, delay=1, disable=title is None)
    return Lines(total, title, unit, done)


class Lines:
    """A line now and then on stdout: `preparing SIIM-ACR: 1200 of 12089 films, 10 min, about 90 min left`."""

    def __init__(self, total: int, title: str, unit: str = "film", done: int = 0) -> None:
        self._total, self._title, self._unit, self._done = total, title, unit, done
        self._before = done
        self._begun = time.monotonic()
        self._next = _FIRST

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next > _FIRST and self._done == self._total:  # what began to be told is told to its end
            self._print(time.monotonic() - self._begun)

    def update(self, n: int = 1) -> None:
        """So many more pieces are done."""
        self._done += n
        seconds = time.monotonic() - self._begun
        if seconds >= self._next and self._done < self._total:
            self._next = seconds + min(_GROWTH * seconds, _LONGEST)
            self._print(seconds)

    def _print(self, seconds: float) -> None:
        left, here = self._total - self._done, self._done - self._before
        rest = f", about {in_words(seconds / here * left)} left" if left and here else ""
        count = f"{self._done} of {self._total} {self._unit}s"
        print(f"{self._title}: {count}, {in_words(seconds)}{rest}", flush=True)


def in_words(seconds: float) -> str:
    """`2 d 3 h`, `3 h 20 min`, `4 min`, `30 s`: as exact as an estimate is."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
