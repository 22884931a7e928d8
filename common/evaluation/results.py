"""The result files of inference: what they hold, and reading them with every doubt.

Imports no torch: the figures need neither it nor a GPU.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.artefacts import INFERENCE_COMMAND, N_FOLDS, digest, read_json, result_folder, shown
from common.evaluation.cases import Cases
from common.evaluation.decision import NEGATIVE_AREA, NEGATIVE_PROBABILITY, POSITIVE
from common.refusal import Refusal

# What inference writes for each test film.
CASE_COLUMNS = (
    "case",
    "patient",
    "has_mask",
    "report",
    "mask_area_fraction",
    "probability",
    *(f"fold_{fold}" for fold in range(N_FOLDS)),
    "area_pixels",
    "stage_1",
    "two_stage",
    "rule",
    "dice_segmentation",
    "dice_positives",
    "age",
    "sex",
    "view",
)
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
)


@dataclass(frozen=True)
class Result:
    """The result files of one system.

    Attributes:
        cases: One element a film, in the order of the file.
        meta: The content of meta.json.
    """

    cases: Cases
    meta: dict[str, Any]


def read_results(systems: Sequence[str]) -> dict[str, Result]:
    """Read and check what inference left for each system; the films stand in the same order in all.

    Raises:
        Refusal: A file is missing, is not the one that inference finished, or holds a value that cannot be;
            or the systems saw other films.
    """
    _require_files(systems)
    results = {system: _read_result(system) for system in systems}
    first = systems[0]
    return {first: results[first]} | {
        system: _aligned(results[system], system, results[first], first) for system in systems[1:]
    }


def _require_files(systems: Sequence[str]) -> None:
    files = {s: [result_folder(s) / name for name in ("cases.csv", "meta.json")] for s in systems}
    missing = [path for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        complete = [s for s, paths in files.items() if all(path.is_file() for path in paths)]
        raise Refusal(
            f"the figures need the test results of {' and '.join(systems)}",
            missing=", ".join(shown(path) for path in missing),
            made_by=INFERENCE_COMMAND,
            do=f"or --system {' '.join(complete)} for the results that are there" if complete else None,
        )


def _read_result(system: str) -> Result:
    folder = result_folder(system)
    meta = _read_meta(folder / "meta.json", system)
    path = folder / "cases.csv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refusal(f"{shown(path)} cannot be read", found=error.strerror) from None
    if digest(content) != meta["cases_sha256"]:
        raise Refusal(
            f"{shown(path)} is not the file that {shown(folder / 'meta.json')} belongs to",
            found="another SHA-256: the file was edited, or inference was interrupted between the two",
            do=f"make both again: {INFERENCE_COMMAND}",
        )
    reader = _CaseReader(path, content)
    if meta["n_cases"] != reader.n:
        raise reader.refusal(f"{reader.n} rows, but n_cases of meta.json is {meta['n_cases']}")
    return Result(reader.cases(float(meta["cls_threshold"]), float(meta["seg_threshold"])), meta)


def _read_meta(path: Path, system: str) -> dict[str, Any]:
    meta = read_json(path, INFERENCE_COMMAND)
    again = f"make it again: {INFERENCE_COMMAND}"
    absent = [key for key in META_KEYS if key not in meta]
    if absent:
        raise Refusal(f"{shown(path)} is incomplete", missing=", ".join(absent), do=again)
    if meta["system"] != system:
        raise Refusal(f"{shown(path)} is of another system", found=meta["system"], do=again)
    for key in ("cls_threshold", "seg_threshold"):
        number = meta[key]
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise Refusal(f"{shown(path)} is malformed", found=f"{key} is {number!r}", do=again)
    return meta


class _CaseReader:
    """cases.csv, column by column; a value that cannot be is refused with its row."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        try:
            header, *rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
        except (ValueError, csv.Error) as error:
            raise self.refusal(f"not a CSV file with a header: {error}") from None
        absent = [name for name in CASE_COLUMNS if name not in header]
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
        self._columns = dict(zip(header, zip(*rows, strict=True), strict=True))

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

    def _names(self, column: str) -> np.ndarray:
        names = np.array(self._columns[column])
        self._require(names != "", lambda i: f"{column} is empty")
        return names

    def _flags(self, column: str) -> np.ndarray:
        texts = np.array(self._columns[column])
        self._require(np.isin(texts, ("0", "1")), lambda i: f"{column} is {str(texts[i])!r}, not 0 or 1")
        return texts == "1"

    def _numbers(self, column: str, needed: np.ndarray, high: float) -> np.ndarray:
        """Numbers from 0 to `high`; an empty cell is NaN where it is not needed."""
        texts = self._columns[column]
        numbers = np.array([_number(text) for text in texts])
        empty = ~needed & np.array([text == "" for text in texts])
        span = f"a number from 0 to {high:g}" if math.isfinite(high) else "a number of at least 0"
        with np.errstate(invalid="ignore"):
            inside = (numbers >= 0) & (numbers <= high) & np.isfinite(numbers)
        self._require(inside | empty, lambda i: f"{column} is {texts[i]!r}, not {span}")
        return numbers

    def cases(self, cls_threshold: float, seg_threshold: float) -> Cases:
        """The films, once every column is what it must be and agrees with the others."""
        case, patient = self._names("case"), self._names("patient")
        first = dict(reversed([(name, i) for i, name in enumerate(case.tolist())]))
        self._require(
            np.array([first[name] == i for i, name in enumerate(case.tolist())]),
            lambda i: f"case {case[i]} is also row {first[case[i]] + 1}",
        )
        always = np.ones(self.n, dtype=bool)
        probability = self._numbers("probability", always, 1)
        for fold in range(N_FOLDS):
            self._numbers(f"fold_{fold}", always, 1)
        has_mask = self._flags("has_mask")
        cases = Cases(
            case=case,
            patient=patient,
            has_mask=has_mask,
            report=self._flags("report"),
            mask_area_fraction=self._lesion_area(has_mask),
            probability=probability,
            stage_1=self._flags("stage_1"),
            two_stage=self._flags("two_stage"),
            dice_segmentation=self._numbers("dice_segmentation", has_mask, 1),
        )
        self._check_decisions(cases, cls_threshold, seg_threshold)
        return cases

    def _lesion_area(self, has_mask: np.ndarray) -> np.ndarray:
        area = self._numbers("mask_area_fraction", has_mask, 1)
        self._require(
            (area > 0) == has_mask, lambda i: f"mask_area_fraction {area[i]} with has_mask {has_mask[i]:d}"
        )
        return np.where(has_mask, area, np.nan)

    def _check_decisions(self, cases: Cases, cls_threshold: float, seg_threshold: float) -> None:
        """The decisions must follow from the numbers beside them and the thresholds that are printed."""
        self._require(
            cases.stage_1 == (cases.probability >= cls_threshold),
            lambda i: (
                f"stage_1 is {cases.stage_1[i]:d}, but probability is {cases.probability[i]} "
                f"and cls_threshold {cls_threshold}"
            ),
        )
        area = self._numbers("area_pixels", cases.stage_1, math.inf)
        self._require(
            cases.two_stage == (cases.stage_1 & (area >= seg_threshold)),
            lambda i: (
                f"two_stage is {cases.two_stage[i]:d}, but stage_1 is {cases.stage_1[i]:d}, "
                f"area_pixels {area[i]:g} and seg_threshold {seg_threshold:g}"
            ),
        )
        rules = np.array(self._columns["rule"])
        expected = np.select(
            [cases.two_stage, cases.stage_1], [POSITIVE, NEGATIVE_AREA], NEGATIVE_PROBABILITY
        )
        self._require(
            rules == expected, lambda i: f"rule is {str(rules[i])!r}, not {str(expected[i])!r} as decided"
        )
        as_shown = self._numbers("dice_positives", cases.has_mask, 1)
        from_map = np.where(cases.two_stage, cases.dice_segmentation, 0.0)
        self._require(
            ~cases.has_mask | np.isclose(as_shown, from_map, rtol=0, atol=1e-9),
            lambda i: (
                f"dice_positives is {as_shown[i]}, but the decision and dice_segmentation give {from_map[i]}"
            ),
        )


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
            do=f"make both again: {INFERENCE_COMMAND}",
        )

    if result.meta["films"] != first.meta["films"]:
        raise refusal("another `films` hash in meta.json")
    row_of = {case: i for i, case in enumerate(result.cases.case.tolist())}
    if row_of.keys() != set(first.cases.case.tolist()):
        different = sorted(row_of.keys() ^ set(first.cases.case.tolist()))
        raise refusal(f"{len(different)} cases are in one of them only, first {different[0]}")
    order = np.array([row_of[case] for case in first.cases.case.tolist()])
    cases = result.cases.taken(order)
    for name in ("patient", "has_mask", "report", "mask_area_fraction"):
        mine, other = getattr(cases, name), getattr(first.cases, name)
        same = mine == other
        if name == "mask_area_fraction":
            same |= ~cases.has_mask
        if not same.all():
            raise refusal(f"{name} of case {cases.case[np.argmin(same)]} differs")
    return Result(cases, result.meta)
