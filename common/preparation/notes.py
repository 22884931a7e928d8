"""What was odd about films that were prepared all the same, and which films have a fault: which, how many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.files import write_csv
from common.paths import shown
from common.pseudonyms import pseudonym
from common.sources.source_film import FOUND, SourceFilm

FILE = "notes.csv"
COLUMNS = {
    "case": "pseudonym of the film",
    "origin": "where its source lists it",
    "note": "what was odd, and how it was taken",
}
_NAMED = 3  # films that a line of the terminal names; the others are counted


def write_notes(folder: Path, notes: list[tuple[SourceFilm, str]]) -> None:
    """Write `notes.csv`, where there is any note."""
    if notes:
        rows = [
            {"case": pseudonym("case", film.identifier), "origin": film.origin, "note": note}
            for film, note in notes
        ]
        write_csv(folder / FILE, list(COLUMNS), rows)


def print_notes(folder: Path, notes: list[tuple[SourceFilm, str]]) -> None:
    """Print a line for each kind of note, with the films that it is about."""
    for line in grouped(notes):
        print(f"  note: {line}")
    if notes:
        print(f"  notes on single films: {shown(folder / FILE)}")


def grouped(notes: Iterable[tuple[SourceFilm, str]]) -> list[str]:
    """`12 films: its mask has grey edges (cases.csv, row 3; cases.csv, row 4; ...)`, a line for each text.

    The value that a text found is told with its film.
    """
    kinds: dict[str, list[str]] = {}
    for film, text in notes:
        what, _, value = text.partition(FOUND)
        kinds.setdefault(what, []).append(f"{film.origin}: {value}" if value else film.origin)
    return [f"{_films(len(where))}: {what} ({named(where)})" for what, where in kinds.items()]


def named(where: list[str]) -> str:
    """The first few, and how many more."""
    return "; ".join(where[:_NAMED]) + (f"; and {len(where) - _NAMED:,} more" if len(where) > _NAMED else "")


def _films(count: int) -> str:
    return f"{count:,} film" + ("s" if count != 1 else "")
