"""What was prepared before an interruption: one line a film, so that no film is prepared twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.files import canonical_json, digest, whole_file
from common.preparation.film_store import SIDE, films_file, masks_file, read_row
from common.preparation.film_task import PREPARED


class ResumeLog:
    """The entries of a preparation, in memory and in `journal.jsonl`; each is on disk before the next film.

    The first line says what is being prepared. What an earlier run left is taken up only when its first
    line is the same, and of its films only those whose pixels and mask are in the arrays as the entry says.
    A half-written last line is dropped.
    """

    def __init__(self, folder: Path, heading: str) -> None:
        """Take up the journal of `folder`, or start one.

        Args:
            folder: Folder of the prepared set.
            heading: SHA-256 of the listing and the rules.
        """
        self._path = folder / "journal.jsonl"
        self.entries = {
            entry["row"]: entry for entry in _read(self._path, heading) if _on_disk(folder, entry)
        }
        with whole_file(self._path) as temporary:
            lines = [{"heading": heading}, *self.entries.values()]
            temporary.write_text("".join(canonical_json(line) + "\n" for line in lines), encoding="utf-8")
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def add(self, entry: dict[str, Any]) -> None:
        """Add the entry of a film; it has at least `row` and `kind`."""
        self.entries[entry["row"]] = entry
        self._file.write(canonical_json(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; it stays on disk."""
        self._file.close()

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
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break  # the last line, half written
    return entries


def _on_disk(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the arrays hold the film as its entry says (a power cut can lose what was written last)."""
    if entry["kind"] != PREPARED:
        return True
    if not (films_file(folder).exists() and masks_file(folder).exists()):
        return False
    if digest(read_row(films_file(folder), entry["row"], (SIDE, SIDE)).data) != entry["picture"]:
        return False
    mask = entry["mask"]
    return not mask or digest(read_row(masks_file(folder), entry["row"], (SIDE, SIDE // 8)).data) == mask
