"""A result folder while inference works on it, so that a killed run goes on where it stopped.

`result_<system>.partial` holds the pictures that are written, what the run belongs to (`belongs_to.json`),
and a journal of each process (`journal_0.jsonl`, ...): one line a film and stage, written when the film is
done. A half-written last line counts for nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common import artefacts
from common.artefacts import canonical_json, shown
from common.processes import Processes

_HEADING, _LOCK, _JOURNALS = "belongs_to.json", ".lock", "journal_*.jsonl"

Entry = dict[str, Any]


class Unfinished:
    """The partial result of one system.

    All processes make it together, and call `found` together.

    Args:
        target: The result folder; the partial one lies beside it.
        belongs_to: What decides the result: plain JSON. A partial result of something else is dropped.
        processes: The first of them keeps the folder in order.

    Raises:
        Refusal: Another run is at work in it.
    """

    def __init__(self, target: Path, belongs_to: dict[str, Any], processes: Processes) -> None:
        self._target, self._processes = target, processes
        self.folder = target.with_name(f"{target.name}.partial")
        if processes.first:
            busy = f"another process is at work in {shown(self.folder)}"
            self._lock = artefacts.alone(self.folder / _LOCK, busy)
            if self._heading() != belongs_to:
                self._clear()
                artefacts.write_json(self.folder / _HEADING, belongs_to)
            self._gather()
        processes.wait()

    def _heading(self) -> Any:
        try:
            return json.loads((self.folder / _HEADING).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    def _gather(self) -> None:
        """Put what an earlier run's processes left into one journal, without its half-written last lines."""
        entries = self._read()
        with artefacts.whole_file(self.folder / "journal_0.jsonl") as temporary:
            temporary.write_text("".join(canonical_json(entry) + "\n" for entry in entries), encoding="utf-8")
        for path in self.folder.glob(_JOURNALS):
            if path.name != "journal_0.jsonl":
                path.unlink()
        for path in self.folder.glob(".*.tmp"):  # what it was writing when it was killed
            path.unlink()

    def _read(self) -> list[Entry]:
        entries = []
        for path in sorted(self.folder.glob(_JOURNALS)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):
                    entries.append(json.loads(line))
        return entries

    def found(self, stage: int) -> dict[int, Entry]:
        """What all processes, now or in an earlier run, found in a stage: {row of the film: entry}."""
        self._processes.wait()
        entries = {entry["row"]: entry for entry in self._read() if entry["stage"] == stage}
        self._processes.wait()  # nobody writes on before all have read
        return entries

    @contextmanager
    def journal(self, stage: int) -> Iterator[Callable[..., None]]:
        """Give `add(row, **found)`, which notes a finished film and what was found: plain JSON."""
        with open(self.folder / f"journal_{self._processes.rank}.jsonl", "a", encoding="utf-8") as file:

            def add(row: int, **found: Any) -> None:
                file.write(canonical_json({"stage": stage, "row": row, **found}) + "\n")
                file.flush()

            yield add

    def finish(self) -> None:
        """Put the folder in the place of an earlier result; by the first process, when all is written."""
        shutil.rmtree(self._target, ignore_errors=True)
        for path in (*self.folder.glob(_JOURNALS), self.folder / _HEADING, self.folder / _LOCK):
            path.unlink()
        self.folder.rename(self._target)
        self._lock.close()
