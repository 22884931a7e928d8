"""The films that were trained on and those that were tested on, side by side; each patient counts once.

Films, views, devices, lesion areas and chest tubes are of films. Patients, ages and sexes are of patients: a
patient with a film with a mask is one with a mask, and has the age of the first film.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import read_json, write_csv
from common.inference.result_files import Result
from common.paths import prepared_folder, set_is_prepared, shown, workspace
from common.refusal import Refusal
from common.stages import PREPARE_COMMAND, TESTING_FOLDER
from common.statistics.bootstrap import patient_numbers
from common.statistics.tested_films import Cases

NAME = "cohort.csv"
COLUMNS = (
    *("set", "group", "characteristic", "counted", "n", "share"),
    *("median", "quartile_1", "quartile_3"),
)
GROUPS = {"all": "All", "with_mask": "With a mask", "without_mask": "Without"}
_AGE, _AREA = "age, years", "lesion area, % of the film"


class Films(NamedTuple):
    """Facts of n films: arrays of length n, as in `Cases`."""

    patient: np.ndarray
    has_mask: np.ndarray
    report: np.ndarray
    mask_area_fraction: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    view: np.ndarray
    manufacturer: np.ndarray
    chest_tube: np.ndarray


@dataclass(frozen=True)
class Entry:
    """A characteristic of a group of films.

    Attributes:
        characteristic: Name, such as `sex F`.
        counted: `films` or `patients`.
        n: How many there are; of a number, how many have one that is known.
        share: Share of all of the group, 0-1; None of a number, and of the group's own size.
        quartiles: First, second and third; None where nothing is known, and of a count.
    """

    characteristic: str
    counted: str
    n: int
    share: float | None = None
    quartiles: tuple[float, float, float] | None = None

    @property
    def text(self) -> str:
        """As the page has it: `60 (51 to 70), n 85`, `12 (34%)` or `120`."""
        if self.share is not None:
            return f"{self.n:,} ({self.share:.0%})"
        if self.characteristic not in (_AGE, _AREA):
            return f"{self.n:,}"
        if self.quartiles is None:
            return "–"
        digits = 0 if self.characteristic == _AGE else 1
        low, middle, high = (f"{value:.{digits}f}" for value in self.quartiles)
        return f"{middle} ({low} to {high}), n {self.n:,}"


Cohort = Mapping[tuple[str, str], Sequence[Entry]]  # by set (`training`, `test`) and group


def cohort_entries(results: Mapping[str, Result]) -> Cohort:
    """What is told of each set and group; nothing of the training films where they are not known here.

    Args:
        results: Results by system, of the same films.

    Raises:
        Refusal: The prepared training films have a malformed manifest or table.
    """
    cases = next(iter(results.values())).cases
    films = {"training": _training_films(results), "test": _of_cases(cases)}
    known = {name: each for name, each in films.items() if each is not None}
    # The same lines in both, also where one has no film of a kind.
    kinds: dict[str, list[str]] = {
        column: sorted({value for each in known.values() for value in getattr(each, column).tolist()})
        for column in ("sex", "view", "manufacturer")
    }
    tubes = any(np.isfinite(each.chest_tube).any() for each in known.values())
    return {
        (name, group): list(_entries(each, group, kinds, tubes))
        for name, each in known.items()
        for group in GROUPS
    }


def write_cohort(cohort: Cohort) -> Path:
    """Write `cohort.csv` beside metrics.csv, a row an entry."""
    path = workspace() / TESTING_FOLDER / NAME
    rows = [
        {
            "set": name,
            "group": group,
            "characteristic": entry.characteristic,
            "counted": entry.counted,
            "n": entry.n,
            "share": entry.share,
        }
        | dict(zip(("quartile_1", "median", "quartile_3"), entry.quartiles or [None] * 3, strict=True))
        for (name, group), entries in cohort.items()
        for entry in entries
    ]
    write_csv(path, COLUMNS, rows)
    return path


def cohort_lines(cohort: Cohort) -> list[tuple[str, list[str]]]:
    """The table of the page: a title a line, and a text for each set and group, as `cohort` has them."""
    return [
        (_title(entries[0]), [entry.text for entry in entries])
        for entries in zip(*cohort.values(), strict=True)
    ]


def _title(entry: Entry) -> str:
    title = f"{entry.characteristic[0].upper()}{entry.characteristic[1:]}"
    number = entry.characteristic in (_AGE, _AREA)
    counted = "" if entry.characteristic == entry.counted else f" ({entry.counted})"
    return f"{title}: median (quartiles){counted}" if number else title + counted


# --- the films -------------------------------------------------------------------------------------


def _of_cases(cases: Cases) -> Films:
    return Films(*(getattr(cases, name) for name in Films._fields))


def _training_films(results: Mapping[str, Result]) -> Films | None:
    """The prepared training films, where they are here and are those that every system was trained on."""
    folder = prepared_folder("ntuh_train")
    if not set_is_prepared("ntuh_train"):
        return None
    content = read_json(folder / "manifest.json", PREPARE_COMMAND).get("content")
    if any(result.meta["weights"].get("content") != content for result in results.values()):
        return None
    path = folder / "cases.csv"
    try:
        return _read(path)
    except (OSError, ValueError, KeyError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        do = "prepare the films again, or move the folder away: the page then tells of the test films only"
        raise Refusal(f"{shown(path)} is no table of prepared cases", found=found, do=do) from None


def _read(path: Path) -> Films:
    """The films of a table of prepared cases.

    Raises:
        OSError, ValueError, KeyError: It cannot be read, or holds a wrong value, or lacks a column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))  # pandas would take longer to load than all of this

    def texts(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=str)

    def numbers(name: str) -> np.ndarray:
        return np.array([float(row[name] or "nan") for row in rows])

    return Films(
        patient=texts("patient"),
        has_mask=numbers("has_mask") == 1,
        report=numbers("report") == 1,
        mask_area_fraction=numbers("mask_area_fraction"),
        age=numbers("age"),
        sex=texts("sex"),
        view=texts("view"),
        manufacturer=texts("manufacturer"),
        chest_tube=numbers("chest_tube"),
    )


