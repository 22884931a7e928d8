"""The folder of a peer, a system of others: what it says of the test films, written and read.

    FOLDER/cases.csv       a row a film: case (its pseudonym, as in the tested cases), probability (0 to 1),
                           and perhaps decision (1: pneumothorax; 0: none)
    FOLDER/maps/CASE.png   perhaps, and then of every film: the map, grey, of 8 or 16 bits, 0 to the largest
                           value for 0 to 1, the whole film at any size, as viewers show it

Every test film with a label must be in it once; those without one may be. Maps are measured by the code that
measures those of our systems, at their working size and at the full size of the prepared film.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from common.files import CASE, whole_file, write_csv
from common.inference.measured import measured_map
from common.inference.result_columns import COLUMNS, Column
from common.inference.result_files import Result
from common.inference.two_stage_rule import OperatingPoint
from common.missing import refuse_missing_sets
from common.paths import prepared_folder, shown
from common.preparation.film_store import PreparedSet
from common.progress import progress
from common.refusal import Refusal
from common.removal import Written, refuse_foreign, remove_written
from common.sources.csv_rows import RAGGED, read_rows
from common.statistics.peers import Peer
from common.statistics.tested_films import Cases

TABLE, MAPS = "cases.csv", "maps"
REQUIRED, DECISION = ("case", "probability"), "decision"
WRITTEN = Written((f"{MAPS}/{CASE}.png", TABLE), {TABLE: ",".join(REQUIRED)})
_SAID = ("case", "probability", "stage_1", "two_stage")  # columns that the table tells
_LARGEST = {"L": 255, "I;16": 65535}  # by Pillow's mode of the picture
_DARK = 0.005  # a 1 of 8 bits is below
_MOST = 3  # films that a refusal names
_FORMAT = "docs/statistics.md says what the folder of a peer holds"


@dataclass(frozen=True)
class Said:
    """What a peer says of a film: its probability, 0-1, and its decision; None: it has none."""

    probability: float
    decision: bool | None


# --- writing ---------------------------------------------------------------------------------------


def write_peer(folder: Path, films: Mapping[str, float], maps: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write the folder of a peer that has no decision of its own.

    Args:
        folder: Folder to write into; what we wrote there before is replaced.
        films: Probability of each film, 0-1, by case.
        maps: Case and map of each film, (height, width) float32, 0-1.

    Raises:
        Refusal: Somebody else's files are in the way.
    """
    refuse_foreign(folder, WRITTEN)
    remove_written(folder, WRITTEN)
    (folder / MAPS).mkdir(parents=True, exist_ok=True)
    rows = [{"case": case, "probability": probability} for case, probability in films.items()]
    write_csv(folder / TABLE, REQUIRED, rows)  # first: it marks the folder as ours
    for case, found in maps:
        pixels = np.rint(np.clip(found, 0, 1) * 65535).astype(np.uint16)
        with whole_file(folder / MAPS / f"{case}.png") as temporary:
            temporary.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


# --- reading ---------------------------------------------------------------------------------------


def read_peer(name: str, folder: Path, result: Result) -> Peer:
    """Read what a peer says of the films of a result, and measure its maps.

    Args:
        name: Name of the peer in the tables.
        folder: Its folder.
        result: Result of a system of ours on the test films.

    Raises:
        Refusal: The folder lacks its table or a film, holds an unknown film or one twice, or a value or map
            that cannot be; or the prepared films, which maps are measured with, are not those of the result.
    """
    said = _read_table(folder / TABLE, result)
    films = [said[case] for case in result.cases.case.tolist()]
    decides = films[0].decision is not None
    called = np.array([bool(film.decision) for film in films])
    probability = np.array([film.probability for film in films])
    cases = replace(result.cases, probability=probability, stage_1=called, two_stage=called)
    measured = _measured(name, folder / MAPS, result) if (folder / MAPS).exists() else []
    return Peer(name, _with_maps(cases, measured), decides, bool(measured))


def _read_table(path: Path, result: Result) -> dict[str, Said]:
    """What is said of each film."""
    (_, header), *body = read_rows(path) or [(1, [])]
    header = [name.strip() for name in header]
    if sorted(header) not in (sorted(REQUIRED), sorted((*REQUIRED, DECISION))):
        raise Refusal(
            f"{shown(path)} is no table of a peer",
            found=f"a first row of {len(header)} cells that does not name the columns "
            f"{' and '.join(REQUIRED)}, perhaps {DECISION}, and no others",
            do=_FORMAT,
        )
    known = {*result.cases.case.tolist(), *result.unlabelled}
    said: dict[str, Said] = {}
    for number, cells in body:
        try:
            case, film = _parsed(header, [cell.strip() for cell in cells])
            if case not in known:  # not repeated: it may be a hospital's own identifier
                raise ValueError("its case is none of the test films; use those of result_<system>/cases.csv")
            if case in said:
                raise ValueError(f"case {case} was in an earlier row, too")
        except ValueError as error:
            raise Refusal(f"{shown(path)} holds a wrong row", found=f"row {number}: {error}") from None
        said[case] = film
    _refuse_missing(path, [case for case in result.cases.case.tolist() if case not in said], "row")
    return said


