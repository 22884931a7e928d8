"""SIIM-ACR and the hospital may name one patient or study in two ways: which films share one but for that.

Within a hospital such spellings are united. Across sources they are but a warning: numbers of two hospitals
may be the same without their zeros, and be of two people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common.files import write_csv
from common.preparation.leaks import Pair

FILE = "spellings.csv"
COLUMNS = {
    "patient": "pseudonym of the patient's identifier without leading zeros, capitals and blanks",
    "study": "the same of the study",
}


def write_spellings(folder: Path, canonical: Sequence[Mapping[str, str | None]]) -> None:
    """Write the file of a set, a row for each row of its prepared cases."""
    write_csv(folder / FILE, list(COLUMNS), [dict(each) for each in canonical])


def read_spellings(folder: Path, films: int) -> list[dict[str, str]]:
    """Read it; empty texts where the set was prepared before there was such a file."""
    if not (folder / FILE).exists():
        return [dict.fromkeys(COLUMNS, "")] * films
    table = pd.read_csv(folder / FILE, dtype=str, keep_default_na=False)
    return [{column: row[column] for column in COLUMNS} for row in table.to_dict("records")]


def spelt_otherwise(
    sets: Mapping[str, tuple[Sequence[Mapping[Any, Any]], Sequence[Mapping[str, str | None]]]],
) -> list[Pair]:
    """One pair of films for each patient and study that SIIM-ACR and the hospital spell in different ways.

    Args:
        sets: Name of each set -> rows of its prepared cases, and their canonical identifiers.
    """
    pairs = []
    for column in COLUMNS:
        known: dict[bool, dict[str, tuple[str, str, str]]] = {True: {}, False: {}}
        for name, (rows, canonical) in sets.items():
            for row, each in zip(rows, canonical, strict=True):
                if each.get(column):
                    known[name == "siim"].setdefault(str(each[column]), (row["case"], name, row[column]))
        for key in known[True].keys() & known[False].keys():
            (case_a, part_a, one), (case_b, part_b, other) = known[True][key], known[False][key]
            if one != other:
                pairs.append(
                    Pair(case_a, part_a, case_b, part_b, f"same {column}, spelt in another way", None)
                )
    return sorted(pairs)  # keys that were intersected have no order
