"""The result files of inference: what they hold, and reading them with every doubt.

Imports no torch: the metrics need neither it nor a GPU.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from common.files import digest, read_json
from common.inference.result_columns import COLUMNS, Column, Follows
from common.missing import refuse_missing_results
from common.paths import result_folder, shown
from common.refusal import Refusal
from common.stages import INFERENCE_COMMAND, N_FOLDS, STUDENTS, command_of
from common.statistics.tested_films import Cases

META_KEYS = (
    "system",
    "cls_threshold",
    "seg_threshold",
    "image_size",
    "n_cases",
    "cases_sha256",
    "films",
    "weights",
    "preset",
    "nsd_tolerance_mm",
    "nsd_tolerance_px",
)
_NUMBERS = ("cls_threshold", "seg_threshold", "image_size", "nsd_tolerance_mm", "nsd_tolerance_px")


@dataclass(frozen=True)
class Result:
    """The result files of one system.

    Attributes:
        cases: Films with a label, in the order of the file; of `read_unlabelled`, those without one.
        meta: Content of meta.json.
        unlabelled: Names of the films without a label, which no metric counts.
    """

    cases: Cases
    meta: dict[str, Any]
    unlabelled: tuple[str, ...] = ()


def read_results(systems: Sequence[str]) -> dict[str, Result]:
    """Read and check what inference left for each system; the films stand in the same order in all.

    Raises:
        Refusal: A file is missing, is not the one that inference finished, or holds a value that cannot be;
            the systems saw other films; or no film has a label.
    """
    results = _read(systems, labelled=True)
    for system, result in results.items():
        if not len(result.cases):
            raise Refusal(
                f"no film of {shown(result_folder(system) / 'cases.csv')} has a label, so there is nothing "
                "to compare the system with",
                do="test it on films with a report",
            )
    return results


def read_unlabelled(systems: Sequence[str]) -> dict[str, Result]:
    """Read and check likewise; the cases are the films without a label, of which there may be none.

    Their `has_mask` and `report` are False, which says nothing of the film.

    Raises:
        Refusal: As of `read_results`, but for the labels.
    """
    return _read(systems, labelled=False)


def _read(systems: Sequence[str], labelled: bool) -> dict[str, Result]:
    refuse_missing_results(systems)
    results = {system: _read_result(system, labelled) for system in systems}
    first = systems[0]
    return {first: results[first]} | {
        system: _aligned(results[system], system, results[first], first) for system in systems[1:]
    }


def _read_result(system: str, labelled: bool) -> Result:
    folder = result_folder(system)
    meta = _read_meta(folder / "meta.json", system)
    path = folder / "cases.csv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refusal(f"{shown(path)} cannot be read", found=error.strerror) from None
    # Before any value is looked at: an edited table is called that, not by its first odd cell.
    if digest(content) != meta["cases_sha256"]:
        raise Refusal(
            f"{shown(path)} is not the file that {shown(folder / 'meta.json')} belongs to",
            found="another SHA-256: the file was edited, or inference was interrupted between the two",
            do=f"make both again: {INFERENCE_COMMAND}",
        )
    reader = _CaseReader(path, content)
    if meta["n_cases"] != reader.n:
        raise reader.refusal(f"{reader.n} rows, but n_cases of meta.json is {meta['n_cases']}")
    cases, known = reader.cases(meta)
    unlabelled = tuple(cases.case[~known].tolist())
    return Result(cases.taken(np.flatnonzero(known == labelled)), meta, unlabelled)


def _read_meta(path: Path, system: str) -> dict[str, Any]:
    meta = read_json(path, INFERENCE_COMMAND)
    again = f"make it again: {INFERENCE_COMMAND}"
    absent = [key for key in META_KEYS if key not in meta]
    if absent:
        raise Refusal(f"{shown(path)} is incomplete", missing=", ".join(absent), do=again)
    if meta["system"] != system:
        raise Refusal(f"{shown(path)} is of another system", found=meta["system"], do=again)
    for key in _NUMBERS:
        number = meta[key]
        # To Python, true is a number.
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise Refusal(f"{shown(path)} is malformed", found=f"{key} is {number!r}", do=again)
    return meta


class _CaseReader:
    """The tested cases by `COLUMNS`; a value that cannot be is refused with its row."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        try:
            header, *rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
        except (ValueError, csv.Error) as error:
            raise self.refusal(f"not a CSV file with a header: {error}") from None
        absent = [name for name, column in COLUMNS.items() if name not in header and not column.later]
        if absent:
            raise Refusal(
                f"{shown(path)} lacks columns", missing=", ".join(absent), made_by=INFERENCE_COMMAND
            )
        for i, row in enumerate(rows):
            if len(row) != len(header):
                raise self.refusal(f"{len(row)} cells where the header has {len(header)}", i)
        if not rows:
            raise self.refusal("no film")
        self.n = len(rows)
        texts = dict(zip(header, zip(*rows, strict=True), strict=True))
        unknown = ("",) * len(rows)
        self._texts = {name: np.array(texts.get(name, unknown)) for name in COLUMNS}

    def refusal(self, found: str, row: int | None = None) -> Refusal:
        where = "" if row is None else f"row {row + 1} after the header: "
        return Refusal(
            f"{shown(self._path)} is malformed",
            found=where + found,
            do=f"make it again: {INFERENCE_COMMAND}",
        )

    def _require(self, holds: np.ndarray, message: Callable[[int], str]) -> None:
        """Refuse with the first row where `holds` is false."""
        if not holds.all():
            row = int(np.argmin(holds))
            raise self.refusal(message(row), row)

    def cases(self, meta: dict[str, Any]) -> tuple[Cases, np.ndarray]:
        """The films, once every column is what it must be and agrees with the others.

        Returns:
            All films, and which of them have a label (bool).
        """
        columns = {name: self._values(name, column, meta) for name, column in COLUMNS.items()}
        for name, column in COLUMNS.items():
            self._check_given(name, column, columns, meta)
        case = columns["case"].tolist()
        # Reversed, so that of rows with one name the first stays.
        first = dict(reversed([(name, i) for i, name in enumerate(case)]))
        self._require(
            np.array([first[name] == i for i, name in enumerate(case)]),
            lambda i: f"case {case[i]} is also row {first[case[i]] + 1}",
        )
        for name, column in COLUMNS.items():
            if column.follows:
                self._check_follows(name, column.follows, columns, meta)
        return _as_cases(columns, meta), ~np.isnan(columns["report"])

    def _values(self, name: str, column: Column, meta: dict[str, Any]) -> np.ndarray:
        """A column as what it is; empty cells pass, an empty flag or number as NaN."""
        texts = self._texts[name]
        if column.kind in ("name", "text"):
            values, holds = texts, np.isin(texts, column.values) if column.values else texts == texts
        else:
            values = np.array([_number(text) for text in texts])
            with np.errstate(invalid="ignore"):
                # NaN, a text that is no number, compares as false: it is refused like a number out of range.
                holds = np.isfinite(values) & (values >= 0) & (values <= _high(column, meta))
            holds &= (values > 0) | (not column.above)
            if column.kind == "flag":
                holds = np.isin(texts, ("0", "1"))
        self._require(holds | (texts == ""), lambda i: self._not(name, column, meta, i))
        return values

    def _check_given(
        self, name: str, column: Column, columns: dict[str, np.ndarray], meta: dict[str, Any]
    ) -> None:
        """A value must stand where there is one, and nowhere else."""
        empty, given = self._texts[name] == "", column.given(columns)
        if column.of_folds and meta["system"] in STUDENTS:
            given = np.zeros_like(given)
        self._require(~(empty & given), lambda i: self._not(name, column, meta, i))
        if not column.elsewhere:
            self._require(empty | given, lambda i: f"{name} is {self._shown(name, i)} where there is none")

    def _check_follows(
        self, name: str, follows: Follows, columns: dict[str, np.ndarray], meta: dict[str, Any]
    ) -> None:
        found, expected = columns[name], follows.value(columns, meta)
        if found.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                # Numbers are written with all their digits; what is left is rounding.
                holds = np.isclose(found, expected, rtol=1e-9, atol=1e-9) | np.isnan(expected)
        else:
            holds = found == expected

        def message(i: int) -> str:
            beside = meta | {column: texts[i] for column, texts in self._texts.items()}
            right = f"{expected[i]:.9g}" if found.dtype.kind == "f" else expected[i]
            return f"{name} is {self._texts[name][i]}, but {follows.reason.format_map(beside)} {right}"

        self._require(holds, message)

    def _shown(self, name: str, i: int) -> str:
        return repr(str(self._texts[name][i]))

    def _not(self, name: str, column: Column, meta: dict[str, Any], i: int) -> str:
        """What a cell is, and what it must be."""
        high = _high(column, meta)
        wanted = " or ".join(column.values) or "a name"
        if column.kind == "flag":
            wanted = "0 or 1"
        elif column.kind == "number" and math.isinf(high):
            wanted = "a number of at least 0"
        elif column.kind == "number":
            wanted = f"a number {'above' if column.above else 'from'} 0 to {high:g}"
        if column.elsewhere and self._texts[name][i]:
            wanted += " or empty"
        return f"{name} is {self._shown(name, i)}, not {wanted}"


