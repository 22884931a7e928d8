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

from common.files import digest, read_json
from common.inference.two_stage_rule import NEGATIVE_AREA, NEGATIVE_PROBABILITY, POSITIVE
from common.paths import result_folder, shown
from common.refusal import Refusal
from common.stages import INFERENCE_COMMAND, N_FOLDS
from common.statistics.tested_films import Cases

# What inference writes for each test film, and what it means.
COLUMN_MEANINGS = {
    "case": "pseudonym of the film",
    "patient": "pseudonym of the patient, or of the exam where the patient is unknown",
    "has_mask": "1: an annotated lesion",
    "report": "1: positive by the radiology report; empty: a film without a label, which no figure counts",
    "mask_area_fraction": "lesion area over film area; empty without a mask",
    "probability": "of pneumothorax, mean over the folds; never altered by a decision",
    **{f"fold_{fold}": f"probability by fold {fold}" for fold in range(N_FOLDS)},
    "area_pixels": "segmented pixels (map > 0.5) at the working size, whatever the decision: the system "
    "shows them where two_stage is 1, else nothing; empty where stage 2 did not run (stage_1 0, no mask)",
    "area_fraction": "area_pixels over the film's pixels",
    "area_cm2": "the same in cm2; empty where the film's spacing is unknown",
    "stage_1": "1: the probability reaches cls_threshold",
    "two_stage": "1: stage_1, and area_pixels reaches seg_threshold: the system's decision",
    "rule": "which rule decided",
    "dice_segmentation": "Dice of the stage-2 map with the mask, whatever the decision; empty without a mask",
    "dice_positives": "Dice of what the system shows: dice_segmentation where two_stage is 1, else 0",
    "iou": "intersection over union of the stage-2 map, as dice_segmentation",
    "hd95": "95th percentile of its surface distance, in distance_unit; an empty map: the film's diagonal",
    "nsd": "its normalised surface Dice at the tolerance for distance_unit; an empty map: 0",
    "distance_unit": "mm, or px (pixels of the working size) where the film's spacing is unknown",
    "film_cm2": "area of the whole film; empty where the spacing is unknown",
    "age": "years, or empty",
    "sex": "M, F or empty",
    "view": "ViewPosition, or empty",
    "manufacturer": "of the X-ray device, or empty",
    "chest_tube": "1, 0, or empty where unknown",
}
CASE_COLUMNS = tuple(COLUMN_MEANINGS)
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
# What two systems must agree on about a film
_OF_THE_FILM = (
    "patient",
    "has_mask",
    "report",
    "mask_area_fraction",
    "in_mm",
    "film_cm2",
    "age",
    "sex",
    "view",
    "manufacturer",
    "chest_tube",
)


