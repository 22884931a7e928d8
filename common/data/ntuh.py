"""The hospital's export -> source films of training (2015-2019) and testing (2020).

Layout: `images/<PERSONID>.dcm` (or `.png`), `labels/<PERSONID>/label.json` for films with an annotated
lesion, and two CSV files (UTF-8 with a byte-order mark, CRLF, multi-line cells) whose file is the temporal
split. `PERSONID2` is one exam; the patient is the DICOM PatientID. The report text (EXAM) is never used.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from common.artefacts import shown
from common.data.cases import SourceFilm
from common.data.masks import Rectangles
from common.refusal import Refusal

EXAM, REPORT, CHEST_TUBE, INCLUDED = "PERSONID2", "氣胸", "胸管", "Training"
# set -> (file, its columns)
TABLES = {
    "ntuh_train": ("NTUH_1519.csv", [EXAM, "ACCESSNO2", REPORT, CHEST_TUBE, INCLUDED, "EXAM"]),
    "ntuh_test": ("NTUH_20.csv", [EXAM, "ACCESSNO2", REPORT, CHEST_TUBE, "EXAM"]),
}
MINIMUM_AGE = 20
UNMASKED = "positive by report, no annotated lesion"


def source_films(folder: Path, name: str) -> list[SourceFilm]:
    """List the films of one set of the export.

    Args:
        folder: The export.
        name: `ntuh_train` or `ntuh_test`.

    Raises:
        Refusal: The folder is not laid out as the export.
    """
    file, columns = TABLES[name]
    table = _read_table(folder, file, columns)
    films, seen = [], set()
    for number, row in enumerate(table.to_dict("records"), start=1):
        film = _film(folder, row, f"{file}, record {number}", training=name == "ntuh_train")
        if film.identifier in seen:
            film = SourceFilm(
                film.identifier, None, film.origin, None, 0, fault="its exam is listed a second time"
            )
        seen.add(film.identifier)
        films.append(film)
    return films


def _read_table(folder: Path, file: str, columns: list[str]) -> pd.DataFrame:
    path = folder / file
    if not path.is_file() or not (folder / "images").is_dir():
        raise Refusal(
            "the NTUH export is not laid out as expected",
            missing=shown(path if not path.is_file() else folder / "images"),
            do="the folder must hold images/, labels/, NTUH_1519.csv and NTUH_20.csv",
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise Refusal(f"{shown(path)} cannot be read", found=type(error).__name__) from None
    if list(table.columns) != columns:
        raise Refusal(f"{shown(path)} has other columns", do=f"it needs exactly {','.join(columns)}")
    return table


def _film(folder: Path, row: dict[str, str], origin: str, training: bool) -> SourceFilm:
    """One row of the table: its files, its label, and the rules and faults that the row shows."""
    exam, report, tube = (row[key].strip() for key in (EXAM, REPORT, CHEST_TUBE))
    fault = None
    if not re.fullmatch(r"\w[\w.-]*", exam):
        fault = f"{EXAM} is no plain identifier"  # it names files: nothing may lead out of the folder
    elif report not in ("0", "1"):
        fault = f"{REPORT} is neither 0 nor 1"
    elif tube not in ("", "0", "1"):
        fault = f"{CHEST_TUBE} is neither 1, 0 nor empty"
    if fault:
        return SourceFilm(exam, None, origin, None, 0, fault=fault)
    image = next(
        (p for p in (folder / "images" / f"{exam}{end}" for end in (".dcm", ".png")) if p.is_file()), None
    )
    label = folder / "labels" / exam / "label.json"
    annotation = Rectangles(label) if label.is_file() else None
    excluded = None
    if training and row[INCLUDED].strip() != "1":
        excluded = f"{INCLUDED} flag is not 1"
    elif tube == "1":
        excluded = "chest tube"
    elif training and report == "1" and annotation is None:
        excluded = UNMASKED
    return SourceFilm(
        identifier=exam,
        path=image,
        origin=origin,
        annotation=annotation,
        report=int(report),
        excluded=excluded,
        fault=None if image else "no image file in images/",
    )
