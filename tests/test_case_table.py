"""Any hospital's cases.csv -> source films: columns, faults of rows, paths, the split."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.command_line import Rules
from common.preparation.run import open_prepared
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.sources import case_table, ntuh
from common.sources.csv_rows import RAGGED
from common.sources.source_film import FOUND, SourceFilm

SECRET = "Wang-A123456789"


def _folder(folder: Path, rows: list[dict[str, str]]) -> Path:
    """A folder with the table, and an image file for each of the rows that names a plain one."""
    (folder / "films").mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(folder / "cases.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, columns, restval="")  # ends its lines with CRLF
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if re.fullmatch(r"films/\d+\.png", row["image"]):
            (folder / row["image"]).touch()
    return folder


def _row(number: int, **cells: str) -> dict[str, str]:
    return {"image": f"films/{number}.png", "pneumothorax": "0", "set": "train"} | cells


def _films(folder: Path, name: str = "ntuh_train", **rules: object) -> list[SourceFilm]:
    return case_table.source_films(folder, name, Rules(**rules))


def _one(folder: Path, **cells: str) -> SourceFilm:
    (film,) = _films(_folder(folder, [_row(1, **cells)]))
    return film


def _kind(film: SourceFilm) -> str | None:
    """What is wrong with a row, without what was found."""
    return film.fault and film.fault.partition(FOUND)[0]


def test_the_smallest_table(tmp_path: Path) -> None:
    rows = [_row(1), _row(2, pneumothorax="1", set="test")]
    train, test = (_films(_folder(tmp_path, rows), name) for name in ("ntuh_train", "ntuh_test"))
    assert train == [SourceFilm("films/1.png", tmp_path / "films/1.png", "cases.csv, row 2", None, 0)]
    assert test == [SourceFilm("films/2.png", tmp_path / "films/2.png", "cases.csv, row 3", None, 1)]


def test_every_column(tmp_path: Path) -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[0, 3] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    given = {
        "case": "a",
        "mask": "mask.png",
        "pneumothorax": "1",
        "date": "2019-02-28",
        "patient": "p",
        "study": "s",
        "age": "64.5",
        "sex": "F",
        "view": "ap",
        "position": "SUPINE",
        "manufacturer": "Maker, Ltd.",
        "chest_tube": "0",
    }
    film = _one(tmp_path, **given)
    assert set(given) | {"image", "set", "second_mask"} == set(case_table.COLUMNS)  # which is of test films
    assert (film.identifier, film.report, film.chest_tube) == ("a", 1, 0)
    assert (film.excluded, film.fault) == (None, None)
    assert film.facts == {
        "patient_id": "p",
        "study": "s",
        "age": 64.5,
        "sex": "F",
        "view": "AP",
        "position": "SUPINE",
        "manufacturer": "Maker, Ltd.",
        "date": "2019-02-28",
    }
    assert (film.annotation.mask(4, 3) == (mask > 0)).all()


def test_empty_cells_say_nothing(tmp_path: Path) -> None:
    film = _one(tmp_path, **dict.fromkeys(set(case_table.COLUMNS) - {"image", "pneumothorax", "set"}, ""))
    assert (film.fault, film.chest_tube, film.annotation, dict(film.facts)) == (None, None, None, {})
    assert film.identifier == "films/1.png"


@pytest.mark.parametrize(
    ("column", "cell", "note"),
    [
        ("date", "2019-02-29", "date is no date YYYY-MM-DD"),
        ("date", "20190231", "date is no date YYYY-MM-DD"),
        ("date", "2019-2-30", "date is no date YYYY-MM-DD"),
        ("date", "43524", "date is no date YYYY-MM-DD"),
        ("date", "28/02/2019", "date is no date YYYY-MM-DD"),
        ("age", "131", "age is no number from 0 to 130"),
        ("age", "130.1", "age is no number from 0 to 130"),
        ("age", "-1", "age is no number from 0 to 130"),
        ("age", "forty", "age is no number from 0 to 130"),
        ("age", "nan", "age is no number from 0 to 130"),
        ("age", "inf", "age is no number from 0 to 130"),
        ("age", "1e1", "age is no number from 0 to 130"),
        ("age", "٤٥", "age is no number from 0 to 130"),
        ("view", "the left side of Mr Wang", "view is no code"),
        ("position", "1", "position is no code"),
        ("manufacturer", "x" * 65, "manufacturer is no single line"),
    ],
)
def test_an_optional_cell_never_costs_its_film(tmp_path: Path, column: str, cell: str, note: str) -> None:
    """It is unknown, with a note that tells its form, not what it says."""
    rows = [_row(1), _row(2, **{column: cell}), _row(3)]
    films = _films(_folder(tmp_path, rows))
    assert [film.fault for film in films] == [None] * 3
    assert dict(films[1].facts) == {}
    assert films[1].chest_tube is None
    (found,) = films[1].notes
    assert found.startswith(f"{note}")
    assert f", so it is unknown, found {column} " in found
    assert not re.search("[A-Za-z]{2}", cell) or cell not in found.replace(note, "")


def test_a_date_that_splits_the_set_is_not_optional(tmp_path: Path) -> None:
    rows = [
        {"image": f"films/{n}.png", "pneumothorax": "0", "date": date}
        for n, date in enumerate(("2019", "2019-01-01"))
    ]
    films = _films(_folder(tmp_path, rows), test_from="2020-01-01")
    assert [film.fault for film in films] == [
        "date is no date YYYY-MM-DD, found date of the form '9999'",
        None,
    ]


@pytest.mark.parametrize(
    "cell",
    ["2019-02-03", "2019-2-3", "2019/2/3", "20190203", "2019-02-03 00:00:00", "3.2.2019", "03.02.2019 7:15"],
)
def test_dates_whose_order_is_plain(tmp_path: Path, cell: str) -> None:
    film = _one(tmp_path, date=cell)
    assert (film.facts["date"], film.notes) == ("2019-02-03", ())
    (film,) = _films(
        _folder(tmp_path / "b", [{"image": "a", "pneumothorax": "0", "date": cell}]), test_from="2019-02-04"
    )
    assert film.origin == "cases.csv, row 2"


def test_words_of_spreadsheets(tmp_path: Path) -> None:
    cells = {"pneumothorax": "No", "chest_tube": "0.0", "sex": "Female", "set": "Training", "age": "45.0"}
    film = _one(tmp_path, **cells)
    assert (film.report, film.chest_tube, film.fault, film.notes) == (0, 0, None, ())
    assert film.facts == {"sex": "F", "age": 45}
    rows = [
        _row(1, pneumothorax="1.0", set="Test", chest_tube="yes"),
        _row(2, pneumothorax="TRUE", set="TEST"),
    ]
    films = _films(_folder(tmp_path, rows), "ntuh_test", allow_chest_tube=True)
    assert [(film.report, film.chest_tube) for film in films] == [(1, 1), (1, None)]


@pytest.mark.parametrize(("cell", "age"), [("045Y", 45), ("45y", 45), ("018M", 1.5), ("7", 7)])
def test_ages_as_headers_have_them(tmp_path: Path, cell: str, age: float) -> None:
    film = _one(tmp_path, age=cell)
    assert (film.facts["age"], film.notes) == (age, ())


def test_columns_without_name_and_cells_are_none(tmp_path: Path) -> None:
    """As spreadsheets write them beside a table."""
    folder = _folder(tmp_path, [_row(1), _row(2)])
    table = folder / "cases.csv"
    table.write_text("".join(f"{line},,\n" for line in table.read_text().splitlines()))
    assert [film.fault for film in _films(folder)] == [None, None]


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        ("image", "", "image is empty or no path"),
        ("image", "films/1.png\nfilms/2.png", "image is empty or no path"),
        ("pneumothorax", "", "pneumothorax is empty, which only a test film without a mask may have"),
        ("pneumothorax", "2", "pneumothorax is neither 0 nor 1"),
        ("pneumothorax", SECRET, "pneumothorax is neither 0 nor 1"),
        ("set", "validation", "set is neither train nor test"),
        ("set", "", "set is neither train nor test"),
        ("case", "two\nlines", "case is no single line"),
        ("patient", "x" * 257, "patient is no single line"),
        ("study", "a\tb", "study is no single line"),
    ],
)
def test_a_bad_cell_is_a_fault_of_its_row_only(tmp_path: Path, column: str, cell: str, fault: str) -> None:
    rows = [_row(1), _row(2, **{column: cell}), _row(3)]
    films = _films(_folder(tmp_path, rows))
    assert [film.fault is None for film in films] == [True, False, True]
    assert films[1].fault.startswith(fault)
    assert films[1].origin == "cases.csv, row 3"
    assert (films[1].path, films[1].annotation, dict(films[1].facts)) == (None, None, {})
    assert not cell or len(cell) < 3 or cell not in films[1].fault + films[1].origin


@pytest.mark.parametrize("age", ["0", "130", "130.0", "7.25", "045"])
def test_ages_at_the_limits(tmp_path: Path, age: str) -> None:
    assert _one(tmp_path, age=age).facts["age"] == float(age)


def test_row_numbers_are_a_spreadsheets(tmp_path: Path) -> None:
    """A row of several lines is one row; an empty row counts; rows of empty cells hold nothing."""
    (tmp_path / "cases.csv").write_bytes(
        b"\xef\xbb\xbfimage,pneumothorax,set,manufacturer\r\n"
        b'a.png,0,train,"one\r\ntwo\nthree"\r\n'
        b"\r\n"
        b",,,\r\n"
        b"b.png,x,train,\r\n"
        b"c.png,0,train\r\n"
        b"d.png,0,train,,\r\n"
    )
    films = _films(tmp_path)
    assert [film.origin for film in films] == [f"cases.csv, row {n}" for n in (2, 5, 6, 7)]
    assert [film.fault for film in films] == [
        "no image file, found image of the form 'a.aaa'",
        "pneumothorax is neither 0 nor 1, found pneumothorax of the form 'a'",
        RAGGED,
        RAGGED,
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../outside.png",
        "films/../../outside.png",
        "films/../films/1.png",
        "..\\outside.png",
        "\\outside.png",
        "C:\\films\\1.png",
        "C:films\\1.png",
        "\\\\server\\share\\1.png",
        "link.png",
        "linked/outside.png",
        ".",
    ],
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_paths_stay_in_the_folder(tmp_path: Path, column: str, path: str) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside.png"
    folder.mkdir()
    outside.touch()
    (folder / "link.png").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    film = _one(folder, **{column: path})
    assert film.fault.startswith(f"{column} is no path inside the folder, found {column} of the form")
    assert (film.path, film.annotation) == (None, None)


def test_whole_paths_inside_the_folder(tmp_path: Path) -> None:
    """Also through a link, and the case is called as by the relative path."""
    folder, linked = tmp_path / "in", tmp_path / "linked"
    linked.symlink_to(folder)
    rows = [_row(1), _row(2, image=f"{folder}/films/2.png"), _row(3, image=f"{linked}/films/3.png")]
    rows += [_row(4, image=f"{folder}/films/../films/4.png"), _row(5, image=str(folder)), _row(6, image="/")]
    _folder(folder, rows)
    for number in (2, 3, 4):
        (folder / "films" / f"{number}.png").touch()
    films = _films(folder)
    assert [film.fault is None for film in films] == [True] * 3 + [False] * 3
    assert [film.identifier for film in films[:3]] == [f"films/{number}.png" for number in (1, 2, 3)]
    assert [film.path for film in films[:3]] == [folder / "films" / f"{number}.png" for number in (1, 2, 3)]


def test_spaces_around_cells_and_other_spellings_of_a_path(tmp_path: Path) -> None:
    (film,) = _films(
        _folder(tmp_path, [_row(1), _row(2, image=" .\\films\\2.png ", set=" test ", age=" 5 ")]), "ntuh_test"
    )
    assert (film.identifier, film.facts["age"]) == ("films/2.png", 5)


def test_the_first_bad_cell_is_named(tmp_path: Path) -> None:
    assert _one(tmp_path, sex="x", age="x", pneumothorax="7").fault == (
        "pneumothorax is neither 0 nor 1, found pneumothorax '7'"
    )


def test_links_and_backslashes_inside_the_folder_are_fine(tmp_path: Path) -> None:
    films = _films(_folder(tmp_path, [_row(1), _row(2, image=".\\films\\2.png"), _row(3, image="link.png")]))
    assert [_kind(film) for film in films] == [None, "no image file", "no image file"]
    for target in ("2.png", "3.png"):
        (tmp_path / "films" / target).touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "films" / "3.png")
    linked = tmp_path.parent / f"{tmp_path.name} linked"
    linked.symlink_to(tmp_path)  # the folder itself may be a link
    assert [film.fault for film in _films(linked)] == [None, None, None]


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    rows = [
        _row(1, image="no.png"),
        _row(2, image="a folder"),
        _row(3, mask="no.png"),
        _row(4, image="x" * 999),
    ]
    films = _films(_folder(tmp_path, rows))
    assert [_kind(film) for film in films] == ["no image file"] * 2 + ["no mask file", "no image file"]
    assert all(film.path is None for film in films)


def test_what_is_listed_twice_is_a_fault_of_the_later_row(tmp_path: Path) -> None:
    """Also when the rows are in different sets, and when the image has two names."""
    rows = [
        _row(1, case="a", mask="m.png"),
        _row(2, case="a", set="test"),
        _row(1, case="b", image="./films/1.png", set="test"),
        _row(3, case="c", image="link.png"),
        _row(4, case="d", mask="m.png"),
        _row(5, case="films/6.png"),
        _row(6),
        _row(7, mask="films/7.png"),
        _row(8, case="e", age="old"),
        _row(9, case="e"),
    ]
    (tmp_path / "films").mkdir()
    (tmp_path / "link.png").symlink_to("films/1.png")
    (tmp_path / "m.png").touch()
    folder = _folder(tmp_path, rows)
    films = _films(folder) + _films(folder, "ntuh_test")
    assert len(films) == len(rows)
    assert {int(film.origin.split()[-1]) - 2: film.fault for film in films} == {
        0: None,
        1: "its case is listed a second time",
        2: "its image is listed a second time",
        3: "its image is listed a second time",
        4: "its mask is listed a second time",
        5: None,
        6: "its case is listed a second time",
        7: "mask is the image itself",
        8: None,
        9: "its case is listed a second time",
    }


def test_rules_of_inclusion(tmp_path: Path) -> None:
    rows = [
        _row(1, chest_tube="1"),
        _row(2, pneumothorax="1"),
        _row(3, pneumothorax="1", mask="m.png"),
        _row(4, chest_tube="1", set="test"),
        _row(5, pneumothorax="1", set="test"),
        _row(6, chest_tube="0"),
    ]
    (tmp_path / "m.png").touch()
    folder = _folder(tmp_path, rows)
    assert [film.excluded for film in _films(folder)] == ["chest tube", ntuh.UNMASKED, None, None]
    assert [film.excluded for film in _films(folder, "ntuh_test")] == ["chest tube", None]
    allowed = _films(folder, allow_chest_tube=True)
    assert [film.excluded for film in allowed] == [None, ntuh.UNMASKED, None, None]
    assert [film.chest_tube for film in allowed] == [1, None, None, 0]


def test_only_a_test_film_without_a_mask_may_have_no_label(tmp_path: Path) -> None:
    rows = [
        _row(1, pneumothorax=""),
        _row(2, pneumothorax=" ", set="test"),
        _row(3, pneumothorax="", set="test", mask="m.png"),
        _row(4, pneumothorax="", set="test", chest_tube="1"),
        _row(5, set="test"),
    ]
    (tmp_path / "m.png").touch()
    folder = _folder(tmp_path, rows)
    (training,) = _films(folder)
    assert (training.origin, training.fault) == ("cases.csv, row 2", case_table.UNLABELLED)
    test = _films(folder, "ntuh_test")
    assert [film.fault for film in test] == [None, case_table.UNLABELLED, None, None]
    assert [film.excluded for film in test] == [None, None, "chest tube", None]
    assert [film.report for film in test if not film.fault] == [None, None, 0]


def test_no_label_and_a_split_by_date(tmp_path: Path) -> None:
    rows = [_row(n, pneumothorax="", date=date) for n, date in enumerate(("2019-12-31", "2020-01-01", ""))]
    folder = _folder(tmp_path, [{k: v for k, v in row.items() if k != "set"} for row in rows])
    train, test = (_films(folder, name, test_from="2020-01-01") for name in ("ntuh_train", "ntuh_test"))
    assert [film.fault for film in test] == [None]
    assert [film.fault for film in train] == [
        case_table.UNLABELLED,
        "date is empty, so that --test-from cannot place the film",
    ]


def _pictures(folder: Path, rows: list[dict[str, str]]) -> Path:
    """As `_folder`, with films that are pictures of their own; the positive ones get a mask."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 30:50] = 255
    _folder(folder, rows)
    for row in rows:
        shapes = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
        shapes.resize((64, 64), Image.Resampling.BICUBIC).save(folder / row["image"])
        if row.get("mask"):
            Image.fromarray(mask).save(folder / row["mask"])
    return folder


