"""Any hospital's films, listed in a case table -> source films of training and testing.

The folder holds the case table (`cases.csv`: UTF-8; or `cases.xlsx`), first row the column names, and the
image and mask files, in any sub-folders. One row is one film; `COLUMNS` says what its cells mean. The columns
`image` and `pneumothorax` are required; every other column may be absent and, but for `set`, every other cell
empty.
A test film without a mask may have an empty `pneumothorax`: it has no label, and is predicted all the same.

The split is temporal: by the column `set`, or by `Rules.test_from`, the first date of the test set.

Row numbers in messages are a spreadsheet's: the header is row 1, and a row with multi-line cells is one row.
Messages tell the form of what a cell holds, since it may be a name; only a short number is repeated.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd
import pandera.pandas as pa

from common.command_line import Rules
from common.films.header import age_in_years
from common.films.mask_files import MaskFile
from common.paths import shown
from common.refusal import Refusal
from common.sources import csv_rows, excel_rows
from common.sources.csv_rows import RAGGED
from common.sources.ntuh import TUBED, UNMASKED
from common.sources.source_film import FOUND, SourceFilm

TABLES = {"cases.csv": csv_rows.read_rows, "cases.xlsx": excel_rows.read_rows}  # name -> what reads it
COLUMNS = {
    "image": "path of the image file, relative to the folder of the table",
    "pneumothorax": "1: positive by radiology report or reading; 0: negative; empty: unlabelled test film",
    "case": "identifier of the film, used once; without it, the image's path",
    "mask": "picture of the film's size, Segmentation or LabelMe file: its path; empty: no annotated lesion",
    "set": "train or test",
    "date": "of the film: 2019-03-28 or 28.3.2019; of 03/04/2019 nobody knows which is the month",
    "patient": "identifier of the patient",
    "study": "identifier of the study",
    "age": "years, 0 to 130",
    "sex": "M or F",
    "view": "ViewPosition such as AP",
    "position": "of the patient, such as SUPINE",
    "manufacturer": "of the X-ray device",
    "chest_tube": "1, 0, or empty where unknown",
    "second_mask": "a second annotator's mask of a test film, as mask; empty: not marked a second time",
}
REQUIRED = ("image", "pneumothorax")
_NOT_READ = ("pneumothorax", "mask", "second_mask", "set")  # of films that count as unlabelled
_FACTS = {"patient": "patient_id"} | {
    name: name for name in ("study", "age", "sex", "view", "position", "manufacturer", "date")
}
_UNUSABLE = "second_mask is unknown, since it "  # the film is used all the same
UNLABELLED = "pneumothorax is empty, which only a test film without a mask may have"
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"([ T][0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?)?"
_YEAR_FIRST = re.compile(
    rf"(?P<year>[0-9]{{4}})(?P<sign>[-/.]?)(?P<month>[0-9]{{1,2}})(?P=sign)(?P<day>[0-9]{{1,2}}){_TIME}"
)
_DAY_FIRST = re.compile(rf"(?P<day>[0-9]{{1,2}})[.](?P<month>[0-9]{{1,2}})[.](?P<year>[0-9]{{4}}){_TIME}")
_LINE = r"[^\x00-\x1f\x7f]"


def _matches(pattern: str) -> Callable[[pd.Series], pd.Series]:
    return lambda cells: cells.str.fullmatch(pattern)


def _is_date(cells: pd.Series) -> pd.Series:
    real = pd.to_datetime(cells, format="%Y-%m-%d", errors="coerce").notna()
    return cells.str.fullmatch(_DATE) & real | (cells == "")


def _is_age(cells: pd.Series) -> pd.Series:
    number = cells.str.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?")
    return number & pd.to_numeric(cells.where(number, "-1")).between(0, 130) | (cells == "")


def _line(longest: int) -> Callable[[pd.Series], pd.Series]:
    return _matches(f"{_LINE}{{0,{longest}}}")


def _code(name: str) -> tuple[Callable[[pd.Series], pd.Series], str]:
    return _matches(r"([A-Za-z][A-Za-z0-9 _/-]{0,15})?"), f"{name} is no code of at most 16 letters"


# column -> (what holds for its cells, the fault where it does not)
_CELLS: dict[str, tuple[Callable[[pd.Series], pd.Series], str]] = {
    "image": (_matches(f"{_LINE}{{1,1024}}"), "image is empty or no path"),
    "pneumothorax": (_matches("[01]?"), "pneumothorax is neither 0 nor 1"),
    "case": (_line(256), "case is no single line of at most 256 characters"),
    "mask": (_matches(f"{_LINE}{{0,1024}}"), "mask is no path"),
    "set": (_matches("train|test"), "set is neither train nor test"),
    "date": (_is_date, "date is no date YYYY-MM-DD"),
    "patient": (_line(256), "patient is no single line of at most 256 characters"),
    "study": (_line(256), "study is no single line of at most 256 characters"),
    "age": (_is_age, "age is no number from 0 to 130"),
    "sex": (_matches("[MF]?"), "sex is neither M, F nor empty"),
    "view": _code("view"),
    "position": _code("position"),
    "manufacturer": (_line(64), "manufacturer is no single line of at most 64 characters"),
    "chest_tube": (_matches("[01]?"), "chest_tube is neither 0, 1 nor empty"),
    "second_mask": (_matches(f"{_LINE}{{0,1024}}"), "second_mask is no path"),
}
_OPTIONAL = ("date", "age", "sex", "view", "position", "manufacturer", "chest_tube", "second_mask")
# also in German, French, Spanish and Italian, as their spreadsheets write a truth value
_TRUE = "1.0 yes y true positive pos ja wahr positiv oui vrai positif sí si verdadero positivo sì vero"
_FALSE = "0.0 no n false negative neg nein falsch negativ non faux négatif negatif falso negativo"
_MEN = "m male man männlich mann masculin homme masculino hombre maschio h"
_WOMEN = "f female woman weiblich frau w féminin femme femenino feminino mujer femmina"
_EITHER = "M?"  # masculino or mujer
_YES, _NO = dict.fromkeys(_TRUE.split(), "1"), dict.fromkeys(_FALSE.split(), "0")
_WORDS = {  # column -> what spreadsheets and people write, in small letters -> what it is
    "pneumothorax": _YES | _NO,
    "chest_tube": _YES | _NO,
    "sex": dict.fromkeys(_MEN.split(), "M") | dict.fromkeys(_WOMEN.split(), "F"),
    "set": {"train": "train", "training": "train", "test": "test", "testing": "test"},
}
_SCHEMA = pa.DataFrameSchema(
    {
        name: pa.Column(checks=pa.Check(holds, error=fault), required=name in REQUIRED)
        for name, (holds, fault) in _CELLS.items()
    }
)


def source_films(folder: Path, name: str, rules: Rules) -> list[SourceFilm]:
    """List the films of one set.

    Every row is in exactly one set; a row whose set cannot be told is a fault in `ntuh_train`.

    Args:
        folder: Folder that holds the case table.
        name: `ntuh_train` or `ntuh_test`.
        rules: Rules of inclusion; `test_from` and `allow_chest_tube` are applied here.

    Raises:
        Refusal: The table cannot be read, has unknown columns or lacks one, is empty, or its split is not
            given, or given twice.
    """
    path = find_table(folder)
    if path is None:
        raise Refusal("the folder has no case table", missing=shown(folder / next(iter(TABLES))))
    table = read_table(path)
    _check_split(path.name, table, rules)
    films = _films_of(path, table, rules)
    return [film for is_test, film in films if is_test == (name == "ntuh_test")]


def unlabelled_films(folder: Path, rules: Rules) -> list[SourceFilm]:
    """List the films of a table as films without a label, whatever it says of labels, masks and sets.

    Args:
        folder: Folder that holds the case table, of which the column `image` is required.
        rules: Rules of inclusion; `allow_chest_tube` is applied here.

    Raises:
        Refusal: The table cannot be read, has unknown columns or none of the images, or is empty.
    """
    path = find_table(folder)
    assert path is not None  # who asks has looked
    table = read_table(path, required=("image",))
    # A test film is what may have no label.
    table = table.drop(columns=list(_NOT_READ), errors="ignore").assign(pneumothorax="", set="test")
    return [film for _, film in _films_of(path, table, rules)]


def _films_of(path: Path, table: pd.DataFrame, rules: Rules) -> list[tuple[bool, SourceFilm]]:
    """Whether each row is for testing, and its film."""
    table = _as_meant(table)
    notes = _unknown(table)
    faults = _faults(table)
    listing = _Listing(Path(os.path.realpath(path.parent)), path.name, rules, notes)
    rows = zip(table.index, table.to_dict("records"), strict=True)
    return [listing.add(number, row, faults.get(number)) for number, row in rows]


def find_table(folder: Path) -> Path | None:
    """The case table of a folder; None without one.

    Raises:
        Refusal: It holds two, and which one counts cannot be told.
    """
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) > 1:
        raise Refusal(
            "the folder has two case tables",
            found=" and ".join(shown(path) for path in found),
            do="move the one that does not count to another folder",
        )
    return found[0] if found else None


def read_table(path: Path, required: Sequence[str] = REQUIRED) -> pd.DataFrame:
    """The table's cells as stripped text; the index is the row number. Ragged rows have no cells at all.

    Args:
        path: The table.
        required: Columns that it must have.

    Raises:
        Refusal: It cannot be read, has unknown columns or lacks one, or is empty.
    """
    (_, header), *body = TABLES[path.name](path) or [(1, [])]
    header, width = [_column(name.strip()) for name in header], len(header)
    cells = [[c.strip() for c in row] if len(row) == width else [None] * width for _, row in body]
    # a spreadsheet may write columns without name and cells
    named = [place for place in range(width) if header[place] or any(row[place] for row in cells)]
    header = [header[place] for place in named]
    _check_header(path, header, required)
    if not body:
        raise Refusal(f"{shown(path)} lists no film", do="it needs one row a film below its column names")
    table = pd.DataFrame(cells, index=[number for number, _ in body], dtype=object)[named]
    return table.set_axis(header, axis="columns")


def _column(name: str) -> str:
    """A column's name as it is known, whatever its capitals and blanks: `Chest tube` is `chest_tube`."""
    known = re.sub(r"[ -]+", "_", name.casefold())
    return known if known in COLUMNS else name


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    """Refuse columns that are missing, unknown or there twice."""
    missing = [name for name in required if name not in header]
    if missing:  # the first row may be no header but a patient's: do not show it
        raise Refusal(
            f"{shown(path)} lacks a column",
            missing=", ".join(missing),
            found=f"a first row of {len(header)} cells",
            do="its first row must name the columns (in a CSV file separated by commas or semicolons): "
            + ", ".join(COLUMNS),
        )
    unknown = [name[:40] if name.isprintable() and name else "(no name)" for name in header]
    unknown = [name + _nearest(name) for name in unknown if name not in COLUMNS]
    twice = sorted({name for name in header if header.count(name) > 1} & set(COLUMNS))
    if unknown or twice:
        raise Refusal(
            f"{shown(path)} has columns that it cannot have",
            found=", ".join([f"unknown: {name}" for name in unknown] + [f"twice: {name}" for name in twice]),
            do="delete or rename them; known are " + ", ".join(COLUMNS),
        )


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.casefold(), COLUMNS, 1)
    return f" (write {near[0]})" if near else ""


