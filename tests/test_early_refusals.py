"""What the table tells is refused before any film is read: patients in both sets, too many faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dicom_film import write_film

from common import start
from common.command_line import Rules
from common.preparation.run import look_ahead
from common.refusal import Refusal

HEADER = "image,pneumothorax,set,patient,mask,age\n"


def _export(folder: Path, *rows: str, **headers: dict[str, Any]) -> Path:
    """A table of these rows; their films are black, and say in their header what is given by name."""
    (folder / "cases.csv").write_text(HEADER + "\n".join(rows) + "\n")
    for number in range(1, 14):
        write_film(folder / f"{number}.dcm", **headers.get(f"film_{number}", {}))
        (folder / f"m{number}.png").touch()
    return folder


def _look(folder: Path, rules: Rules | None = None) -> dict[str, int]:
    """How many films each set has."""
    found = look_ahead("ntuh", str(folder), None, rules, "a test")
    return {name: len(films.has_mask) for name, films in found.items()}


# Five patients of each class for the folds, and one in testing.
APART = (
    *(f"{n}.dcm,1,train,p{n},m{n}.png," for n in range(3, 8)),
    *(f"{n}.dcm,0,train,p{n},," for n in range(9, 14)),
    "8.dcm,0,test,p8,,",
)


def test_patients_in_both_sets_are_refused_by_row(workspace: Path, tmp_path: Path) -> None:
    folder = _export(tmp_path, "1.dcm,0,train,007,,", "2.dcm,0,test,7,,", *APART)
    with pytest.raises(Refusal) as refused:
        _look(folder)
    said = str(refused.value)
    assert said.startswith("1 patient has films in training and in testing\n")
    assert "cases.csv, row 2 (ntuh_train); cases.csv, row 3 (ntuh_test)" in said
    assert "--check-table" in said
    assert "007" not in said  # counted, never shown
    apart = _export(tmp_path, "1.dcm,0,train,007,,", "2.dcm,0,test,8,,", *APART)
    assert _look(apart) == {"ntuh_train": 11, "ntuh_test": 2}


def test_film_that_a_rule_leaves_out_shares_no_patient(workspace: Path, tmp_path: Path) -> None:
    """By the table's age, by the header's, by the header's view or its burned-in text."""
    shared = ("1.dcm,0,train,p1,,{}", "2.dcm,0,test,p1,,")
    grown, child = ([shared[0].format(age), shared[1], *APART] for age in (50, 12))
    with pytest.raises(Refusal, match="1 patient has"):
        _look(_export(tmp_path, *grown))
    _look(_export(tmp_path, *child))
    unknown = [shared[0].format(""), shared[1], *APART]
    with pytest.raises(Refusal, match="1 patient has"):
        _look(_export(tmp_path, *unknown, film_1={"PatientAge": "050Y"}))
    _look(_export(tmp_path, *unknown, film_1={"PatientAge": "012Y"}))
    with pytest.raises(Refusal, match="1 patient has"):  # the table goes before the header
        _look(_export(tmp_path, *grown, film_1={"PatientAge": "012Y"}))
    _look(_export(tmp_path, *unknown, film_2={"BurnedInAnnotation": "YES"}))
    lateral = {"film_2": {"ViewPosition": "LL"}}
    _look(_export(tmp_path, *unknown, **lateral), Rules(views=("AP",)))
    with pytest.raises(Refusal, match="1 patient has"):
        _look(_export(tmp_path, *unknown, **lateral))


def test_many_patients_in_both_sets_are_counted(workspace: Path, tmp_path: Path) -> None:
    rows = [f"{1 + i}.dcm,0,{'test' if i % 2 else 'train'},p{i // 2},," for i in range(8)]
    with pytest.raises(Refusal, match=r"^4 patients have"):
        _look(_export(tmp_path, *rows))


def test_rows_with_faults_beyond_the_limit_are_refused(workspace: Path, tmp_path: Path) -> None:
    rows = ("1.dcm,perhaps,train,p1,,", "99.dcm,0,train,p2,,", *APART)
    with pytest.raises(Refusal) as refused:
        _look(_export(tmp_path, *rows))
    said = str(refused.value)
    assert said.startswith("ntuh_train: 2 of 12 films have a fault in their table, more than 10%\n")
    assert "no image file" in said
    assert "--ntuh PATH --max-fault-share" in said
    assert _look(tmp_path, Rules(max_fault_share=0.5)) == {"ntuh_train": 10, "ntuh_test": 1}


@pytest.mark.slow
def test_run_checks_the_table_before_anything(workspace: Path, tmp_path: Path, sources: Path) -> None:
    (tmp_path / "hospital").mkdir()
    folder = _export(tmp_path / "hospital", "1.dcm,0,train,p1,,", "2.dcm,0,test,p1,,", *APART)
    films = ["--siim", str(sources / "siim"), "--ntuh", str(folder)]
    with pytest.raises(Refusal, match="1 patient has films in training and in testing"):
        start.run("", ["--gpu", "cpu", "--check", "--preset", "demo", *films])
