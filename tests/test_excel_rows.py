"""cases.xlsx: what the cells of a workbook hold, as text, and the films that it lists."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest
from test_masks_and_labels import TRAINED, hospital, notes, prepare

from common.command_line import Rules
from common.refusal import Refusal
from common.sources import case_table, excel_rows
from common.sources.csv_rows import RAGGED
from common.sources.identities import PLACEHOLDER, ROUNDED, why_unknown


def _save(path: Path, *rows: list[object], title: str = "Sheet1", **others: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    book.active.title = title
    for row in rows:
        book.active.append(row)
    for name, cells in others.items():
        sheet = book.create_sheet(name)
        for row in cells:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("films/1.png", "films/1.png"),
        (" padded ", "padded"),
        ("00123", "00123"),
        (123, "123"),
        (1.0, "1"),
        (64.5, "64.5"),
        (0.1 + 0.2, "0.3"),
        (123456789012345, "123456789012345"),
        (1234567890123456, "1.23456789012346e+15"),
        (True, "True"),
        (datetime(2019, 2, 28), "2019-02-28"),
        (datetime(2019, 2, 28, 13, 5), "2019-02-28"),
        (date(2019, 2, 28), "2019-02-28"),
        ("#N/A", "#N/A"),
    ],
)
def test_cells(tmp_path: Path, cell: object, text: str) -> None:
    path = _save(tmp_path / "cases.xlsx", ["image", "x"], ["a.png", cell])
    assert excel_rows.read_rows(path) == [(1, ["image", "x"]), (2, ["a.png", text])]


def test_long_numbers_and_errors_name_no_patient(tmp_path: Path) -> None:
    path = _save(tmp_path / "cases.xlsx", ["patient"], [1234567890123456], ["#N/A"], ["#REF!"])
    known = [why_unknown(cells[0]) for _, cells in excel_rows.read_rows(path)[1:]]
    assert known == [ROUNDED, PLACEHOLDER, PLACEHOLDER]


def test_rows_are_numbered_as_excel_does(tmp_path: Path) -> None:
    """Empty rows count, cells that hold nothing add none, and only what is filled is ragged."""
    book = openpyxl.Workbook()
    for place, value in {
        "B3": "image",
        "C3": "set",
        "B7": "a",
        "B8": "b",
        "E8": "x",
        "C9": " ",
        "F1": "",
    }.items():
        book.active[place] = value
    book.save(tmp_path / "cases.xlsx")
    assert excel_rows.read_rows(tmp_path / "cases.xlsx") == [
        (3, ["", "image", "set"]),
        (7, ["", "a", ""]),
        (8, ["", "b", "", "", "x"]),
    ]


TABLE = [["image", "pneumothorax", "set"], ["a.png", 0, "train"]]


def test_the_sheet_with_the_films(tmp_path: Path) -> None:
    expected = [(1, TABLE[0]), (2, ["a.png", "0", "train"])]
    path = tmp_path / "cases.xlsx"
    assert excel_rows.read_rows(_save(path, *TABLE, Sheet2=[], Sheet3=[])) == expected
    assert excel_rows.read_rows(_save(path, ["notes"], Cases=TABLE)) == expected
    with pytest.raises(Refusal, match="several sheets") as refusal:
        excel_rows.read_rows(_save(path, *TABLE, title="Wang", other=[["notes"]]))
    assert "Wang" not in str(refusal.value)
    assert excel_rows.read_rows(_save(path)) == []


def test_formulas_without_values_are_refused(tmp_path: Path) -> None:
    """What a program wrote and no spreadsheet has computed would read as empty."""
    with pytest.raises(Refusal, match="formulas whose values are not saved") as refusal:
        excel_rows.read_rows(_save(tmp_path / "cases.xlsx", *TABLE, ["b.png", "=1-1", "train"]))
    assert "row 3" in str(refusal.value)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as parts:
        for number in range(6):
            parts.writestr(f"xl/{number}.xml", b"\0" * 100_000_000)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        lambda path: path.write_text("image,pneumothorax\n"),
        lambda path: zipfile.ZipFile(path, "w").close(),
        lambda path: path.write_bytes(_save(path, *TABLE).read_bytes()[:-300]),
        _bomb,
    ],
    ids=["empty", "head only", "text", "no parts", "cut", "bomb"],
)
def test_what_is_no_workbook(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "cases.xlsx")
    with pytest.raises(Refusal, match="cannot be read") as refusal:
        excel_rows.read_rows(tmp_path / "cases.xlsx")
    assert "cases.csv" in str(refusal.value)


def test_two_tables_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "cases.xlsx", *TABLE)
    (tmp_path / "~$cases.xlsx").touch()  # Excel's own, while the table is open
    assert len(case_table.source_films(tmp_path, "ntuh_train", Rules())) == 1
    (tmp_path / "cases.csv").touch()
    with pytest.raises(Refusal, match="two case tables") as refusal:
        case_table.source_films(tmp_path, "ntuh_train", Rules())
    assert "cases.csv and" in str(refusal.value)


def test_faults_name_the_workbook_the_row_and_the_value(tmp_path: Path) -> None:
    rows = [
        ["image", "pneumothorax", "set", "age", "sex"],
        ["a.png", 2, "train"],
        ["b.png", 0, "train", 200, "x"],
    ]
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    _save(tmp_path / "cases.xlsx", *rows, ["c.png", 0, "train", 3, "M", 5])
    bad, odd, ragged = case_table.source_films(tmp_path, "ntuh_train", Rules())
    assert (bad.origin, bad.fault) == (
        "cases.xlsx, row 2",
        "pneumothorax is neither 0 nor 1, found pneumothorax '2'",
    )
    assert odd.fault is None
    assert odd.notes == (
        "age is no number from 0 to 130, so it is unknown, found age '200'",
        "sex is neither M, F nor empty, so it is unknown, found sex of the form 'a'",
    )
    assert ragged.fault == RAGGED


def test_a_hospital_with_a_workbook_is_prepared_as_with_its_csv_file(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hospital(tmp_path / "films")
    with open(folder / "cases.csv", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    (folder / "cases.csv").unlink()
    cells = [[int(cell) if cell in "01" and cell else cell or None for cell in row] for row in rows]
    image, number = header.index("image"), header.index("pneumothorax")
    cells[0][image] = f"{folder}/{cells[0][image]}"
    cells[1][number] = 7
    dated = [[*row, datetime(2019, 1, 2), "Male", 64.0 if i else "old"] for i, row in enumerate(cells)]
    _save(folder / "cases.xlsx", [*header, "date", "sex", "age"], *dated)
    prepared = prepare(folder)
    assert len(prepared.cases) == TRAINED - 1
    assert set(prepared.cases["date"]) == {"2019-01-02"}
    assert set(prepared.cases["sex"]) == {"M"}
    assert prepared.cases["age"].isna().sum() == 1
    assert notes()["origin"].tolist() == ["cases.xlsx, row 2"]
    printed = capsys.readouterr().out
    assert (
        "rejected: 1 film: pneumothorax is neither 0 nor 1 (cases.xlsx, row 3: pneumothorax '7')" in printed
    )
    assert "rejected.csv" in printed
    assert (
        "note: 1 film: age is no number from 0 to 130, so it is unknown (cases.xlsx, row 2: age of" in printed
    )
