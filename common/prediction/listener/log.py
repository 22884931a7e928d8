"""What the listener tells the terminal: never text of a header, which may name a patient."""

from __future__ import annotations

import logging
import threading
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from common.refusal import Refusal


class Log:
    """What the terminal is told, and counts of what happened; from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """Print a line. No text of a header may be in it."""
        with self._lock, suppress(OSError):  # a full disk below the log must not end the listener
            print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", flush=True)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that happened."""
        with self._lock:
            self.counts[what] += number


def plain(error: Exception) -> str:
    """An error without text of a header: only our own refusals and the system's words are safe."""
    if isinstance(error, Refusal):
        return ", ".join(str(part) for part in (error.what, error.details.get("found")) if part)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"


def hush() -> None:
    """Keep what libraries say off the terminal: they quote headers. For a process that does nothing else."""
    from pynetdicom import _config

    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda _: None  # of pynetdicom's threads; ours catch their own
