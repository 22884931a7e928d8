"""What a run says, on the terminal and in `log.txt`; there also warnings of libraries, and how it ended."""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from common.paths import shown
from common.refusal import Refusal

NAME = "log.txt"


class RunLog:
    """The text of a run.

    Args:
        folder: Folder of the run; None: nothing is said, as by the processes beside the first one.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / NAME

    def say(self, text: str) -> None:
        """Print a line and write it down."""
        if self._path is not None:
            print(text, flush=True)
            self.note(text)

    def note(self, text: str) -> None:
        """Write a line down.

        Raises:
            Refusal: It cannot be written.
        """
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")
        except OSError as error:
            raise Refusal(
                f"cannot write {shown(self._path)}", found=error.strerror, do="free space or mend the rights"
            ) from error

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Write down what libraries warn of, and an error that ends the run."""
        handler = _Notes(self)
        logging.getLogger().addHandler(handler)
        in_main = threading.current_thread() is threading.main_thread()  # no other may have a handler
        before = signal.signal(signal.SIGTERM, partial(self._terminated, os.getpid())) if in_main else None
        try:
            yield
        except KeyboardInterrupt:
            self.note("interrupted")
            raise
        except Refusal as refusal:
            self._last_words(f"error: {refusal}")
            raise
        except Exception:
            self._last_words(f"error: {traceback.format_exc()}")
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            if in_main:
                signal.signal(signal.SIGTERM, before)

    def _terminated(self, process: int, number: int, _: object) -> None:
        """End by the signal, as SLURM does at its limit; the log then says why it has no more lines."""
        if os.getpid() == process:  # and no worker that was forked
            self._last_words("ended by SIGTERM; the same command goes on from the last checkpoint")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _last_words(self, text: str) -> None:
        # A full disk may be the very error that ends the run: that one is to be seen, not this one.
        with suppress(Refusal):
            self.note(text)


class _Notes(logging.Handler):
    """Warnings and errors of libraries, as lines of the log."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.note(f"{record.levelname.lower()} of {record.name}: {record.getMessage().strip()}")
