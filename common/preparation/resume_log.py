"""What was prepared before an interruption: one line a film, so that no film is prepared twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.journal import Journal, read_journal, write_journal
from common.preparation.film_store import GrowingArrays
from common.preparation.film_task import PREPARED


class ResumeLog:
    """The entries of a preparation, in memory and in `journal.jsonl`; each is written before the next
    film (a power cut may take the last ones, which are then prepared again).

    The first line says what is being prepared. What an earlier run left is taken up only when its first
    line is the same, and of its films only those whose pixels and mask are in the arrays as the entry says.
    A half-written last line is dropped.
    """

    def __init__(self, folder: Path, heading: str) -> None:
        """Take up the journal of `folder`, or start one.

        Args:
            folder: Folder of the prepared set.
            heading: SHA-256 (hex) of the listing and the rules.
        """
        self._path = folder / "journal.jsonl"
        self.entries = {
            entry["row"]: entry for entry in _read(self._path, heading) if _on_disk(folder, entry)
        }
        # Written anew: an entry whose film is not on the disk must not come back at the next interruption.
        write_journal(self._path, [{"heading": heading}, *self.entries.values()])
        self._journal = Journal(self._path)

    def add(self, entry: dict[str, Any]) -> None:
        """Add the entry of a film; it has at least `row` and `kind`."""
        self.entries[entry["row"]] = entry
        self._journal.add(entry)  # not settled: what a power cut takes, `_on_disk` notices

    def close(self) -> None:
        """Close the file; it stays on disk."""
        self._journal.close()

    def remove(self) -> None:
        """Remove the file, once nothing depends on it any more."""
        self._path.unlink()


def started(folder: Path, heading: str) -> bool:
    """Whether `folder` holds the beginning of this very preparation."""
    try:
        with open(folder / "journal.jsonl", encoding="utf-8") as file:
            return json.loads(file.readline()) == {"heading": heading}
    except (OSError, ValueError):
        return False


def _read(path: Path, heading: str) -> list[dict[str, Any]]:
    if not started(path.parent, heading):
        return []
    return read_journal(path)[1:]


def _on_disk(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the arrays hold the film as its entry says (a power cut can lose what was written last)."""
    if entry["kind"] != PREPARED:
        return True
    return GrowingArrays(folder).hold(entry["row"], entry["picture"], entry["mask"])
