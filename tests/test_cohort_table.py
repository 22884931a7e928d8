"""The table of training and test films: patients once, by hand; on the page and as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from common.inference.result_files import Result
from common.paths import prepared_folder
from common.refusal import Refusal
from common.report.cohort_table import COLUMNS, cohort_entries, cohort_lines, write_cohort
from common.stages import TESTING_FOLDER
from common.statistics.tested_films import Cases

# Of the training films: patient, mask, report, area, age, sex, view, device, tube.
TRAINING = [
    ("p1", 1, 1, 0.10, 41, "F", "AP", "X", 1),
    ("p1", 0, 0, 0, 40, "F", "AP", "X", 0),
    ("p2", 0, 1, 0, "", "M", "PA", "", ""),
    ("p3", 0, 0, 0, 70, "", "AP", "X", 0),
    ("p3", 0, "", 0, 71, "F", "AP", "X", 0),
    ("p4", 1, 1, 0.02, 60, "M", "", "X", 0),
    ("p4", 1, 1, 0.04, 61, "F", "", "X", 0),
]
_NAMES = (
    "patient",
    "has_mask",
    "report",
    "mask_area_fraction",
    "age",
    "sex",
    "view",
    "manufacturer",
    "chest_tube",
)


def films_of_the_test() -> Cases:
    """Three films of two patients, all of one device that trained on none."""
    masked = np.array([True, True, False])
    return Cases(
        case=np.array(["a", "b", "c"]),
        patient=np.array(["q1", "q1", "q2"]),
        has_mask=masked,
        report=masked,
        mask_area_fraction=np.array([0.01, 0.03, np.nan]),
        probability=np.array([0.9, 0.8, 0.1]),
        stage_1=masked,
        two_stage=masked,
        dice_segmentation=np.array([0.5, 0.6, np.nan]),
        age=np.array([50.0, 52.0, np.nan]),
        sex=np.array(["M", "M", ""]),
        view=np.array(["AP", "AP", "AP"]),
        manufacturer=np.array(["Y", "Y", "Y"]),
    )


def write_training(content: str = "trained", names: tuple[str, ...] = _NAMES) -> Path:
    folder = prepared_folder("ntuh_train")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"content": content}))
    lines = [",".join(names), *(",".join(map(str, row)) for row in TRAINING)]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return folder / "cases.csv"


def results(content: str = "trained") -> dict[str, Result]:
    return {"eff": Result(films_of_the_test(), {"weights": {"content": content}})}


def told(group: str, name: str = "training") -> dict[str, str]:
    return {entry.characteristic: entry.text for entry in cohort_entries(results())[name, group]}


def test_each_patient_counts_once_by_hand(workspace: Path) -> None:
    write_training()
    assert told("all") == {
        "films": "7", "patients": "4", "positive by mask": "3 (43%)", "positive by report": "4 (57%)",
        "age, years": "60 (50 to 65), n 3",  # of 40, 70 and 60: each at the first film
        "sex unknown": "1 (25%)",  # p4 is M in one film and F in the other
        "sex F": "2 (50%)", "sex M": "1 (25%)",
        "view unknown": "2 (29%)", "view AP": "4 (57%)", "view PA": "1 (14%)",
        "device unknown": "1 (14%)", "device X": "6 (86%)", "device Y": "0 (0%)",
        "lesion area, % of the film": "4.0 (3.0 to 7.0), n 3",
        "chest tube": "1 (14%)", "chest tube unknown": "1 (14%)",
    }  # fmt: skip
    with_mask, without = told("with_mask"), told("without_mask")
    assert (with_mask["films"], with_mask["patients"]) == ("3", "2")
    assert (without["films"], without["patients"]) == ("4", "2")  # p1 has a mask in another film
    assert with_mask["age, years"] == "50 (45 to 55), n 2"
    assert (with_mask["sex F"], without["sex F"]) == ("1 (50%)", "1 (50%)")
    assert without["lesion area, % of the film"] == "–"
    test = told("all", "test")
    assert (test["films"], test["patients"], test["age, years"]) == ("3", "2", "50 (50 to 50), n 1")
    assert (test["device X"], test["device Y"]) == ("0 (0%)", "3 (100%)")
    assert test["chest tube unknown"] == "3 (100%)"


def test_the_csv_says_the_same(workspace: Path) -> None:
    write_training()
    cohort = cohort_entries(results())
    path = write_cohort(cohort)
    assert path == workspace / TESTING_FOLDER / "cohort.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == sum(map(len, cohort.values()))
    found = {(row["set"], row["group"], row["characteristic"]): row for row in rows}
    sex = found["training", "all", "sex F"]
    assert (sex["counted"], sex["n"], float(sex["share"]), sex["median"]) == ("patients", "2", 0.5, "")
    area = found["test", "with_mask", "lesion area, % of the film"]
    assert (area["counted"], area["n"], area["share"]) == ("films", "2", "")
    assert [float(area[q]) for q in ("quartile_1", "median", "quartile_3")] == pytest.approx([1.5, 2, 2.5])
    assert "p1" not in path.read_text()


def test_lines_are_the_same_in_each_column(workspace: Path) -> None:
    write_training()
    lines = dict(cohort_lines(cohort_entries(results())))
    assert lines["Films"] == ["7", "3", "4", "3", "2", "1"]
    assert lines["Sex unknown (patients)"] == [
        "1 (25%)",
        "1 (50%)",
        "0 (0%)",
        "1 (50%)",
        "0 (0%)",
        "1 (100%)",
    ]
    assert "Age, years: median (quartiles) (patients)" in lines


@pytest.mark.parametrize("prepared", [None, "others"])
def test_training_films_that_the_networks_did_not_see_are_not_told(workspace: Path, prepared) -> None:
    if prepared:
        write_training(prepared)
    assert {name for name, _ in cohort_entries(results())} == {"test"}


def test_a_table_that_is_none_is_refused(workspace: Path) -> None:
    write_training(names=("patient", *("x" for _ in _NAMES[1:])))
    with pytest.raises(Refusal, match="no table of prepared cases"):
        cohort_entries(results())