def _as_cases(columns: dict[str, np.ndarray], meta: dict[str, Any]) -> Cases:
    """The films; beside the file's columns `fold_votes`, the share of the folds that call a film, 0-1 (NaN
    without folds)."""
    flags = {name: columns[name] == 1 for name in ("has_mask", "report", "stage_1", "two_stage")}
    known = columns | flags | {"in_mm": columns["distance_unit"] == "mm"}
    names = {each.name for each in fields(Cases)} - {"further"}
    further = {name: values for name, values in columns.items() if name not in names}
    by_fold = np.array([columns[f"fold_{fold}"] for fold in range(N_FOLDS)])
    votes = np.mean(by_fold >= meta["cls_threshold"], axis=0)
    further["fold_votes"] = np.where(np.isnan(by_fold).any(axis=0), math.nan, votes)
    return Cases(**{name: known[name] for name in names}, further=further)


def _high(column: Column, meta: dict[str, Any]) -> float:
    return meta["image_size"] ** 2 if column.high == "pixels" else column.high


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _aligned(result: Result, system: str, first: Result, first_system: str) -> Result:
    """`result` with its films in the order of `first`; refused where the two are of other films."""

    def refusal(found: str) -> Refusal:
        return Refusal(
            f"the results of {first_system} and {system} are not of the same test films",
            found=found,
            do="make both again: "
            + "; ".join(dict.fromkeys(command_of(INFERENCE_COMMAND, s) for s in (first_system, system))),
        )

    if result.meta["films"] != first.meta["films"]:
        raise refusal("another `films` hash in meta.json")
    row_of = {case: i for i, case in enumerate(result.cases.case.tolist())}
    if row_of.keys() != set(first.cases.case.tolist()):
        different = sorted(row_of.keys() ^ set(first.cases.case.tolist()))
        raise refusal(f"{len(different)} cases are in one of them only, first {different[0]}")
    # Aligned, because paired comparisons and shared draws take row i of both systems as one film.
    order = np.array([row_of[case] for case in first.cases.case.tolist()], dtype=int)
    cases = result.cases.taken(order)
    # What is of the film cannot differ between systems, or one of them was tested on another preparation.
    for name in (name for name, column in COLUMNS.items() if column.of_film):
        mine, other = cases.column(name), first.cases.column(name)
        same = (mine == other) | ((mine != mine) & (other != other))  # unknown in both
        if not same.all():
            raise refusal(f"{name} of case {cases.case[np.argmin(same)]} differs")
    return Result(cases, result.meta, result.unlabelled)
