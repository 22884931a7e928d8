"""The columns of the tested cases (`cases.csv` of the result files): what each means, and what it must be.

The writer's columns, their meanings in meta.json, and the reader's checks are derived from `COLUMNS`. A new
value of each film is one entry here, and what computes it in `test_set.py`; metrics find it by
`Cases.column`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from common.inference.two_stage_rule import POSITIVE, OperatingPoint
from common.stages import N_FOLDS

Columns = Mapping[str, np.ndarray]  # by name, one element a film
Condition = Callable[[Columns], np.ndarray]  # films (bool)


@dataclass(frozen=True)
class Follows:
    """What a column must be, by what stands beside it.

    Attributes:
        value: Expected value of each film, from the columns and meta.json; NaN: nothing follows.
        reason: Words before the expected value; names in braces are columns and facts of meta.json.
    """

    value: Callable[[Columns, Mapping[str, Any]], np.ndarray]
    reason: str


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        meaning: Meaning of its values.
        kind: `name` (never empty), `text`, `flag` (0 or 1) or `number`; read as str, str, float64, float64,
            an empty flag or number as NaN.
        given: Films that have a value.
        elsewhere: Other films may have one.
        values: Texts that it may be; none: any.
        above: It is above 0; else, 0 is the least number.
        high: Largest number; `pixels`: pixels of the working size.
        follows: What it must be, by what stands beside it.
        of_film: It is of the film, so two systems must agree on it.
        later: Results of earlier versions lack it; they are read all the same, as unknown.
        of_folds: Only a system of five folds has it; a student, one network, leaves it empty.
        of_second: It is written only where a second annotator marked test films.
    """

    meaning: str
    kind: Literal["name", "text", "flag", "number"]
    given: Condition
    elsewhere: bool = False
    values: tuple[str, ...] = ()
    above: bool = False
    high: float | Literal["pixels"] = math.inf
    follows: Follows | None = None
    of_film: bool = False
    later: bool = False
    of_folds: bool = False
    of_second: bool = False


def written_columns(second_annotator: bool) -> dict[str, Column]:
    """The columns of a result whose test films a second annotator marked, or not."""
    return {name: column for name, column in COLUMNS.items() if second_annotator or not column.of_second}


def fold_cells(probabilities: Sequence[float]) -> dict[str, float | None]:
    """The columns `fold_0` ... of a film, by what each network says of it; empty of a student's one."""
    one = len(probabilities) != N_FOLDS
    return {f"fold_{fold}": None if one else probabilities[fold] for fold in range(N_FOLDS)}


def _always(columns: Columns) -> np.ndarray:
    return np.ones(len(columns["case"]), dtype=bool)


def _masked(columns: Columns) -> np.ndarray:
    return columns["has_mask"] == 1


def _segmented(columns: Columns) -> np.ndarray:
    return _masked(columns) | (columns["stage_1"] == 1)


def _in_mm(columns: Columns) -> np.ndarray:
    return columns["distance_unit"] == "mm"


def _never(columns: Columns) -> np.ndarray:
    return ~_always(columns)


def _perhaps(meaning: str, kind: Literal["text", "flag", "number"], *values: str) -> Column:
    """A fact of the film that may be unknown."""
    return Column(meaning, kind, _never, True, values, of_film=True)


def _later(
    meaning: str, kind: Literal["text", "flag", "number"], high: float = math.inf, of_film: bool = False
) -> Column:
    """A column that results of earlier versions lack."""
    return Column(meaning, kind, _never, True, high=high, of_film=of_film, later=True)


# --- what follows from what ------------------------------------------------------------------------


def _mean_of_folds(columns: Columns, meta: Mapping[str, Any]) -> np.ndarray:
    return np.mean([columns[f"fold_{fold}"] for fold in range(N_FOLDS)], axis=0)


def _fraction(columns: Columns, meta: Mapping[str, Any]) -> np.ndarray:
    return columns["area_pixels"] / meta["image_size"] ** 2


