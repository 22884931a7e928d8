"""Human readers' calls on the test films, scored as the systems are, and each system against each reader.

The calls are a CSV file (UTF-8, first row the column names) with a row for each film that a reader read:

    case         pseudonym of the film, as in the tested cases (cases.csv of the result files)
    reader       who read it, at most 40 characters; written as it stands, so give a code, not a name
    call         1: pneumothorax; 0: none
    confidence   optional: of pneumothorax, 0 to 100; for all films of a reader or for none
    aid          optional: 1: the reader saw what the system says; 0: not

A reader is scored on the films that the reader read, and compared with a system on the same films, with the
same draws of patients. Films that the reader did not read are left out and counted. What a reader says with
aid is compared with what the same reader says without, on the films that were read both ways, and with no
system: it is not independent of one. The mean of several readers is in `reader_means`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.paths import shown
from common.refusal import Refusal
from common.sources.csv_rows import RAGGED, read_rows
from common.statistics.bootstrap import Bootstrapped, Key, bootstrap, estimate_columns
from common.statistics.compare_systems import fill_in_holm, pair_rows
from common.statistics.metrics import DECISIONS, REFERENCES
from common.statistics.strata import STRATA
from common.statistics.tested_films import Cases

REQUIRED = ("case", "reader", "call")
CONFIDENCE_COLUMN, AID_COLUMN = OPTIONAL = ("confidence", "aid")
CALL = "call"  # the decision of a reader, where a system has `two_stage` and `stage_1`
AID = "aid"  # the decision of what a reader gains by aid
_AIDED = " aided"  # ends the name of what a reader says with aid
_METRICS = ("auroc", "sensitivity", "specificity", "ppv", "npv", "accuracy")
_LONGEST_NAME = 40
_Calls = dict[tuple[str, bool], dict[int, tuple[bool, float]]]  # reader, aided -> row -> call, confidence


@dataclass(frozen=True)
class Reading:
    """What one reader said, with or without aid.

    Attributes:
        reader: The reader's code.
        aided: The reader saw what the system says.
        rows: Rows of the systems' films that the reader read, ascending (int64, length k).
        cases: Films that were read, as if the reader were a system: `stage_1` and `two_stage` are both the
            call, `probability` is the confidence over 100, NaN where none was given. There is no map.
        unread: Number of the systems' films that the reader did not read.
    """

    reader: str
    aided: bool
    rows: np.ndarray
    cases: Cases
    unread: int

    @property
    def name(self) -> str:
        """What stands for the system in the tables."""
        return f"reader {self.reader}{_AIDED if self.aided else ''}"

    @property
    def has_confidence(self) -> bool:
        return not np.isnan(self.cases.probability).any()


# --- reading ---------------------------------------------------------------------------------------


def read_readers(path: Path, cases: Cases) -> dict[str, Reading]:
    """Read the calls of human readers.

    Args:
        path: Path of the CSV file. A byte-order mark, any line ends and columns in any order are accepted.
        cases: Films that can have been read, from either system's results.

    Returns:
        By `reader <name>`, with aid `reader <name> aided`, in order of first appearance. Control characters
        in names are escaped.

    Raises:
        Refusal: The file cannot be read or lacks a column; or, with its row number as a spreadsheet shows it,
            a row with an unknown case, a call or an aid that is not 0 or 1, a wrong confidence, a confidence
            that is only sometimes given, or a case that the reader has called before. No cell is repeated.
    """
    (_, header), *body = read_rows(path) or [(1, [])]
    header = [name.strip() for name in header]
    known = (*REQUIRED, *OPTIONAL)
    if set(header) - set(known) or set(REQUIRED) - set(header) or len(set(header)) < len(header):
        raise Refusal(
            f"{shown(path)} is no table of readers' calls",
            missing=", ".join(name for name in REQUIRED if name not in header) or None,
            found=f"a first row of {len(header)} cells",
            do=f"its first row must name the columns {', '.join(REQUIRED)} and perhaps "
            f"{' and '.join(OPTIONAL)}, separated by commas or semicolons",
        )
    if not body:
        raise Refusal(f"{shown(path)} holds no call", do="it needs a row for each film that a reader read")
    place = {case: i for i, case in enumerate(cases.case.tolist())}
    calls: _Calls = {}
    for number, cells in body:
        try:
            _add(calls, header, [cell.strip() for cell in cells], place)
        except ValueError as error:
            raise Refusal(f"{shown(path)} holds a wrong row", found=f"row {number}: {error}") from None
    readings = [_reading(*who, read, cases) for who, read in calls.items()]
    return {reading.name: reading for reading in readings}


def _add(
    calls: _Calls,
    header: list[str],
    cells: list[str],
    place: Mapping[str, int],
) -> None:
    """Add a row's call and confidence to its reader's, by the film's place.

    Raises:
        ValueError: What is wrong with the row.
    """
    if len(cells) != len(header):
        raise ValueError(RAGGED)
    row = dict(zip(header, cells, strict=True))
    if row["case"] not in place:
        raise ValueError(
            "its case is none of the labelled test films; use those of result_<system>/cases.csv"
        )
    if not 0 < len(row["reader"]) <= _LONGEST_NAME:
        raise ValueError(f"reader is empty or longer than {_LONGEST_NAME} characters")
    if row["call"] not in ("0", "1"):
        raise ValueError("call is neither 0 nor 1")
    if row["reader"].endswith(_AIDED):
        raise ValueError(f"reader ends in '{_AIDED}', which is kept for calls with aid")
    if row.get(AID_COLUMN, "0") not in ("0", "1"):
        raise ValueError("aid is neither 0 nor 1")
    confidence = _confidence(row.get(CONFIDENCE_COLUMN, ""))
    read = calls.setdefault((_printable(row["reader"]), row.get(AID_COLUMN) == "1"), {})
    if place[row["case"]] in read:
        raise ValueError("its reader has called this case before")
    if any(np.isnan(confidence) != np.isnan(earlier) for _, earlier in list(read.values())[:1]):
        raise ValueError("confidence is given for some films of this reader only")
    read[place[row["case"]]] = row["call"] == "1", confidence


def _confidence(text: str) -> float:
    """0 to 1; NaN where the cell is empty."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        value = np.nan
    if not 0 <= value <= 100:
        raise ValueError("confidence is no number from 0 to 100")
    return value / 100 if text else np.nan


