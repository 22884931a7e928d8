"""What was prepared before an interruption: one line a film, so that no film is prepared twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.journal import Journal, read_journal, write_journal
from common.preparation.film_store import GrowingArrays
from common.preparation.film_task import PREPARED
from common.shards import WHOLE, Shard

JOURNAL = "journal.jsonl"
JOURNALS_OF_SHARDS = "journal.[0-9]*_of_[0-9]*.jsonl"  # while shards of the films are read


class ResumeLog:
    """The entries of a preparation, in memory and in `journal.jsonl`; each is written before the next
    film (a power cut may take the last ones, which are then prepared again).

    The first line says what is being prepared. What an earlier run left is taken up only when its first
    line is the same, and of its films only those whose pixels and mask are in the arrays as the entry says.
    A half-written last line is dropped.

    Each shard has a journal of its own, and takes up what was noted of its films in any. Whoever prepares
    all films takes up all, and leaves one journal.
    """

    def __init__(self, folder: Path, heading: str, shard: Shard = WHOLE) -> None:
        """Take up the journals of `folder`, or start one.

        Args:
            folder: Folder of the prepared set.
            heading: SHA-256 (hex) of the listing and the rules.
            shard: Share of this process; with all films, nobody else may be at work.
        """
        self._folder, self._heading = folder, heading
        self._path = folder / (JOURNAL if shard.count == 1 else f"journal.{shard.name}.jsonl")
        self.entries = {
            entry["row"]: entry
            for entry in self._noted()
            if shard.takes(entry["row"]) and _on_disk(folder, entry)
        }
        # Written anew: an entry whose film is not on the disk must not come back at the next interruption.
        write_journal(self._path, [{"heading": heading}, *self.entries.values()])
        if shard.count == 1:
            for path in folder.glob(JOURNALS_OF_SHARDS):
                path.unlink()
        self._journal = Journal(self._path)

    def _noted(self) -> Iterator[dict[str, Any]]:
        for path in _journals(self._folder):
            if _begins_with(path, self._heading):
                yield from read_journal(path)[1:]

    def rows_of_all(self) -> set[int]:
        """Rows of the films that any shard has done, as it says."""
        return {entry["row"] for entry in self._noted()}

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
    return any(_begins_with(path, heading) for path in _journals(folder))


def started_otherwise(folder: Path, heading: str) -> bool:
    """Whether `folder` holds the beginning of another preparation, and none of this one."""
    return bool(_journals(folder)) and not started(folder, heading)


def _journals(folder: Path) -> list[Path]:
    return [path for name in (JOURNAL, JOURNALS_OF_SHARDS) for path in sorted(folder.glob(name))]


def _begins_with(path: Path, heading: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return json.loads(file.readline()) == {"heading": heading}
    except (OSError, ValueError):
        return False


def _on_disk(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the arrays hold the film as its entry says (a power cut can lose what was written last)."""
    if entry["kind"] != PREPARED:
        return True
    return GrowingArrays(folder).hold(entry["row"], entry["picture"], entry["mask"])