def _check_split(name: str, table: pd.DataFrame, rules: Rules) -> None:
    """Refuse a split that is not given, given twice, or no date."""
    if "set" in table and rules.test_from:
        raise Refusal(
            "the split into training and test is given twice",
            found=f"the column set in {name}, and --test-from",
            do="leave out one of the two",
        )
    if "set" in table:
        return
    if not rules.test_from:
        raise Refusal(
            f"{name} does not say which films are for testing",
            do="add the column set (train or test); or, with the column date, name the first of the test "
            "set: bash common/prepare.sh --ntuh PATH --test-from YYYY-MM-DD",
        )
    if not _is_date(pd.Series([rules.test_from]))[0]:
        raise Refusal("--test-from is no date", do="write it as YYYY-MM-DD")
    if "date" not in table:
        raise Refusal("--test-from needs the date of each film", do=f"add the column date to {name}")


def _as_meant(table: pd.DataFrame) -> pd.DataFrame:
    """The cells in the table's own words: `Male` is M, `yes` and `1.0` are 1, `045Y` is 45."""
    table = table.copy()
    for column, words in _WORDS.items():
        if column in table:
            words = words | (_beside_h(table[column]) if column == "sex" else {})
            table[column] = [words.get(cell.casefold(), cell) if cell else cell for cell in table[column]]
    if "date" in table:
        table["date"] = [_year_first(cell) if cell else cell for cell in table["date"]]
    if "age" in table:
        table["age"] = [_in_years(cell) if cell else cell for cell in table["age"]]
    return table