def _printable(name: str) -> str:
    """The name with everything that a terminal might obey escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _reading(reader: str, aided: bool, read: Mapping[int, tuple[bool, float]], cases: Cases) -> Reading:
    rows = np.array(sorted(read), dtype=np.int64)
    call = np.array([read[row][0] for row in rows.tolist()])
    nothing = np.full(len(rows), np.nan)  # a reader draws no map
    unknown: dict[str, Any] = dict.fromkeys(
        ("dice_segmentation", "area_fraction", "iou", "hd95", "nsd"), nothing
    )
    films = replace(
        cases.taken(rows),
        probability=np.array([read[row][1] for row in rows.tolist()]),
        stage_1=call,
        two_stage=call,
        further={},
        **unknown,
    )
    return Reading(reader, aided, rows, films, len(cases) - len(rows))


def read_both_ways(readers: Mapping[str, Reading]) -> list[tuple[Reading, Reading]]:
    """With aid and without, what each reader said of the films that this reader read both ways."""
    pairs = []
    for aided in readers.values():
        unaided = next((r for r in readers.values() if r.reader == aided.reader and not r.aided), None)
        if aided.aided and unaided:
            both = np.intersect1d(aided.rows, unaided.rows)
            if len(both):
                pairs.append((_of_rows(aided, both), _of_rows(unaided, both)))
    return pairs


def _of_rows(reading: Reading, rows: np.ndarray) -> Reading:
    """What was said of some of the films that were read."""
    cases = reading.cases.taken(np.searchsorted(reading.rows, rows))
    return replace(reading, rows=rows, cases=cases, unread=reading.unread + len(reading.rows) - len(rows))


# --- scoring ---------------------------------------------------------------------------------------


def reader_rows(
    systems: Mapping[str, Cases], readers: Mapping[str, Reading], replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Every reader's metrics, and each system's minus each reader's on the films that the reader read.

    Intervals are as the systems'. A reader's AUROC is of the confidence, and is there only where it was
    given. All films are scored, and each lesion size.

    Args:
        systems: Results on the same films in the same order, by system.
        readers: Calls of the readers, from `read_readers` for these films.
        replicates: Number of resamples, at least 1.
        seed: Seed of the resampling, 0 or more.

    Returns:
        Rows with the columns of `compare_systems.pair_rows`: those of `reader <name>`, whose decision is
        `call`, those of `<system>-reader <name>`, whose decision is the system's, and those of
        `reader <name> aided-reader <name>`, whose decision is `aid`. Holm's adjustment is over the
        comparisons of all systems with all readers, and over those with aid, each against `mask`, over all
        films, by `two_stage`.
    """
    rows = [
        row
        for reading in readers.values()
        for reference in REFERENCES
        for row in _rows_of(reading, {} if reading.aided else systems, reference, replicates, seed)
    ]
    rows += [
        row
        for pair in read_both_ways(readers)
        for reference in REFERENCES
        for row in _aid_rows(*pair, reference, replicates, seed)
    ]
    for decision in (DECISIONS[0], AID):
        fill_in_holm(row for row in rows if row["decision"] == decision)
    return rows