# --- what is told of them --------------------------------------------------------------------------


def _entries(films: Films, group: str, kinds: Mapping[str, Sequence[str]], tubes: bool) -> Iterator[Entry]:
    """The entries of a group, in the order of the table."""
    number = patient_numbers(films.patient)
    patients = int(number.max()) + 1 if len(number) else 0
    masked = np.bincount(number[films.has_mask], minlength=patients) > 0
    own = {"all": films.has_mask | True, "with_mask": films.has_mask, "without_mask": ~films.has_mask}[group]
    of_group = {"all": masked | True, "with_mask": masked, "without_mask": ~masked}[group]
    yield Entry("films", "films", int(own.sum()))
    yield Entry("patients", "patients", int(of_group.sum()))
    yield _share("positive by mask", "films", films.has_mask[own])
    yield _share("positive by report", "films", films.report[own])
    yield _number(_AGE, "patients", _first_age(films.age, number, patients)[of_group])
    sexes = _one_sex(films.sex, number, patients)[of_group]
    for sex in sorted({*kinds["sex"], ""}):
        yield _share(f"sex {sex or 'unknown'}", "patients", sexes == sex)
    for column, title in (("view", "view"), ("manufacturer", "device")):
        for value in kinds[column]:
            yield _share(f"{title} {value or 'unknown'}", "films", getattr(films, column)[own] == value)
    yield _number(_AREA, "films", 100 * films.mask_area_fraction[own & films.has_mask])
    if tubes:
        tube = films.chest_tube[own]
        yield _share("chest tube", "films", tube == 1)
        yield _share("chest tube unknown", "films", np.isnan(tube))


def _first_age(age: np.ndarray, number: np.ndarray, patients: int) -> np.ndarray:
    """The youngest known age of each patient; NaN where none is known."""
    youngest = np.full(patients, np.nan)
    np.fmin.at(youngest, number, age)
    return youngest


def _one_sex(sex: np.ndarray, number: np.ndarray, patients: int) -> np.ndarray:
    """The sex of each patient; empty where no film or more than one says it."""
    found: list[set[str]] = [set() for _ in range(patients)]
    for patient, value in zip(number.tolist(), sex.tolist(), strict=True):
        found[patient].update({value} - {""})
    return np.array([each.pop() if len(each) == 1 else "" for each in found], dtype=str)


def _share(name: str, counted: str, members: np.ndarray) -> Entry:
    return Entry(name, counted, int(members.sum()), float(members.mean()) if len(members) else 0.0)


def _number(name: str, counted: str, values: np.ndarray) -> Entry:
    known = values[np.isfinite(values)]
    if not len(known):
        return Entry(name, counted, 0)
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
    return Entry(name, counted, len(known), quartiles=(low, middle, high))
