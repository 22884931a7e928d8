"""What is in a hospital's case table, and what is wrong in it: told before any film is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.command_line import Rules
from common.paths import shown
from common.refusal import Refusal
from common.sources.case_table import (
    COLUMNS,
    TABLES,
    Problem,
    find_table,
    problems,
    read_table,
    readable,
    source_films,
)
from common.sources.identities import canonical, why_unknown
from common.sources.source_film import FOUND, SourceFilm

_MOST_OF_A_KIND = 10  # problems that are printed; a column in other words has as many as the table has rows
_CODES = ("pneumothorax", "set", "sex", "chest_tube")  # what else stands in a cell may be a name
_EXAMPLES = """\
films/0001.dcm,1,film-1,masks/0001.png,train,2019-03-28,patient-1,study-1,67,F,AP,SUPINE,Example,0,
films/0002.dcm,0,film-2,,train,2019-04-02,patient-2,,,,,,,,
films/0003.dcm,1,film-3,masks/0003.png,test,2020-11-02,patient-3,,45,M,AP,,,,
films/0004.dcm,,film-4,,test,,,,,,,,,,
"""

Shared = dict[str, list[SourceFilm]]  # the films of a patient who is in several sets, by set


@dataclass(frozen=True)
class TableCheck:
    """What was found in a case table.

    Attributes:
        table: Name of the table's file.
        columns: Column -> its filled cells, and how often each value stands in it where it holds codes.
        films: The films of each set, by `train` and `test`.
        problems: What is wrong, by row.
        split: Why the films cannot be divided into training and test; None: they can.
    """

    table: str
    rows: int
    columns: dict[str, tuple[int, dict[str, int]]]
    films: dict[str, list[SourceFilm]]
    problems: list[Problem]
    split: Refusal | None

    @classmethod
    def of(cls, place: Path, rules: Rules) -> TableCheck:
        """Look a table through.

        Args:
            place: The table, or its folder.
            rules: Rules of inclusion.

        Raises:
            Refusal: There is no table, or its columns cannot be told.
        """
        if not place.exists():
            raise Refusal("there is no such table or folder", missing=shown(place))
        folder = place if place.is_dir() else place.parent
        path = find_table(folder) if place.is_dir() or place.name in TABLES else None
        if path is None:
            raise Refusal(
                "there is no case table",
                found=None if place.is_dir() else shown(place),
                missing=shown(folder / next(iter(TABLES))),
                do=f"call it {' or '.join(TABLES)}; --write-template FILE writes an example",
            )
        cells = read_table(path)
        columns, known = {}, readable(cells)
        for name in cells:
            codes = (cell for cell in known[name] if cell) if name in _CODES else ()
            columns[str(name)] = (int((cells[name].fillna("") != "").sum()), dict(Counter(codes)))
        films: dict[str, list[SourceFilm]] = {}
        split = None
        try:
            films = {part: source_films(folder, f"ntuh_{part}", rules) for part in ("train", "test")}
        except Refusal as refusal:  # told with the rest
            split = refusal
        found = problems(cells, [film for each in films.values() for film in each])
        return cls(path.name, len(cells), columns, films, found, split)

    def lines(self) -> list[str]:
        """The check for people."""
        width = max(map(len, self.columns))
        lines = [f"{self.table}: {self.rows} rows", "columns that are recognised, and their filled cells:"]
        for name, (filled, values) in self.columns.items():
            codes = ", ".join(f"{value}: {count}" for value, count in sorted(values.items()))
            lines.append(f"  {name:<{width}}  {filled:>6}  {codes}".rstrip())
        absent = [name for name in COLUMNS if name not in self.columns]
        if absent:
            lines.append(f"columns that it could have, too: {', '.join(absent)}")
        for part, films in self.films.items():
            lines.append(_films(part, films))
        lines += self._patients()
        if self.split:
            lines.append(f"problem: {self.split}")
        lines += self._told()
        lost = len({problem.row for problem in self.problems if problem.costs_the_film})
        if self.problems:
            told = f"{lost} of {self.rows} films cannot be used as the table is now"
            several = "s" * (len(self.problems) != 1)
            lines.append(f"{len(self.problems)} problem{several}; {told}")
        elif self.is_sound:
            lines.append(
                "no problem was found; the films themselves are read by bash common/prepare.sh --ntuh PATH"
            )
        return lines

    def _patients(self) -> list[str]:
        """How many patients each set has, and how many are in both; nothing where none is named."""
        sets = {part: _patients_of(films) for part, films in self.films.items()}
        if not any(sets.values()):
            return []
        lines = [
            "patients that it names: "
            + ", ".join(f"{len(patients)} in {part}" for part, patients in sets.items())
        ]
        if self.in_both:
            lines.append(
                f"problem: {len(self.in_both)} of them in both sets, which is refused: "
                "leave out their films of one set, or put them into the other"
            )
            lines += [f"  one of them: {where}" for where in self.in_both[:_MOST_OF_A_KIND]]
        return lines

    @property
    def in_both(self) -> list[str]:
        """Where the films of each patient are listed who has some of training and some of testing."""
        return [where(each) for each in shared_patients(self.films)]

    def _told(self) -> list[str]:
        """The problems by row, the first few of each kind; of the rest how many there are."""
        kinds: Counter[str] = Counter()
        told = []
        for problem in self.problems:
            kind = problem.text.partition(FOUND)[0]
            kinds[kind] += 1
            if kinds[kind] <= _MOST_OF_A_KIND:
                told.append(_in_words(problem))
        more = {kind: count - _MOST_OF_A_KIND for kind, count in kinds.items()}
        return told + [f"and {count} more rows: {kind}" for kind, count in more.items() if count > 0]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.problems or self.split or self.in_both)


def _patients_of(films: list[SourceFilm]) -> dict[str, list[SourceFilm]]:
    """The patients that the table names for films that are used -> these films."""
    found: dict[str, list[SourceFilm]] = {}
    for film in films:
        patient = str(film.facts.get("patient_id", ""))
        if patient and not why_unknown(patient) and not (film.fault or film.excluded):
            found.setdefault(canonical(patient), []).append(film)
    return found


def shared_patients(sets: Mapping[str, list[SourceFilm]]) -> list[Shared]:
    """The films of each patient who is in all of several sets, by the source's table.

    Args:
        sets: Films that the source lists, by the name of their set; of one set there is nobody.
    """
    if len(sets) < 2:
        return []
    named = {part: _patients_of(films) for part, films in sets.items()}
    return [
        {part: patients[patient] for part, patients in named.items()}
        for patient in next(iter(named.values()))
        if all(patient in patients for patients in named.values())
    ]


def where(shared: Shared) -> str:
    """Where a patient's films are listed: `cases.csv, row 3 (train); cases.csv, row 8 (test)`."""
    return "; ".join(f"{film.origin} ({part})" for part, films in shared.items() for film in films)


