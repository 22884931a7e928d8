"""Unlabelled films must be strangers: which of them share a patient, a study or a picture with other films?

With a test film: a student would have learnt from what it is tested on, so the folder is refused. With a
training film: a film of fold k may not teach student k, by which thresholds are chosen on that fold. With
these and SIIM-ACR's: the teachers know it already. Such films are left out, for all students alike, so that
all learn from the same. What holds for a film holds for all films of its patient and study: it may be the
only one by which they are recognised, as a copy of a test film that names no patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.preparation.leaks import Leaks
from common.sources.identities import unite

SET = "unlabelled"
_TITLES = {"ntuh_test": "test", "ntuh_train": "training", "siim": "SIIM-ACR"}


def recognised(leaks: Leaks, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[int, str], dict[int, str]]:
    """The unlabelled films that may not be used.

    Args:
        leaks: What the leak check found between all sets.
        rows: Prepared cases of the unlabelled films, whose cases differ.

    Returns:
        Row -> why, of those that share something with a test film, or with a film that does; and of all
        others that share something.
    """
    places = {row["case"]: place for place, row in enumerate(rows)}
    found: dict[str, dict[int, str]] = {title: {} for title in _TITLES.values()}
    for pair in leaks.errors:
        for case, own, part in (
            (pair.case_a, pair.part_a, pair.part_b),
            (pair.case_b, pair.part_b, pair.part_a),
        ):
            if own == SET:
                title = _TITLES[part.split(" ")[0]]
                found[title].setdefault(places[case], f"a {title} film has the {pair.why}")
    of_test = _with_relatives(found["test"], rows, "a test film")
    known = _with_relatives(found["training"] | found["SIIM-ACR"], rows, "a film that teachers know")
    return of_test, {place: why for place, why in known.items() if place not in of_test}


def _with_relatives(found: dict[int, str], rows: Sequence[Mapping[str, Any]], of_whom: str) -> dict[int, str]:
    """The films that were found, and all that share a patient or a study with one of them, and so on."""
    found = dict(found)
    while True:
        names = {column: {rows[place][column] for place in found} for column in ("patient", "study")}
        further = [
            place
            for place, row in enumerate(rows)
            if place not in found and any(row[column] and row[column] in names[column] for column in names)
        ]
        if not further:
            return found
        found |= dict.fromkeys(
            further, f"it is of the same patient or study as an unlabelled copy of {of_whom}"
        )


def name_as_known(
    rows: list[dict[str, Any]],
    canonical: Sequence[Mapping[str, str | None]],
    known: Sequence[tuple[list[dict[Any, Any]], Sequence[Mapping[str, str]]]],
) -> None:
    """Give patients and studies the names that they have among the hospital's films, whatever their spelling.

    Args:
        rows: Prepared cases of the unlabelled films; `patient` and `study` are changed.
        canonical: The pseudonyms of their canonical identifiers, as in `spellings.csv`.
        known: The same of the hospital's sets.
    """
    together = [row for each, _ in known for row in each] + rows
    keys = [key for _, each in known for key in each] + [*canonical]
    for column in ("patient", "study"):
        unite(together, [key[column] for key in keys], column)
