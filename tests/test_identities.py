"""Spellings of one patient are one patient, placeholders and rounded numbers are none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_masks_and_labels import TRAINED, hospital, notes, prepare

from common.command_line import PrepareOptions
from common.demo.phantom_sets import write_siim
from common.paths import leaks_file
from common.preparation.run import prepare_sources
from common.preparation.spellings import spelt_otherwise
from common.refusal import Refusal
from common.sources.identities import (
    ALIKE_CASE,
    ALIKE_STUDY,
    PLACEHOLDER,
    ROUNDED,
    ROUNDED_CASE,
    STUDY_UNKNOWN,
    canonical,
    unite,
    why_unknown,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("00123", "123"),
        ("P0012", "p12"),
        (" A 1", "a1"),
        ("123.0", "123"),
        ("A-007", "a-7"),
        ("0", "000"),
        ("\uff21\uff11\uff12", "A12"),
    ],
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
        "0.0",
        "unknown",
        "N/A",
        "n.a.",
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


@pytest.mark.parametrize("text", ["1.23E+12", "1,23e+12", "1E+15", "123456789012345000"])
def test_rounded_numbers(text: str) -> None:
    assert why_unknown(text) == ROUNDED


@pytest.mark.parametrize(
    "text",
    [
        "P0001",
        "1",
        "123456",
        "A1",
        "anna-17",
        "123456789012340",
        "12345678901234500",
        "2.25.7",
        "E12",
        "ANON-00123",
        "ANON00123",
        "patient 7",
        "",
    ],
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


def test_spellings_of_a_study_are_one(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["study"] = {2: "EXAM 007", 4: "exam7", 5: "N/A", 6: "2.5E+14"}.get(i, f"study {i}")
        cells["patient"] = "p2" if i == 4 else f"p{i}"

    prepared = prepare(hospital(tmp_path / "films", change))
    assert prepared.cases["study"].nunique() == TRAINED - 3
    assert prepared.cases["study"].isna().sum() == 2
    listed = notes()[["origin", "note"]].to_numpy().tolist()
    assert sorted(listed) == [
        ["cases.csv, row 4", ALIKE_STUDY],
        ["cases.csv, row 6", ALIKE_STUDY],
        ["cases.csv, row 7", STUDY_UNKNOWN],
        ["cases.csv, row 8", STUDY_UNKNOWN],
    ]
    printed = capsys.readouterr().out
    assert f"warning: 2 films: {ALIKE_STUDY} (cases.csv, row 4; cases.csv, row 6)" in printed
    assert "exam7" not in printed.casefold().replace(" ", "").replace("0", "")


def test_a_study_of_two_spellings_in_training_and_testing_is_a_leak(workspace: Path, tmp_path: Path) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["study"] = {3: "0012", 16: "12"}.get(i, f"study {i}")

    with pytest.raises(Refusal, match="leak") as refusal:
        prepare(hospital(tmp_path / "films", change))
    assert "same study" in str(refusal.value)


def test_cases_that_are_alike_or_rounded_are_named(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They stay two films: nobody knows whether they are one."""

    def change(i: int, cells: dict[str, str]) -> None:
        cells["case"] = {1: "F 01", 15: "f1", 4: "1.23E+15"}.get(i, f"film {i}")

    prepared = prepare(hospital(tmp_path / "films", change))
    assert len(prepared.cases) == TRAINED
    assert set(notes()["note"]) == {ROUNDED_CASE, ALIKE_CASE}
    assert sorted(notes()["origin"]) == ["cases.csv, row 3", "cases.csv, row 6"]
    assert notes("ntuh_test")["note"].tolist() == [ALIKE_CASE]
    assert f"warning: 2 films: {ALIKE_CASE} (cases.csv, row 3; cases.csv, row 17)" in capsys.readouterr().out


def _sets(**cases: tuple[str, str]) -> dict[str, tuple[list[dict[str, str]], list[dict[str, str]]]]:
    """A set of one film each, of the patient and the canonical patient that are given; no study."""
    return {
        name: (
            [{"case": f"c {name}", "patient": patient, "study": ""}],
            [{"patient": key, "study": "", "case": ""}],
        )
        for name, (patient, key) in cases.items()
    }


def test_spellings_of_siim_and_the_hospital() -> None:
    (pair,) = spelt_otherwise(_sets(siim=("a", "x"), ntuh_train=("b", "y"), ntuh_test=("c", "x")))
    assert pair[:5] == ("c siim", "siim", "c ntuh_test", "ntuh_test", "same patient, spelt in another way")
    assert spelt_otherwise(_sets(siim=("a", "x"), ntuh_test=("a", "x"))) == []  # `find_leaks` finds it
    assert spelt_otherwise(_sets(ntuh_train=("a", "x"), ntuh_test=("c", "x"))) == []
    assert spelt_otherwise(_sets(siim=("a", ""), ntuh_test=("c", ""))) == []


@pytest.mark.parametrize("siim_first", [True, False])
def test_a_patient_of_siim_spelt_otherwise_in_the_hospital_is_a_warning(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], siim_first: bool
) -> None:
    """By the table of SIIM-ACR's patients; whichever was prepared first."""
    write_siim(tmp_path / "siim", positives=5, negatives=5, seed=3, workers=1)
    names = sorted(path.stem for path in (tmp_path / "siim").rglob("*.dcm"))
    table = "".join(f"{name},{number:08}\n" for number, name in enumerate(names, start=501))
    (tmp_path / "siim" / "patients.csv").write_text("ImageId,patient\n" + table)

    def change(i: int, cells: dict[str, str]) -> None:
        cells["patient"] = {3: "503", 16: " 506"}.get(i, cells["patient"])

    hospital(tmp_path / "films", change)
    sources = [{"siim": str(tmp_path / "siim")}, {"ntuh": str(tmp_path / "films")}]
    for source in sources if siim_first else sources[::-1]:
        prepare_sources(PrepareOptions(**source))
    printed = capsys.readouterr().out
    assert "warning: 2 patients or studies of SIIM-ACR and NTUH differ only by leading zeros" in printed
    assert "00000503" not in printed
    listed = pd.read_csv(leaks_file())
    assert listed[listed["why"] == "same patient, spelt in another way"]["kind"].tolist() == ["warning"] * 2
    assert set(listed["part_b"]) >= {"ntuh_train", "ntuh_test"}