def _films(part: str, films: list[SourceFilm]) -> str:
    used = [film for film in films if not (film.fault or film.excluded)]
    labels = Counter({1: "positive", 0: "negative", None: "unlabelled"}[film.report] for film in used)
    excluded = Counter(film.excluded for film in films if film.excluded and not film.fault)
    words = [f"{count} {label}" for label, count in sorted(labels.items())]
    words += [f"{sum(film.annotation is not None for film in used)} with a mask"]
    if second := sum(film.second is not None for film in used):
        words.append(f"{second} with a second one")
    words += [f"{count} excluded: {reason}" for reason, count in excluded.items()]
    return f"{part}: {len(used)} of {len(films)} films ({', '.join(words)})"


def _in_words(problem: Problem) -> str:
    loss = "" if problem.costs_the_film else " (the film is used all the same)"
    accepted = f"; accepted: {COLUMNS[problem.column]}" if problem.column else ""
    return f"row {problem.row}: {problem.text}{loss}{accepted}"


def write_template(path: Path) -> None:
    """Write an example of a case table.

    Raises:
        Refusal: There is a file of that name, or it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:  # never into a table that is there
            file.write(",".join(COLUMNS) + "\n" + _EXAMPLES)
    except OSError as error:
        raise Refusal(f"cannot write {shown(path)}", found=error.strerror, do="name a new file") from None