def _parsed(header: list[str], cells: list[str]) -> tuple[str, Said]:
    """A row of the table: case, and what is said of it.

    Raises:
        ValueError: What is wrong with the row.
    """
    if len(cells) != len(header):
        raise ValueError(RAGGED)
    row = dict(zip(header, cells, strict=True))
    try:
        probability = float(row["probability"])
    except ValueError:
        raise ValueError("probability is no number") from None
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability:g}, not a number from 0 to 1")
    if row.get(DECISION, "0") not in ("0", "1"):
        raise ValueError(f"decision is {row[DECISION][:20]!r}, not 0 or 1")
    return row["case"], Said(probability, row[DECISION] == "1" if DECISION in row else None)


def _refuse_missing(path: Path, missing: list[str], what: str) -> None:
    if missing:
        more = f" and {len(missing) - _MOST} more" if len(missing) > _MOST else ""
        raise Refusal(
            f"{shown(path)} lacks test films",
            missing=f"a {what} of case {', '.join(missing[:_MOST])}{more}",
            do=f"every film with a label must be there; {_FORMAT}",
        )


# --- maps ------------------------------------------------------------------------------------------


def _measured(name: str, folder: Path, result: Result) -> list[dict[str, Any]]:
    """What each film's map tells, by the names in `COLUMNS`."""
    cases = result.cases.case.tolist()
    there = {path.stem for path in folder.iterdir() if path.suffix == ".png"}
    _refuse_missing(folder, [case for case in cases if case not in there], "map")
    unknown = there - {*cases, *result.unlabelled}
    if unknown:
        raise Refusal(
            f"{shown(folder)} holds maps of films that are no test films", found=f"{len(unknown)} of them"
        )
    refuse_missing_sets("ntuh", "measuring a peer's maps")
    prepared = PreparedSet(prepared_folder("ntuh_test"))
    if prepared.content != result.meta["films"]:
        raise Refusal(
            "a peer's maps are measured with the prepared test films, and these are others than were tested",
            do="test the systems on them first",
        )
    row_of = {case: row for row, case in enumerate(prepared.cases["case"].astype(str))}
    # As our systems' maps: at their working size; a map of 0.5 is the edge of what a peer outlines.
    point = OperatingPoint(1.0, 1, int(result.meta["image_size"]))
    measured, brightest = [], 0.0
    with progress(len(cases), f"maps of {name}", unit="film") as bar:
        for case in cases:
            found = _read_map(folder / f"{case}.png")
            brightest = max(brightest, float(found.max()))
            film = measured_map(prepared, row_of[case], found, point)
            measured.append(film | {"area_fraction": film["area_pixels"] / point.image_size**2})
            bar.update()
    if 0 < brightest < _DARK:
        raise Refusal(
            f"{shown(folder)} holds labels, not maps",
            found=f"no pixel above {brightest:.2g} in any of them",
            do="write 1 as the largest value, 255 or 65535",
        )
    return measured


def _read_map(path: Path) -> np.ndarray:
    """A map, (height, width) float32, 0-1."""
    try:
        with Image.open(BytesIO(path.read_bytes()), formats=("PNG",)) as picture:
            largest = _LARGEST.get(picture.mode)
            if largest is None:
                raise Refusal(
                    f"{shown(path)} is no map", found=f"pixels of the kind {picture.mode}", do=_FORMAT
                )
            return np.asarray(picture).astype(np.float32) / np.float32(largest)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        raise Refusal(
            f"{shown(path)} is no map", found="no PNG, or one that is cut short or damaged", do=_FORMAT
        ) from None


def _with_maps(cases: Cases, measured: Sequence[Mapping[str, Any]]) -> Cases:
    """The films with what the peer's maps tell, all unknown without maps; nothing of our system is left."""
    found = {
        name: _column(column, [film.get(name) for film in measured] or [None] * len(cases))
        for name, column in COLUMNS.items()
        if not (column.of_film or name in _SAID)
    }
    of_film = {
        name: each for name, each in cases.further.items() if name in COLUMNS and COLUMNS[name].of_film
    }
    own = {each.name for each in fields(Cases)} & found.keys()
    return replace(
        cases,
        **{name: found[name] for name in own},
        further=of_film | {name: each for name, each in found.items() if name not in own},
    )


def _column(column: Column, values: Sequence[Any]) -> np.ndarray:
    """As `result_files` reads it: texts, or float64 with NaN for what is unknown."""
    if column.kind in ("name", "text"):
        return np.array(["" if value is None else value for value in values])
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