@pytest.mark.slow
def test_films_without_a_label_are_prepared_and_counted(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a labelled set's case table and flow say nothing of labels, as before."""
    rows = [_row(n, pneumothorax="1", mask=f"m{n}.png") for n in range(5)]
    rows += [_row(n) for n in range(5, 11)]
    rows += [_row(11, set="test"), _row(12, set="test", pneumothorax="1", mask="m12.png")]
    rows += [_row(n, set="test", pneumothorax="") for n in (13, 14)]
    prepared = open_prepared("ntuh_test", str(_pictures(tmp_path / "films", rows)), "test")
    names = [pseudonym("case", f"films/{n}.png") for n in (11, 12, 13, 14)]
    table = prepared.cases.set_index("case").loc[names]
    assert table["has_mask"].tolist() == [0, 1, 0, 0]
    assert table["report"].tolist()[:2] == [0, 1]
    assert table["report"].isna().tolist() == [False, False, True, True]
    assert table["mask_area_fraction"].tolist()[2:] == [0, 0]
    flow = json.loads((prepared.folder / "flow.json").read_text())
    assert flow["unlabelled"] == 2
    assert (flow["found"], flow["prepared"], flow["positive_by_report"]) == (4, 4, 1)
    assert "2 of them without a label" in capsys.readouterr().out
    training = open_prepared("ntuh_train", str(tmp_path / "films"), "test")
    assert training.cases["report"].dtype == np.int64
    assert training.cases["report"].tolist() == training.cases["has_mask"].tolist()
    assert "unlabelled" not in (training.folder / "flow.json").read_text()


def _dated(folder: Path, *dates: str) -> Path:
    rows = [_row(n, date=date) for n, date in enumerate(dates)]
    return _folder(folder, [{k: v for k, v in row.items() if k != "set"} for row in rows])


def test_split_by_date(tmp_path: Path) -> None:
    folder = _dated(tmp_path, "2019-12-31", "2020-01-01", "2021-05-05", "", "2020-13-01", "1 May 2021")
    train, test = (_films(folder, name, test_from="2020-01-01") for name in ("ntuh_train", "ntuh_test"))
    assert [f.origin.split()[-1] for f in train if not f.fault] == ["2"]
    assert [f.origin.split()[-1] for f in test if not f.fault] == ["3", "4"]
    faults = {f.origin.split()[-1]: f.fault for f in train + test if f.fault}
    assert faults == {
        "5": "date is empty, so that --test-from cannot place the film",
        "6": "date is no date YYYY-MM-DD, found date a day that no month has",
        "7": "date is no date YYYY-MM-DD, found date of the form '9 aaa 9999'",
    }
    assert len(train + test) == 6


@pytest.mark.parametrize(
    ("columns", "test_from", "said"),
    [
        (["set", "date"], "2020-01-01", "given twice"),
        (["date"], "", "does not say which films are for testing"),
        ([], "2020-01-01", "add the column date"),
        (["date"], "2020", "--test-from is no date"),
        (["date"], "2020-02-30", "--test-from is no date"),
    ],
)
def test_a_split_that_is_not_given_once_is_refused(
    tmp_path: Path, columns: list[str], test_from: str, said: str
) -> None:
    values = {"set": "train", "date": "2019-01-01"}
    folder = _folder(tmp_path, [{"image": "a", "pneumothorax": "0"} | {c: values[c] for c in columns}])
    with pytest.raises(Refusal, match=said) as refusal:
        _films(folder, test_from=test_from)
    assert "do:" in str(refusal.value)


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    """As a spreadsheet of most of Europe writes them, with its mark in front."""
    rows = ["image;pneumothorax;set;age;patient", "a.png;1;test;67,5;A, B", ";;;;", "b.png;0;test;;"]
    (tmp_path / "cases.csv").write_text("\r\n".join(rows), encoding="utf-8-sig", newline="")
    for name in "ab":
        (tmp_path / f"{name}.png").touch()
    films = _films(tmp_path, "ntuh_test")
    assert [film.report for film in films] == [1, 0]
    assert films[0].facts == {"patient_id": "A, B", "age": 67.5}
    assert [film.origin for film in films] == ["cases.csv, row 2", "cases.csv, row 4"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no case table"),
        (b"", "lacks a column"),
        (b"image,pneumothorax,set\r\n", "lists no film"),
        (b"image,pneumothorax,set\r\n\r\n,,\r\n", "lists no film"),
        (b"image,set\na,train\n", "lacks a column"),
        (b"image\tpneumothorax\tset\na\t0\ttrain\n", "separated by commas or semicolons"),
        (b"image,pneumothorax,set,Alter\na,0,train,1\n", "unknown: Alter"),
        (b"image,pneumothorax,set,\na,0,train,1\n", "unknown: .no name."),
        (b"image,pneumothorax,set,\x1b[2J\na,0,train,1\n", "unknown: .no name."),
        (b"image,pneumothorax,set,set\na,0,train,train\n", "twice: set"),
        ("image,pneumothorax,set\n胸,0,train\n".encode("big5"), "not UTF-8"),
        ("image,pneumothorax,set\na,0,train\n".encode("utf-16"), "not UTF-8"),
        (b'image,pneumothorax,set\na,0,"train\nb,0,train\n', "not closed"),
        (b"image,pneumothorax,set\n" + b"a" * 200_000 + b",0,train\n", "cannot be read"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(Refusal, match=said) as refusal:
        _films(tmp_path)
    assert len(str(refusal.value)) < 1000


def test_a_refusal_of_columns_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("image,pneumothorax,set,weight\na,0,train,1\n")
    with pytest.raises(Refusal) as refusal:
        _films(tmp_path)
    assert all(name in str(refusal.value) for name in case_table.COLUMNS)


def test_a_table_without_header_shows_no_patient(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(f"films/{SECRET}.png,0,{SECRET}\n")
    with pytest.raises(Refusal) as refusal:
        _films(tmp_path)
    assert SECRET not in str(refusal.value)


def test_no_message_repeats_a_cell(tmp_path: Path) -> None:
    rows = [_row(n, **{column: f"{SECRET}\n"}) for n, column in enumerate(case_table.COLUMNS)]
    rows += [_row(50 + n, **{column: f"../{SECRET}"}) for n, column in enumerate(case_table.COLUMNS)]
    films = _films(_folder(tmp_path, rows)) + _films(tmp_path, "ntuh_test")
    assert len(films) == len(rows)
    assert sum(film.fault is not None for film in films) > 8
    assert sum(map(len, (film.notes for film in films))) > 4
    assert not any(SECRET in f"{film.origin} {film.fault} {film.excluded} {film.notes}" for film in films)


@pytest.mark.slow
def test_many_rows_are_quick(tmp_path: Path) -> None:
    with open(tmp_path / "cases.csv", "w") as file:
        file.write("image,pneumothorax,set,case,age,date\n")
        file.writelines(f"{n}.png,0,train,,{n % 200},2019-01-01\n" for n in range(20_000))
    films = _films(tmp_path)
    assert len(films) == 20_000
    assert sum(len(film.notes) for film in films) == 100 * 69