def _rows_of(
    reading: Reading, systems: Mapping[str, Cases], reference: str, replicates: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of one reader under one reference, and those of the systems against this reader."""
    name = reading.name
    films = {system: cases.taken(reading.rows) for system, cases in systems.items()} | {name: reading.cases}
    found = _bootstrapped(films, [reading], reference, replicates, seed)
    rows = [
        {"system": name, "reference": reference, "decision": CALL, "stratum": stratum}
        | estimate_columns(metric, bootstrapped)
        | {"p_value": None, "p_holm": None, "test": None}
        for (who, decision, stratum, metric), bootstrapped in found.items()
        if who == name and decision == DECISIONS[0]  # the same under both
    ]
    for system in systems:
        rows += pair_rows({system: films[system], name: reading.cases}, found, reference)
    return _noted(rows, reading)


def _aid_rows(
    aided: Reading, unaided: Reading, reference: str, replicates: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of one reader with aid less without, under one reference."""
    films = {aided.name: aided.cases, unaided.name: unaided.cases}
    found = _bootstrapped(films, [aided, unaided], reference, replicates, seed)
    rows = [row for row in pair_rows(films, found, reference) if row["decision"] == DECISIONS[0]]
    return _noted([row | {"decision": AID} for row in rows], aided)


def _bootstrapped(
    films: Mapping[str, Cases], readings: Sequence[Reading], reference: str, replicates: int, seed: int
) -> dict[Key, Bootstrapped]:
    """The metrics of readers and of systems on the same films: of all of them, and of each lesion size."""
    # The first metric, AUROC, needs confidences.
    metrics = _METRICS[0 if all(reading.has_confidence for reading in readings) else 1 :]
    found = bootstrap(films, reference, replicates, seed, metrics=metrics)
    return {key: bootstrapped for key, bootstrapped in found.items() if key[2] in STRATA}


def _noted(rows: Sequence[dict[str, Any]], reading: Reading) -> Iterator[dict[str, Any]]:
    """The rows with the number of films that were read in their notes."""
    note = f"read {len(reading.rows)} of {len(reading.rows) + reading.unread} films"
    for row in rows:
        yield row | {"note": "; ".join(filter(None, (note, row["note"])))}
