"""Journals: what is done so far, a line of JSON an entry, appended as it happens.

A kill cuts at most the last line short. Such a line counts for nothing, and the next entry begins a new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.files import canonical_json, whole_file


class Journal:
    """A journal that grows; a with statement closes it.

    Args:
        path: Its file, which may be there already.
    """

    def __init__(self, path: Path) -> None:
        # `+`, to see whether a kill cut the last line short.
        self._file = open(path, "ab+")  # noqa: SIM115
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, *entries: Mapping[str, Any], settle: bool = False) -> None:
        """Append entries: plain JSON.

        Args:
            entries: In this order.
            settle: Wait until they are on the disk, so that not even a power cut loses them.
        """
        self._file.write(_lines(entries).encode())
        self._file.flush()
        if settle:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it stays on the disk."""
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The entries of a journal, without lines that were cut short.

    Raises:
        OSError: It is missing, or cannot be read.
    """
    entries = []
    # A cut may fall inside a character; `splitlines` would split at U+2028, too, which a text may hold.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(ValueError):
            entries.append(json.loads(line))
    return [entry for entry in entries if isinstance(entry, dict)]


def write_journal(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a journal anew, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(_lines(entries), encoding="utf-8")


def _lines(entries: Iterable[Mapping[str, Any]]) -> str:
    return "".join(canonical_json(entry) + "\n" for entry in entries)
