"""What became of the films of an input, and how each shard hands on what became of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import canonical_json
from common.prediction.new_films import FileState
from common.prediction.written_files import SHARDS, WrittenFiles
from common.shards import Shard


@dataclass
class Outcomes:
    """What became of films, by their places among all that lies in the input.

    Attributes:
        read: State of a film's file when it was read; its finding is written.
        unread: Why a film could not be read.
    """

    read: dict[int, FileState] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    def add(self, others: Iterable[Outcomes]) -> None:
        """Add those of other films."""
        for each in others:
            self.read |= each.read
            self.unread |= each.unread

    def hand_in(self, written: WrittenFiles, shard: Shard, work: str) -> None:
        """Leave what became of a shard's films for the process that writes the tables.

        Args:
            written: Manifest of the output folder.
            shard: The shard, all of whose films are done.
            work: SHA-256 of all that decides which films there are, and what is found in them.
        """
        content = {
            "work": work,
            "read": [[place, file.digest, *file.stamp] for place, file in self.read.items()],
            "unread": [*self.unread.items()],
        }
        written.write({outcomes_file(written.folder, shard): canonical_json(content).encode()})

    @classmethod
    def handed_in(cls, folder: Path, shard: Shard, work: str) -> Outcomes | None:
        """What a shard handed in; None where it did not, or of other work."""
        try:
            content: dict[str, Any] = json.loads(outcomes_file(folder, shard).read_text(encoding="utf-8"))
            if content["work"] != work:
                return None
            read = {place: FileState(digest, tuple(stamp)) for place, digest, *stamp in content["read"]}
            return cls(read, dict(content["unread"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def clear_away(written: WrittenFiles) -> None:
    """Take back all that shards left in a folder, which nobody else may use now."""
    written.gather()
    folder = written.folder / SHARDS
    written.remove(path for path in folder.glob("*_of_*.json") if written.is_ours(path))
    with suppress(OSError):  # somebody else's files are there
        folder.rmdir()


def outcomes_file(folder: Path, shard: Shard) -> Path:
    """Where a shard hands in what became of its films, in an output folder."""
    return folder / SHARDS / f"{shard.name}.json"