def _point(meta: Mapping[str, Any]) -> OperatingPoint:
    return OperatingPoint(meta["cls_threshold"], meta["seg_threshold"], meta["image_size"])


def _rule(columns: Columns, meta: Mapping[str, Any]) -> np.ndarray:
    # By the rule itself, not by a second spelling of it, so that writer and reader cannot disagree.
    films = zip(columns["probability"].tolist(), columns["area_pixels"].tolist(), strict=True)
    point = _point(meta)
    return np.array([point.rule(probability, area) for probability, area in films])


def _stage_1(columns: Columns, meta: Mapping[str, Any]) -> np.ndarray:
    point = _point(meta)
    return np.array([point.stage_1(each) for each in columns["probability"].tolist()], dtype=float)


def _two_stage(columns: Columns, meta: Mapping[str, Any]) -> np.ndarray:
    return (_rule(columns, meta) == POSITIVE).astype(float)


def _iou(columns: Columns, meta: Mapping[str, Any]) -> np.ndarray:
    return columns["dice_segmentation"] / (2 - columns["dice_segmentation"])


# --- the columns -----------------------------------------------------------------------------------

COLUMNS: dict[str, Column] = {
    "case": Column("pseudonym of the film", "name", _always),
    "patient": Column(
        "pseudonym of the patient, or of the exam where the patient is unknown", "name", _always, of_film=True
    ),
    "has_mask": Column("1: an annotated lesion", "flag", _always, of_film=True),
    "report": Column(
        "1: positive by the radiology report; empty: a film without a label, which no metric counts",
        "flag",
        _masked,
        elsewhere=True,
        of_film=True,
    ),
    "mask_area_fraction": Column(
        "lesion area over film area; empty without a mask",
        "number",
        _masked,
        above=True,
        high=1,
        of_film=True,
    ),
    "probability": Column(
        "of pneumothorax, mean over the folds, or a student's; never altered by a decision",
        "number",
        _always,
        high=1,
        follows=Follows(_mean_of_folds, "the mean of the folds is"),
    ),
    **{
        f"fold_{fold}": Column(
            f"probability by fold {fold}; empty of a student", "number", _always, high=1, of_folds=True
        )
        for fold in range(N_FOLDS)
    },
    "area_pixels": Column(
        "segmented pixels (map > map_threshold, else 0.5) at the working size, whatever the decision: the "
        "system shows them where two_stage is 1, else nothing; empty where stage 2 did not run "
        "(stage_1 0, no mask)",
        "number",
        _segmented,
        high="pixels",
    ),
    "area_fraction": Column(
        "area_pixels over the film's pixels",
        "number",
        _segmented,
        high=1,
        follows=Follows(_fraction, "area_pixels gives"),
    ),
    "area_cm2": Column(
        "the same in cm2; empty where the film's spacing is unknown",
        "number",
        lambda columns: _segmented(columns) & _in_mm(columns),
        follows=Follows(
            lambda columns, _: columns["area_fraction"] * columns["film_cm2"],
            "area_fraction and film_cm2 give",
        ),
    ),
    "stage_1": Column(
        "1: the probability reaches cls_threshold",
        "flag",
        _always,
        follows=Follows(_stage_1, "probability {probability} and cls_threshold {cls_threshold} give"),
    ),
    "two_stage": Column(
        "1: stage_1, and area_pixels reaches seg_threshold: the system's decision",
        "flag",
        _always,
        follows=Follows(
            _two_stage, "stage_1 {stage_1}, area_pixels {area_pixels} and seg_threshold {seg_threshold} give"
        ),
    ),
    "rule": Column("which rule decided", "name", _always, follows=Follows(_rule, "the one that decided is")),
    "dice_segmentation": Column(
        "Dice of the stage-2 map with the mask, whatever the decision; empty without a mask",
        "number",
        _masked,
        high=1,
    ),
    "dice_positives": Column(
        "Dice of what the system shows: dice_segmentation where two_stage is 1, else 0",
        "number",
        _masked,
        high=1,
        follows=Follows(
            lambda columns, _: columns["dice_segmentation"] * columns["two_stage"],
            "the decision and dice_segmentation give",
        ),
    ),
    "iou": Column(
        "intersection over union of the stage-2 map, as dice_segmentation",
        "number",
        _masked,
        high=1,
        follows=Follows(_iou, "dice_segmentation gives"),
    ),
    "dice_full_size": _later(
        "the same with the map enlarged to the prepared film, 1024 x 1024, and the mask as it is there",
        "number",
        high=1,
    ),
    "dice_annotators": replace(
        _later(
            "Dice of the mask with the second annotator's, at the prepared film's size; both empty: 1, one "
            "empty: 0; empty where one of them did not look",
            "number",
            high=1,
            of_film=True,
        ),
        of_second=True,
    ),
    "dice_second": Column(
        "dice_full_size with the second annotator's mask; empty without both masks",
        "number",
        lambda columns: _masked(columns) & np.isfinite(columns["dice_annotators"]),
        high=1,
        later=True,
        of_second=True,
    ),
    "laterality": _later(
        "whether the map's 0.999 quantile is higher in the half of the picture that holds the lesion, 1 "
        "or 0, equal 0.5; empty without a mask, and where less than 0.95 of it are in one half",
        "number",
        high=1,
    ),
    "outline_laterality": _later(
        "whether most of the segmented pixels are in that half, 1 or 0, equal 0.5; empty as laterality, and "
        "where nothing is segmented",
        "number",
        high=1,
    ),
    "hit": _later(
        "whether the map's brightest pixel lies within 2% of the film's longer edge of the lesion; of "
        "several brightest ones, the share; empty without a mask",
        "number",
        high=1,
    ),
    "lesions": _later("connected parts of the mask; empty without one", "number"),
    "lesions_found": _later("of them, those that share a pixel with what is segmented", "number"),
    "false_outlines": _later(
        "connected parts of what is segmented that share no pixel with the mask; empty where stage 2 did "
        "not run",
        "number",
    ),
    "lesion_scores": _later(
        "of each lesion, the highest value of the map in the segmented parts that share a pixel with it, "
        "else 0; blanks between",
        "text",
    ),
    "false_scores": _later(
        "of each false outline, the highest value of the map in it; blanks between", "text"
    ),
    "thumbnail_probability": _later(
        "of pneumothorax, by a logistic regression on the film at 24 x 24 pixels, fitted on the "
        "training films",
        "number",
        high=1,
        of_film=True,
    ),
    "header_probability": _later(
        "the same on facts of the header; empty where the training films have none",
        "number",
        high=1,
        of_film=True,
    ),
    "no_answer": _later(
        "1: prediction would give no answer: the picture is unlike the training films, or seems turned or "
        "inverted; prediction's rules of the header are not applied, a prepared film no longer has it",
        "flag",
    ),
    "hd95": Column(
        "95th percentile of its surface distance, in distance_unit; an empty map: the film's diagonal",
        "number",
        _masked,
    ),
    "nsd": Column(
        "its normalised surface Dice at the tolerance for distance_unit; an empty map: 0",
        "number",
        _masked,
        high=1,
    ),
    "distance_unit": Column(
        "mm, or px (pixels of the working size) where the film's spacing is unknown",
        "name",
        _always,
        values=("mm", "px"),
        of_film=True,
    ),
    "film_cm2": Column(
        "area of the whole film; empty where the spacing is unknown", "number", _in_mm, of_film=True
    ),
    "age": _perhaps("years, or empty", "number"),
    "sex": _perhaps("M, F or empty", "text", "M", "F"),
    "view": _perhaps("ViewPosition, or empty", "text"),
    "manufacturer": _perhaps("of the X-ray device, or empty", "text"),
    "chest_tube": _perhaps("1, 0, or empty where unknown", "flag"),
}
