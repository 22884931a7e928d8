"""A reader study: its plan, the films in the order drawn for each reader, and the calls, which stay.

The folder of a study holds `plan.toml`, which the coordinator writes; `calls.jsonl`, to which every call is
appended and from which nothing is taken; and `calls.csv`, the last call of each film, which
`bootstrap.py --readers` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.files import LOCK, alone, csv_text, digest
from common.journal import Journal, read_journal
from common.paths import shown
from common.prediction.written_files import NotOurs, WrittenFiles
from common.recipes.recipe_file import load_table
from common.refusal import Refusal
from common.statistics.human_readers import AID_COLUMN, OPTIONAL, REQUIRED

CALL_COLUMNS = (*REQUIRED, *OPTIONAL)
# Each once: calls.csv has room for one call of a film by a reader with aid, and one without.
_SESSIONS = (["without"], ["with"], ["without", "with"], ["with", "without"])
_LONGEST_CODE = 40  # as `bootstrap.py --readers` takes it
_KEYS = {"readers": dict, "system": str, "seed": int, "cases": list}
_EXAMPLE = 'docs/reading.md shows one: system = "eff", seed = 1, then [readers] and A1 = ["without", "with"]'


@dataclass(frozen=True)
class Plan:
    """The plan of a reader study.

    Attributes:
        readers: Whether the reader sees what the system says in each session, by the reader's code.
        system: System whose output is shown with aid.
        seed: Seed of the orders.
        cases: Pseudonyms of the films, each read once a session.
    """

    readers: Mapping[str, tuple[bool, ...]]
    system: str
    seed: int
    cases: tuple[str, ...]

    def order(self, reader: str, session: int) -> list[str]:
        """The films in the order of a reader's session, counted from 0.

        It depends on nothing but seed, code, session and films: another reader who joins changes none.
        """
        key = int(digest(str(self.seed), reader, str(session)), 16)
        return [self.cases[i] for i in np.random.default_rng(key).permutation(len(self.cases))]


def read_plan(path: Path, known: list[str], systems: list[str]) -> Plan:
    """Read a plan.

    Args:
        path: Path of plan.toml.
        known: Pseudonyms of the test films; a plan that names no cases means all of them.
        systems: Systems whose results are there.

    Raises:
        Refusal: It is missing, no TOML, or says what cannot be.
    """
    if not path.is_file():
        raise Refusal("a reader study needs its plan", missing=shown(path), do=_EXAMPLE)
    content: dict[str, Any] = {"system": systems[0], "seed": 0, "cases": known, **load_table(path)}
    wrong = [key for key in content if key not in _KEYS or not isinstance(content[key], _KEYS[key])]
    if wrong or not content.get("readers"):
        raise Refusal(f"{shown(path)} is no plan", found=", ".join(wrong) or "no readers", do=_EXAMPLE)
    if content["system"] not in systems:
        raise Refusal(f"{shown(path)}: there are no results of its system", do=f"use {' or '.join(systems)}")
    cases = [str(case) for case in content["cases"]]
    unknown = set(cases) - set(known)
    if unknown or not cases or len(set(cases)) < len(cases):
        found = f"{len(unknown)} that are no labelled test film" if unknown else "none, or one twice"
        raise Refusal(f"{shown(path)}: its cases cannot be read", found=found, do="use those of cases.csv")
    readers = {code: _sessions(path, code, given) for code, given in content["readers"].items()}
    return Plan(readers, content["system"], content["seed"], tuple(cases))


def _sessions(path: Path, code: str, given: Any) -> tuple[bool, ...]:
    if not (0 < len(code) <= _LONGEST_CODE and code.isascii() and code.isalnum()):
        raise Refusal(f"{shown(path)}: a reader's code is 1 to {_LONGEST_CODE} letters and digits")
    if given not in _SESSIONS:
        raise Refusal(
            f"{shown(path)}: the sessions of reader {code} cannot be", do='use ["without"], ["with"] or both'
        )
    return tuple(each == "with" for each in given)


@dataclass(frozen=True)
class Place:
    """Where a reader is.

    Attributes:
        session: Session at hand, from 0.
        called: Films of it that are called; they come first in its order.
        done: Whether every film of every session is called.
    """

    session: int
    called: int
    done: bool


class Study:
    """A reader study that goes on; one process at a time holds it.

    Args:
        folder: Folder of the study.
        known: Pseudonyms of the labelled test films.
        systems: Systems whose results are there.
        films: Hash of the test films.

    Raises:
        Refusal: Another process holds it; its plan is none, or another one than that of the calls; somebody
            else's calls.csv is in the way.
    """

    def __init__(self, folder: Path, known: list[str], systems: list[str], films: str) -> None:
        self.plan = read_plan(folder / "plan.toml", known, systems)
        self._folder = folder
        self._lock = alone(folder / LOCK, f"the reader study in {shown(folder)} is held by another process")
        self._path = folder / "calls.jsonl"
        self._calls: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
        plan = digest(self.plan.system, str(self.plan.seed), films, *self.plan.cases)
        entries = read_journal(self._path) if self._path.exists() else []
        if not entries:
            self._keep({"plan": plan})
        elif entries[0].get("plan") != plan:
            raise Refusal(
                f"{shown(self._path)} holds calls by another plan",
                found="other films, another order, or another system",
                do="give the plan as it was, or begin in another folder",
            )
        for entry in entries[1:]:
            self._note(entry)
        self.write_calls()

    def place(self, reader: str) -> Place:
        """Where a reader is: the first session with a film that is not called."""
        for session in range(len(self.plan.readers[reader])):
            called = len(self._calls.get((reader, session), {}))
            if called < len(self.plan.cases):
                break
        return Place(session, called, called == len(self.plan.cases))

    def last(self, place: Place) -> int:
        """Position of the last film that a reader there may call: the first one that is not called."""
        return min(place.called, len(self.plan.cases) - 1)

    def earlier(self, reader: str, session: int, position: int) -> dict[str, Any] | None:
        """The reader's last call of a film; None: not called."""
        return self._calls.get((reader, session), {}).get(self.plan.order(reader, session)[position])

    def call(self, reader: str, session: int, position: int, said: Mapping[str, Any]) -> None:
        """Keep a call: it is on the disk when this returns.

        Args:
            reader: Code of the reader.
            session: Session from 0, which must be the one at hand.
            position: Place of the film in the order, at most that of the first one that is not called.
            said: `call` 0 or 1, `confidence` 0-100, `seconds` since the film was shown, and `at`, the time.

        Raises:
            ValueError: It cannot be, or the film is not at hand.
            KeyError: Something is not said.
            Refusal: The disk is full, or will not be written: the call is not kept.
        """
        place = self.place(reader)
        if _whole(session, place.session) != place.session:
            raise ValueError("this session is over")
        entry = {
            "reader": reader,
            "session": session,
            AID_COLUMN: int(self.plan.readers[reader][session]),
            "case": self.plan.order(reader, session)[_whole(position, self.last(place))],
            "call": _whole(said["call"], 1),
            "confidence": _whole(said["confidence"], 100),
            "seconds": round(float(said["seconds"]), 1),
            "at": str(said["at"]),
        }
        self._keep(entry)
        self._note(entry)
        if self.place(reader).session != session or self.place(reader).done:
            self.write_calls()  # a session is finished

    def _keep(self, entry: dict[str, Any]) -> None:
        try:
            with Journal(self._path) as journal:  # which ends a line that was cut short
                journal.add(entry, settle=True)
        except OSError as error:
            raise Refusal(
                f"{shown(self._path)} cannot be written, so nothing new is kept",
                found=error.strerror or error,
                do="free space or mend the rights, and save the call again",
            ) from None

    def _note(self, entry: dict[str, Any]) -> None:
        sessions = self.plan.readers.get(entry["reader"], ())
        if entry["session"] >= len(sessions) or entry[AID_COLUMN] != sessions[entry["session"]]:
            raise Refusal(
                f"{shown(self._path)} holds calls of reader {entry['reader']} by other sessions",
                do="give the plan's sessions as they were",
            )
        self._calls.setdefault((entry["reader"], entry["session"]), {})[entry["case"]] = entry

    def write_calls(self) -> None:
        """Write calls.csv: the last call of each film by each reader, with and without aid.

        Raises:
            Refusal: A calls.csv lies there that this study did not write, or that somebody changed.
        """
        rows = [entry for calls in self._calls.values() for entry in calls.values()]
        text = csv_text(CALL_COLUMNS, rows)
        try:
            WrittenFiles(self._folder).write({self._folder / "calls.csv": text.encode()})
        except NotOurs as error:
            raise Refusal(
                f"{shown(error.path)} is not as this study wrote it",
                do="move it away; it is made again from calls.jsonl",
            ) from None

    def close(self) -> None:
        """Write calls.csv and let another process hold the study."""
        self.write_calls()
        self._lock.close()


def _whole(value: Any, high: int) -> int:
    # By its very type: to Python, true is a number.
    if type(value) is not int or not 0 <= value <= high:
        raise ValueError(f"a whole number from 0 to {high} is needed")
    return value
