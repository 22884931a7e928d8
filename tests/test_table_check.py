"""The check of a hospital's case table: what it counts, each problem, and that it opens no film."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import start
from common.command_line import Rules
from common.refusal import Refusal
from common.sources.case_table import COLUMNS
from common.sources.table_check import TableCheck, write_template

HEADER = "image,pneumothorax,set,sex,age,patient,mask\n"


def _folder(folder: Path, *rows: str, header: str = HEADER, films: int = 9) -> Path:
    (folder / "cases.csv").write_text(header + "\n".join(rows) + "\n")
    for number in range(1, films + 1):
        (folder / f"{number}.png").touch()  # no picture: nothing may open it
    return folder


def _lines(folder: Path, **rules: object) -> list[str]:
    return TableCheck.of(folder, Rules(**rules)).lines()


def test_sound_table_is_counted(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        "1.png,1,train,M,50,p1,8.png",
        "2.png,no,Train,female,,p2,",
        "3.png,1,train,,045Y,p3,",
        "4.png,,test,,,,",
    )
    check = TableCheck.of(folder / "cases.csv", Rules())
    assert check.is_sound
    lines = check.lines()
    assert lines[0] == "cases.csv: 4 rows"
    assert "  pneumothorax       3  0: 1, 1: 2" in lines
    assert "  sex                2  F: 1, M: 1" in lines
    assert "  patient            3" in lines  # identifiers are counted, never shown
    absent = next(line for line in lines if line.startswith("columns that it could have"))
    assert absent.endswith("case, date, study, view, position, manufacturer, chest_tube, second_mask")
    train, test = (next(line for line in lines if line.startswith(part)) for part in ("train: ", "test: "))
    assert train == (
        "train: 2 of 3 films (1 negative, 1 positive, 1 with a mask, 1 excluded: "
        "positive by report, no annotated lesion)"
    )
    assert test == "test: 1 of 1 films (1 unlabelled, 0 with a mask)"


def test_each_problem_is_told_with_row_value_and_what_is_accepted(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        "1.png,1,train,M,50,p1,",
        "2.png,7,Quincy,Quincy,150,p2,",
        "lost.png,0,train,F,60,p3,",
        "1.png,0,test,F,60,p4,",
        "5.png,0,test",
    )
    lines = _lines(folder)
    found = [line for line in lines if line.startswith("row ")]
    assert [line.split(":")[0] for line in found] == ["row 3"] * 4 + ["row 4", "row 5", "row 6"]
    assert found[0] == (
        "row 3: pneumothorax is neither 0 nor 1, found pneumothorax '7'; accepted: " + COLUMNS["pneumothorax"]
    )
    assert "(the film is used all the same)" not in found[1]
    assert any("age is no number" in line and "(the film is used all the same)" in line for line in found)
    assert "no image file, found image of the form 'aaaa.aaa'; accepted: path of the image file" in found[4]
    assert "its case is listed a second time" in found[5]
    assert lines[-1] == "7 problems; 4 of 5 films cannot be used as the table is now"
    assert "Quincy" not in "\n".join(lines)


def test_split_that_is_not_told_is_a_problem_beside_the_others(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "1.png,5", header="image,pneumothorax\n")
    lines = _lines(folder)
    assert any(line.startswith("problem: cases.csv does not say which films") for line in lines)
    assert any(line.startswith("row 2: pneumothorax") for line in lines)


def test_unknown_column_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "1.png,1,train", header="image,pneumothorax,Chest tubes\n")
    with pytest.raises(Refusal, match=r"unknown: Chest tubes \(write chest_tube\)"):
        TableCheck.of(folder, Rules())
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal, match=r"no case table\n.*missing.*\n.*--write-template FILE"):
        TableCheck.of(tmp_path / "empty", Rules())
    (tmp_path / "two.xlsx").touch()
    with pytest.raises(Refusal, match=r"no case table\n.*found:.*two.xlsx"):
        TableCheck.of(tmp_path / "two.xlsx", Rules())
    with pytest.raises(Refusal, match=r"no such table or folder\n.*nowhere"):
        TableCheck.of(tmp_path / "nowhere", Rules())


def test_many_problems_of_a_kind_are_counted(tmp_path: Path) -> None:
    rows = [f"{number}.png,{'so' if number % 2 else 'oder'},train,,,," for number in range(150)]
    lines = _lines(_folder(tmp_path, *rows, "200.png,1,train,D,,,"))
    assert len([line for line in lines if line.startswith("row ")]) == 12
    assert "and 140 more rows: pneumothorax is neither 0 nor 1" in lines
    assert any(line.startswith("row 152: sex is neither M, F nor empty") for line in lines)
    assert "152 problems; 151 of 151 films cannot be used as the table is now" in lines


def test_words_of_other_languages_are_read(tmp_path: Path) -> None:
    yes, no = (
        ("ja", "WAHR", "Oui", "vrai", "sí", "VERDADERO", "vero"),
        ("Nein", "FALSCH", "non", "FAUX", "falso"),
    )
    rows = [f"{number % 9 + 1}.png,{word},test,c{number}" for number, word in enumerate(yes + no)]
    lines = _lines(_folder(tmp_path, *rows, header="image,pneumothorax,set,case\n"))
    assert f"  pneumothorax      12  0: {len(no)}, 1: {len(yes)}" in lines
    assert not any("neither 0 nor 1" in line for line in lines)


@pytest.mark.parametrize(
    ("cells", "counted"),
    [
        ("M F m", "F: 1, M: 2"),
        ("m w W", "F: 2, M: 1"),
        ("H F H", "F: 1, M: 2"),  # homme, femme
        ("H M M", "F: 2, M: 1"),  # hombre, mujer
        ("Hombre M M", "F: 2, M: 1"),
        ("H M F", "F: 1, M: 1"),  # M may be either: unknown
        ("H M Femenino", "F: 1, M: 1"),
        ("H M mujer", "F: 2, M: 1"),
        ("Homme M Femme", "F: 1, M: 2"),  # masculin
        ("H M Homme", "M: 3"),
        ("H M Féminin", "F: 1, M: 2"),
    ],
)
def test_letters_of_the_sexes(cells: str, counted: str, tmp_path: Path) -> None:
    rows = [f"{number}.png,0,test,{cell}" for number, cell in enumerate(cells.split(), 1)]
    lines = _lines(_folder(tmp_path, *rows, header="image,pneumothorax,set,sex\n"))
    assert f"  sex                3  {counted}" in lines


def test_letter_that_may_be_either_sex_says_so(tmp_path: Path) -> None:
    rows = [f"{number}.png,0,test,{cell}" for number, cell in enumerate("HMF", 1)]
    lines = _lines(_folder(tmp_path, *rows, header="image,pneumothorax,set,sex\n"))
    assert any("found sex M, which beside H and F may be a man or a woman" in line for line in lines)


def test_capitals_and_blanks_in_column_names_do_not_matter(tmp_path: Path) -> None:
    lines = _lines(_folder(tmp_path, "1.png,1,test,1", header="Image,PNEUMOTHORAX,Set,Chest tube\n"))
    assert "  chest_tube         1  1: 1" in lines
    with pytest.raises(Refusal, match="twice: image"):
        _lines(_folder(tmp_path, "1.png,1,1.png", header="Image,pneumothorax,image\n"))


def test_day_that_no_month_has_is_told_as_such(tmp_path: Path) -> None:
    lines = _lines(_folder(tmp_path, "1.png,1,test,31.2.2019", header="image,pneumothorax,set,date\n"))
    assert any("found date a day that no month has" in line for line in lines)
    assert lines[-1].startswith("1 problem; ")


def test_patient_in_both_sets_is_told_before_any_film_is_read(tmp_path: Path) -> None:
    rows = ("1.png,0,train,,,007,", "2.png,0,test,,,7,", "3.png,0,test,,,8,", "4.png,0,train,,,unknown,")
    check = TableCheck.of(_folder(tmp_path, *rows, "5.png,0,test,,,unknown,"), Rules())
    assert "patients that it names: 1 in train, 2 in test" in check.lines()
    assert any(line.startswith("problem: 1 of them in both sets") for line in check.lines())
    assert "  one of them: cases.csv, row 2 (train); cases.csv, row 3 (test)" in check.lines()
    assert not check.is_sound
    assert not any("007" in line for line in check.lines())  # counted, never shown
    # A film that is left out is in no set
    tubed = ("1.png,0,train,7,1", "2.png,0,test,7,0")
    folder = _folder(tmp_path, *tubed, header="image,pneumothorax,set,patient,chest_tube\n")
    assert TableCheck.of(folder, Rules()).is_sound


def test_template_is_a_table_that_passes_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cases.csv"
    start.prepare("", ["--write-template", str(path)])
    for folder, ending in (("films", "dcm"), ("masks", "png")):
        (tmp_path / folder).mkdir()
        for number in range(1, 5):
            (tmp_path / folder / f"000{number}.{ending}").touch()
    start.prepare("", ["--check-table", str(tmp_path)])
    said = capsys.readouterr().out
    assert "train: 2 of 2 films" in said
    assert "no problem was found" in said
    with pytest.raises(Refusal, match=r"cannot write .*\n.*File exists"):
        write_template(path)
    (tmp_path / "films" / "0001.dcm").unlink()
    with pytest.raises(SystemExit) as end:
        start.prepare("", ["--check-table", str(tmp_path)])
    assert end.value.code == 3