def _beside_h(cells: pd.Series) -> dict[str, str]:
    """What M means where H is a sex, too: mujer; beside another word for women it cannot be told."""
    found = {cell.casefold() for cell in cells if cell}
    if not found & {"h", "hombre"} or found & {"homme", "femme", "masculin", "féminin"}:
        return {}  # French: M is masculin
    return {"m": _EITHER} if found & ({*_WOMEN.split()} - {"mujer"}) else {"m": "F"}


def _in_years(cell: str) -> str:
    """An age as a header has it (`045Y`, `010M`), or with a decimal comma (`67,5`), in years."""
    age = age_in_years(cell)
    return re.sub("^([0-9]+),([0-9]+)$", r"\1.\2", cell) if age is None else f"{age:g}"


def _year_first(cell: str) -> str:
    """A date as YYYY-MM-DD where its order is plain: year first, or day.month.year with dots."""
    found = _YEAR_FIRST.fullmatch(cell) or _DAY_FIRST.fullmatch(cell)
    return f"{found['year']}-{int(found['month']):02}-{int(found['day']):02}" if found else cell


def _unknown(table: pd.DataFrame) -> dict[int, tuple[str, ...]]:
    """Empty the optional cells that cannot be read; row number -> a note for each of them."""
    notes: dict[int, tuple[str, ...]] = {}
    for column in _OPTIONAL:
        if column not in table or _costs(column, table):
            continue
        holds, fault = _CELLS[column]
        cells = table[column].dropna()
        for number in cells.index[~holds(cells).astype(bool)]:
            found = _found(column, cells[number])
            notes[number] = (*notes.get(number, ()), f"{fault}, so it is unknown{found}")
            table.loc[number, column] = ""
    return notes


