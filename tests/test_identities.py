"""Spellings of one patient are one patient, placeholders and rounded numbers are none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_masks_and_labels import TRAINED, hospital, notes, prepare

from common.preparation.identities import PLACEHOLDER, ROUNDED, canonical, unite, why_unknown
from common.refusal import Refusal


@pytest.mark.parametrize(
    ("one", "other"),
    [("00123", "123"), ("P0012", "p12"), (" A 1", "a1"), ("123.0", "123"), ("A-007", "a-7"), ("0", "000")],
)
def test_spellings_of_one_patient(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"), [("12", "120"), ("A1", "B1"), ("1.05", "1.5"), ("10", "1"), ("A", "a1")]
)
def test_other_patients(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "text",
    [
        "ANON",
        "anonymous",
        "ANONYMIZED",
        "0",
        "000",
        "unknown",
        "N/A",
        "none",
        "-",
        "xxx",
        "de-identified",
        "Patient",
        "ANON^PATIENT",
        "not available",
        "nan",
        "REMOVED",
        "no name",
        "Anonymous Patient",
    ],
)
def test_placeholders(text: str) -> None:
    assert why_unknown(text) == PLACEHOLDER


@pytest.mark.parametrize("text", ["1.23E+12", "1,23e+12", "1E+15"])
def test_rounded_numbers(text: str) -> None:
    assert why_unknown(text) == ROUNDED


@pytest.mark.parametrize(
    "text",
    ["P0001", "1", "123456", "A1", "anna-17", "2.25.7", "E12", "ANON-00123", "ANON00123", "patient 7", ""],
)
def test_identifiers(text: str) -> None:
    assert why_unknown(text) is None


def test_all_spellings_get_the_name_of_the_first() -> None:
    rows = [{"patient": name} for name in ("pa", "pb", "pc", "pa", "exam")]
    assert unite(rows, ["x", "y", "x", "x", None]) == [0, 2, 3]
    assert [row["patient"] for row in rows] == ["pa", "pb", "pa", "pa", "exam"]


def test_placeholders_and_rounded_numbers_are_unknown_patients(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["patient"] = "ANONYMOUS" if i < 8 else "1.23E+12" if i == 9 else cells["patient"]

    prepared = prepare(hospital(tmp_path / "films", change))
    assert (prepared.cases["patient_known"] == 0).sum() == 9
    assert prepared.cases["patient"].nunique() == TRAINED
    assert notes()["note"].tolist() == [PLACEHOLDER] * 8 + [ROUNDED]
    printed = capsys.readouterr().out
    assert "PatientID" in printed
    assert "cases.csv, row 2" in printed
    assert "ANONYMOUS" not in printed


def test_spellings_of_a_patient_stay_in_one_fold_and_are_named(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["patient"] = {3: "SECRET007", 6: "secret7"}.get(i, cells["patient"])

    prepared = prepare(hospital(tmp_path / "films", change))
    assert prepared.cases["patient"].nunique() == TRAINED - 1
    shared = prepared.cases[prepared.cases["patient"].duplicated(keep=False)]
    assert len(set(prepared.part[shared.index])) == 1
    printed = capsys.readouterr().out
    assert "leading zeros, case or blanks" in printed
    assert "row 5" in printed
    assert "row 8" in printed
    assert "secret" not in printed.casefold()
    assert isinstance(notes(), pd.DataFrame)


def test_a_leak_between_training_and_testing_is_seen_through(workspace: Path, tmp_path: Path) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["patient"] = {3: "00123", 16: "123"}.get(i, cells["patient"])

    with pytest.raises(Refusal, match="leak") as refusal:
        prepare(hospital(tmp_path / "films", change))
    assert "same patient" in str(refusal.value)


def test_one_patient_of_most_films_is_refused(workspace: Path, tmp_path: Path) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["patient"] = "HOSPITAL-XR" if i < 9 else cells["patient"]

    with pytest.raises(Refusal, match="9 of 14 films carry one PatientID") as refusal:
        prepare(hospital(tmp_path / "films", change))
    assert "column patient" in str(refusal.value)
    assert "HOSPITAL" not in str(refusal.value)