@dataclass(frozen=True)
class Result:
    """The result files of one system.

    Attributes:
        cases: One element a film with a label, in the order of the file.
        meta: The content of meta.json.
        unlabelled: Films without a label, which are not among the cases.
    """

    cases: Cases
    meta: dict[str, Any]
    unlabelled: int = 0


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
    cases, labelled = reader.cases(meta)
    if not labelled.any():
        raise Refusal(
            f"no film of {shown(path)} has a label, so there is nothing to compare the system with",
            do="test it on films with a report",
        )
    return Result(cases.taken(np.flatnonzero(labelled)), meta, int((~labelled).sum()))


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

    def _texts(self, column: str, known: Sequence[str] | None = None) -> np.ndarray:
        """Text, which may be empty; `known`: what else it may be."""
        texts = np.array(self._columns[column])
        if known is not None:
            self._require(
                np.isin(texts, ("", *known)),
                lambda i: f"{column} is {str(texts[i])!r}, not {' or '.join(known)} or empty",
            )
        return texts

    def _flags(self, column: str) -> np.ndarray:
        texts = np.array(self._columns[column])
        self._require(np.isin(texts, ("0", "1")), lambda i: f"{column} is {str(texts[i])!r}, not 0 or 1")
        return texts == "1"

    def _numbers(
        self, column: str, needed: np.ndarray, high: float, given: np.ndarray | None = None
    ) -> np.ndarray:
        """Numbers from 0 to `high`; NaN where the cell is empty.

        A cell may be empty where it is not needed, and must be where `given` (None: anywhere) is false.
        """
        texts = self._columns[column]
        numbers = np.array([_number(text) for text in texts])
        blank = np.array([text == "" for text in texts])
        span = f"a number from 0 to {high:g}" if math.isfinite(high) else "a number of at least 0"
        with np.errstate(invalid="ignore"):
            inside = (numbers >= 0) & (numbers <= high) & np.isfinite(numbers)
        self._require(inside | (blank & ~needed), lambda i: f"{column} is {texts[i]!r}, not {span}")
        if given is not None:
            self._require(blank | given, lambda i: f"{column} is {texts[i]!r} where there is none")
        return numbers

    def _agree(self, column: str, numbers: np.ndarray, expected: np.ndarray, source: str) -> None:
        """Refuse a number that does not follow from those beside it; `expected` NaN: nothing follows."""
        with np.errstate(invalid="ignore"):
            same = np.isclose(numbers, expected, rtol=1e-9, atol=1e-9)
        self._require(
            same | np.isnan(expected), lambda i: f"{column} is {numbers[i]}, but {source} {expected[i]}"
        )

    def cases(self, meta: dict[str, Any]) -> tuple[Cases, np.ndarray]:
        """The films, once every column is what it must be and agrees with the others.

        Returns:
            All films, and which of them have a label (bool).
        """
        case, patient = self._names("case"), self._names("patient")
        first = dict(reversed([(name, i) for i, name in enumerate(case.tolist())]))
        self._require(
            np.array([first[name] == i for i, name in enumerate(case.tolist())]),
            lambda i: f"case {case[i]} is also row {first[case[i]] + 1}",
        )
        always = np.ones(self.n, dtype=bool)
        probability = self._numbers("probability", always, 1)
        folds = [self._numbers(f"fold_{fold}", always, 1) for fold in range(N_FOLDS)]
        self._agree("probability", probability, np.mean(folds, axis=0), "the mean of the folds is")
        has_mask, stage_1 = self._flags("has_mask"), self._flags("stage_1")
        report = self._texts("report", ("0", "1"))
        self._require((report != "") | ~has_mask, lambda i: "report is empty, but has_mask is 1")
        in_mm = self._units() == "mm"
        film_cm2 = self._numbers("film_cm2", in_mm, math.inf, given=in_mm)
        cases = Cases(
            case=case,
            patient=patient,
            has_mask=has_mask,
            report=report == "1",
            mask_area_fraction=self._lesion_area(has_mask),
            probability=probability,
            stage_1=stage_1,
            two_stage=self._flags("two_stage"),
            dice_segmentation=self._numbers("dice_segmentation", has_mask, 1, given=has_mask),
            area_fraction=self._segmented_area(stage_1 | has_mask, meta["image_size"], film_cm2),
            iou=self._numbers("iou", has_mask, 1, given=has_mask),
            hd95=self._numbers("hd95", has_mask, math.inf, given=has_mask),
            nsd=self._numbers("nsd", has_mask, 1, given=has_mask),
            in_mm=in_mm,
            film_cm2=film_cm2,
            age=self._numbers("age", ~always, math.inf),
            sex=self._texts("sex", ("M", "F")),
            view=self._texts("view"),
            manufacturer=self._texts("manufacturer"),
            chest_tube=self._tubes(),
        )
        overlap = cases.dice_segmentation / (2 - cases.dice_segmentation)
        self._agree("iou", cases.iou, overlap, "dice_segmentation gives")
        self._check_decisions(cases, float(meta["cls_threshold"]), float(meta["seg_threshold"]))
        return cases, report != ""

    def _units(self) -> np.ndarray:
        units = self._names("distance_unit")
        self._require(
            np.isin(units, ("mm", "px")), lambda i: f"distance_unit is {str(units[i])!r}, not mm or px"
        )
        return units

    def _tubes(self) -> np.ndarray:
        texts = self._texts("chest_tube", ("0", "1"))
        return np.select([texts == "1", texts == "0"], [1.0, 0.0], np.nan)

    def _lesion_area(self, has_mask: np.ndarray) -> np.ndarray:
        area = self._numbers("mask_area_fraction", has_mask, 1)
        self._require(
            (area > 0) == has_mask, lambda i: f"mask_area_fraction {area[i]} with has_mask {has_mask[i]:d}"
        )
        return np.where(has_mask, area, np.nan)

    def _segmented_area(self, segmented: np.ndarray, size: int, film_cm2: np.ndarray) -> np.ndarray:
        """As a share of the film, from three columns that say the same."""
        pixels = self._numbers("area_pixels", segmented, size**2, given=segmented)
        fraction = self._numbers("area_fraction", segmented, 1, given=segmented)
        self._agree("area_fraction", fraction, pixels / size**2, "area_pixels gives")
        in_mm = segmented & ~np.isnan(film_cm2)
        area_cm2 = self._numbers("area_cm2", in_mm, math.inf, given=in_mm)
        self._agree("area_cm2", area_cm2, fraction * film_cm2, "area_fraction and film_cm2 give")
        return fraction

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
        as_shown = self._numbers("dice_positives", cases.has_mask, 1, given=cases.has_mask)
        from_map = np.where(cases.two_stage, cases.dice_segmentation, cases.dice_segmentation * 0)
        self._agree("dice_positives", as_shown, from_map, "the decision and dice_segmentation give")


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
    for name in _OF_THE_FILM:
        mine, other = getattr(cases, name), getattr(first.cases, name)
        same = (mine == other) | ((mine != mine) & (other != other))  # unknown in both
        if not same.all():
            raise refusal(f"{name} of case {cases.case[np.argmin(same)]} differs")
    return Result(cases, result.meta, result.unlabelled)