def readable(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells in the table's own words, empty where they cannot be read."""
    table = _as_meant(cells).fillna("")
    for column, (holds, _) in _CELLS.items():
        if column in table:
            table[column] = table[column].where(holds(table[column]).astype(bool), "")
    return table


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row.

    Attributes:
        row: Number of the row, as a spreadsheet counts.
        column: Column of the cell; "" where it is of no single one.
        text: What is wrong, with the value or its form.
        costs_the_film: Whether the film cannot be used; else the cell alone is unknown.
    """

    row: int
    column: str
    text: str
    costs_the_film: bool


def problems(cells: pd.DataFrame, films: Sequence[SourceFilm]) -> list[Problem]:
    """Everything that is wrong in a table, by row; of a film also what no single cell shows.

    Args:
        cells: The cells, as `read_table` reads them.
        films: The films of the table, as `source_films` lists them; none where its split is not told.
    """
    table = _as_meant(cells)
    found = [
        Problem(int(number), column, fault + _found(column, words[number]), _costs(column, table))
        for column, (holds, fault) in _CELLS.items()
        if column in table
        for words in [table[column].dropna()]
        for number in words.index[~holds(words).astype(bool)]
    ]
    told = {problem.row for problem in found if problem.costs_the_film}
    for film in films:
        number = int(re.findall("[0-9]+", film.origin)[-1])
        if film.fault and number not in told:
            column = next((name for name in COLUMNS if re.search(rf"\b{name}\b", film.fault)), "")
            found.append(Problem(number, column, film.fault, True))
        # The other notes are of single cells, which are told above.
        found += [Problem(number, "second_mask", note, False) for note in film.notes if _UNUSABLE in note]
    return sorted(found, key=lambda problem: problem.row)


def _costs(column: str, table: pd.DataFrame) -> bool:
    return column not in _OPTIONAL or (column == "date" and "set" not in table)


def _found(column: str, cell: str) -> str:
    """What a fault or note ends with, so that the cell is found."""
    shown_as = _shown(cell) if cell else "empty"
    if column == "sex" and cell == _EITHER:
        shown_as = "M, which beside H and F may be a man or a woman"
    elif column == "date" and re.fullmatch(_DATE, cell):
        shown_as = "a day that no month has"
    return f"{FOUND}{column} {shown_as}"


def _shown(cell: str) -> str:
    """A cell as it may be told: a short number as it is, else its form, since it may be a name."""
    if re.fullmatch(r"-?[0-9]{1,3}(\.[0-9]{1,2})?", cell):
        return f"'{cell}'"
    form = re.sub(r"[0-9]", "9", re.sub(r"[^\W\d_]", "a", cell))
    return f"of the form '{form[:20]}'" if form.isprintable() else "of unprintable letters"


def _faults(table: pd.DataFrame) -> dict[int, str]:
    """Row number -> its first fault, in the order of `COLUMNS`."""
    whole = table[table["image"].notna()]
    faults = dict.fromkeys(table.index.difference(whole.index), RAGGED)
    try:
        _SCHEMA.validate(whole, lazy=True)  # all rows: one fault must not hide the others
    except pa.errors.SchemaErrors as errors:
        found = errors.failure_cases
        order = {fault: place for place, (_, fault) in enumerate(_CELLS.values())}
        for number, fault, column in sorted(
            zip(found["index"], found["check"], found["column"], strict=True), key=lambda each: order[each[1]]
        ):
            faults.setdefault(int(number), fault + _found(column, whole.loc[number, column]))
    return faults


@dataclass
class _Listing:
    """Makes the rows into films, and knows which cases and files earlier rows have named.

    Attributes:
        folder: Folder of the table, without links.
        table: Name of the table.
        rules: Rules of inclusion; see `source_films`.
        notes: Row number -> what was odd about its cells.
    """

    folder: Path
    table: str
    rules: Rules
    notes: dict[int, tuple[str, ...]]
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def add(self, number: int, row: Mapping[Any, Any], fault: str | None) -> tuple[bool, SourceFilm]:
        """Whether the row is for testing, and its film."""
        origin = f"{self.table}, row {number}"
        if row["image"] is None:
            return False, SourceFilm(origin, None, origin, None, 0, fault=fault)
        image, mask = (self._file(row.get(name) or "") for name in ("image", "mask"))
        case = row.get("case") or "/".join(self._parts(row["image"])) or origin
        again = self._again(case, image, mask)
        is_test = self._is_test(row)
        # The first fault is the one that is told: a cell's own, before what follows from several.
        if image and image == mask:
            fault = fault or "mask is the image itself"
        if is_test is None:
            fault = fault or "date is empty, so that --test-from cannot place the film"
        if image is None:
            fault = fault or f"image is no path inside the folder{_found('image', row['image'])}"
        if mask is None and row.get("mask"):
            fault = fault or f"mask is no path inside the folder{_found('mask', row['mask'])}"
        if row["pneumothorax"] == "" and (mask or not is_test):
            fault = fault or UNLABELLED
        fault = fault or again
        if fault or image is None:
            return bool(is_test), SourceFilm(case, None, origin, None, 0, fault=fault)
        film = replace(
            self._film(row, case, origin, image, mask, bool(is_test)), notes=self.notes.get(number, ())
        )
        if is_test and row.get("second_mask"):
            film = self._with_second(film, row["second_mask"])
        return bool(is_test), film

    def _with_second(self, film: SourceFilm, cell: str) -> SourceFilm:
        """The film with the second annotator's mask, or with a note on why that cannot be used."""
        path = self._file(cell)
        real = _without_links(path or "")
        listed = [what for what in ("image", "mask", "second_mask") if (what, real) in self._seen]
        if path is None:
            why = "is no path inside the folder"
        elif listed:  # a mask beside itself would be of perfect agreement
            why = f"is listed as {listed[0]}, too"
        elif not os.path.isfile(path):
            why = "is no file"
        else:
            self._seen.add(("second_mask", real))
            return replace(film, second=MaskFile(path))
        return replace(film, notes=(*film.notes, f"{_UNUSABLE}{why}{_found('second_mask', cell)}"))

    def _file(self, text: str) -> Path | None:
        """The file of a path; None where it is empty or leads out of the folder."""
        parts = self._parts(text)
        if not parts:
            return None
        path = self.folder.joinpath(*parts)
        return path if Path(_without_links(path)).is_relative_to(self.folder) else None

    def _parts(self, text: str) -> tuple[str, ...]:
        r"""The parts of a path inside the folder, written with / or \; none where it leads out of it."""
        path = PureWindowsPath(text)  # takes both kinds of slash
        if ".." in path.parts:
            return ()
        if text.startswith("/"):
            place = Path(_without_links(os.path.dirname(text)), os.path.basename(text))
            return place.relative_to(self.folder).parts if place.is_relative_to(self.folder) else ()
        return () if path.drive or path.root else path.parts

    def _again(self, case: str, image: Path | None, mask: Path | None) -> str | None:
        """What the row lists that an earlier row has listed."""
        keys = {
            "case": case,
            "image": image and os.path.realpath(image),  # one file may have several names
            "mask": mask and os.path.realpath(mask),
        }
        again = [what for what, key in keys.items() if key and (what, key) in self._seen]
        self._seen.update((what, key) for what, key in keys.items() if key)
        return f"its {again[0]} is listed a second time" if again else None

    def _is_test(self, row: Mapping[Any, Any]) -> bool | None:
        """None where the row does not tell."""
        if "set" in row:
            return row["set"] == "test"
        if not re.fullmatch(_DATE, row["date"]):
            return None
        return row["date"] >= self.rules.test_from  # as texts: YYYY-MM-DD sorts like the days

    def _film(
        self, row: Mapping[Any, Any], case: str, origin: str, image: Path, mask: Path | None, is_test: bool
    ) -> SourceFilm:
        """A row without fault: its files, its label, the rules that it shows, and its facts."""
        fault = None
        if not os.path.isfile(image):  # unlike Path.is_file, also for impossible names
            fault = f"no image file{_found('image', row['image'])}"
        elif mask and not os.path.isfile(mask):
            fault = f"no mask file{_found('mask', row['mask'])}"
        excluded = None
        if row.get("chest_tube") == "1" and not self.rules.allow_chest_tube:
            excluded = TUBED
        elif not is_test and row["pneumothorax"] == "1" and mask is None:
            excluded = UNMASKED
        facts = {key: row[name] for name, key in _FACTS.items() if row.get(name)}
        facts |= {key: facts[key].upper() for key in ("view", "position") if key in facts}
        facts |= {"age": float(facts["age"])} if "age" in facts else {}
        return SourceFilm(
            identifier=case,
            path=None if fault else image,
            origin=origin,
            annotation=None if fault or mask is None else MaskFile(mask),
            report=int(row["pneumothorax"]) if row["pneumothorax"] else None,
            excluded=excluded,
            fault=fault,
            chest_tube=int(row["chest_tube"]) if row.get("chest_tube") else None,
            facts=facts,
        )


def _without_links(path: str | Path) -> str:
    """A path as the disk has it; `""` where none can be so called."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return ""
