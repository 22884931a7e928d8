"""A result folder while inference works on it, so that a killed run goes on where it stopped.

`result_<system>.partial` holds the pictures that are written, what the run belongs to (`belongs_to.json`),
and a journal of each process (`journal_0.jsonl`, ...): one line a film and stage, written when the film is
done, and in the first stage the name of its pictures. A half-written last line counts for nothing.
"""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common.distributed import Processes
from common.files import CASE, LOCK, alone, write_json
from common.journal import Journal, read_journal, write_journal
from common.paths import shown
from common.removal import Written, move_along, refuse_foreign, remove_temporaries, remove_written

PICTURES = {"maps": ".png", "truth": ".png", "films": ".jpg"}  # subfolder -> suffix of the cases' pictures
_HEADING = "belongs_to.json"
_JOURNALS = tuple(f"journal_{'[0-9]' * digits}.jsonl" for digits in (1, 2, 3))

Entry = dict[str, Any]


def written_in(folder: Path) -> Written:
    """The files of a result folder, finished or not.

    Pictures are named by their cases: by pseudonyms, or by identifiers (`--keep-identifiers`), which are told
    from a user's pictures by the folder's own tested cases and journals.
    """
    identifiers = {name for name in _cases(folder) if "/" not in name}
    cases = [CASE, *(glob.escape(name) for name in sorted(identifiers))]
    pictures = [f"{kind}/{case}{suffix}" for kind, suffix in PICTURES.items() for case in cases]
    names = (*pictures, "flow.json", "cases.csv", *_JOURNALS, _HEADING, "meta.json")
    return Written(names, {_HEADING: "", "meta.json": '"cases_sha256"'})


def _cases(folder: Path) -> set[str]:
    """What the tested cases and the journals of a folder call its cases."""
    cases = {entry["case"] for entry in _journalled(folder) if "case" in entry}
    with suppress(OSError, csv.Error):
        text = (folder / "cases.csv").read_text(encoding="utf-8", errors="replace")
        cases |= {row["case"] for row in csv.DictReader(text.splitlines()) if row.get("case")}
    return {case for case in cases if not fnmatchcase(case, CASE)}


def _journals(folder: Path) -> list[Path]:
    return [path for name in _JOURNALS for path in sorted(folder.glob(name))]


def _journalled(folder: Path) -> list[Entry]:
    """The entries of all journals, without half-written last lines."""
    return [entry for path in _journals(folder) for entry in read_journal(path)]


class ResumableResult:
    """The partial result of one system.

    All processes make it together, and call `found` together.

    Args:
        target: The result folder; the partial one lies beside it.
        belongs_to: What decides the result: plain JSON. A partial result of something else is dropped.
        processes: The first of them keeps the folder in order.

    Raises:
        Refusal: Another run is at work in it, or files are in the way that inference did not write.
    """

    def __init__(self, target: Path, belongs_to: dict[str, Any], processes: Processes) -> None:
        self._target, self._processes = target.resolve(), processes  # a link to another disk stays one
        self.folder = self._target.with_name(f"{target.name}.partial")
        if processes.first:
            busy = f"another process is at work in {shown(self.folder)}"
            for folder in (self._target, self.folder):
                refuse_foreign(folder, written_in(folder))
            self._lock = alone(self.folder / LOCK, busy)
            if self._heading() != belongs_to:
                # We hold the lock: were its file removed, another run could lock a new one.
                remove_written(self.folder, written_in(self.folder), spared=[LOCK])
                write_json(self.folder / _HEADING, belongs_to)
            self._gather()
        processes.wait()

    def _heading(self) -> Any:
        try:
            return json.loads((self.folder / _HEADING).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _gather(self) -> None:
        """Put what an earlier run's processes left into one journal, without its half-written last lines."""
        write_journal(self.folder / "journal_0.jsonl", _journalled(self.folder))
        for path in _journals(self.folder):
            if path.name != "journal_0.jsonl":
                path.unlink()
        remove_temporaries(self.folder, *written_in(self.folder).names)

    def found(self, stage: int) -> dict[int, Entry]:
        """What all processes, now or in an earlier run, found in a stage: {row of the film: entry}."""
        self._processes.wait()
        entries = {entry["row"]: entry for entry in _journalled(self.folder) if entry["stage"] == stage}
        self._processes.wait()  # nobody writes on before all have read
        return entries

    @contextmanager
    def journal(self, stage: int) -> Iterator[Callable[..., None]]:
        """Give `add(row, **found)`, which notes a finished film and what was found: plain JSON."""
        with Journal(self.folder / f"journal_{self._processes.rank}.jsonl") as journal:
            yield lambda row, **found: journal.add({"stage": stage, "row": row, **found})

    def finish(self) -> None:
        """Put the folder in the place of an earlier result; by the first process, when all is written.

        What is not ours in the earlier one moves along.
        """
        # Emptied first: a folder can be renamed over another one only where that is empty.
        kept = remove_written(self._target, written_in(self._target))
        move_along(kept, self._target, self.folder)
        for path in (*_journals(self.folder), self.folder / _HEADING, self.folder / LOCK):
            path.unlink()
        self.folder.rename(self._target)  # at once: no reader finds half a result
        self._lock.close()
