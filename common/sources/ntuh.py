"""The hospital's export -> source films of training (2015-2019) and testing (2020).

Layout: `images/<PERSONID>.dcm` (or a picture: png, jpg, jpeg, tif, tiff), `labels/<PERSONID>/label.json` for
films with an annotated lesion, and two CSV files (UTF-8 with a byte-order mark, CRLF, multi-line cells) whose
file is the temporal split. `PERSONID2` is one exam; the patient is the DICOM PatientID. The report text
(EXAM) is never used.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.command_line import Rules
from common.films.annotations import Rectangles
from common.paths import shown
from common.refusal import Refusal
from common.sources.csv_rows import RAGGED, read_rows
from common.sources.source_film import SourceFilm

EXAM, REPORT, CHEST_TUBE, INCLUDED = "PERSONID2", "氣胸", "胸管", "Training"
# set -> (file, its columns)
TABLES = {
    "ntuh_train": ("NTUH_1519.csv", [EXAM, "ACCESSNO2", REPORT, CHEST_TUBE, INCLUDED, "EXAM"]),
    "ntuh_test": ("NTUH_20.csv", [EXAM, "ACCESSNO2", REPORT, CHEST_TUBE, "EXAM"]),
}
IMAGE_ENDS = (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
UNMASKED = "positive by report, no annotated lesion"
TUBED = "chest tube"
UNLISTED = "image file that no table lists"


def source_films(folder: Path, name: str, rules: Rules) -> list[SourceFilm]:
    """List the films of one set of the export.

    An exam that both tables list is in both sets: the check for leakage finds it.

    Args:
        folder: Folder of the hospital's export.
        name: `ntuh_train` or `ntuh_test`. `ntuh_train` ends with the image files that neither table lists.
        rules: Rules of inclusion; `allow_chest_tube` is applied here.

    Raises:
        Refusal: The folder is not laid out as the export, or a table cannot be read.
    """
    file, columns = TABLES[name]
    images = _image_files(folder)
    films, seen = [], set()
    for number, cells in enumerate(_read_table(folder, file, columns), start=1):
        origin = f"{file}, record {number}"
        if len(cells) != len(columns):
            films.append(SourceFilm(cells[0].strip(), None, origin, None, 0, fault=RAGGED))
            continue
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        film = _film(folder, images, row, origin, training=name == "ntuh_train", rules=rules)
        if film.identifier in seen and film.identifier:
            fault = "its exam is listed a second time"
            film = SourceFilm(film.identifier, None, origin, None, 0, fault=fault)
        seen.add(film.identifier)
        films.append(film)
    return films + (_unlisted(folder, images) if name == "ntuh_train" else [])


def _read_table(folder: Path, file: str, columns: list[str]) -> list[list[str]]:
    """The rows of a table below its header, as cells."""
    path = folder / file
    if not path.is_file() or not (folder / "images").is_dir():
        raise Refusal(
            "the NTUH export is not laid out as expected",
            missing=shown(path if not path.is_file() else folder / "images"),
            do="the folder must hold images/, labels/, NTUH_1519.csv and NTUH_20.csv",
        )
    header, *rows = [cells for _, cells in read_rows(path)] or [[]]
    if [name.strip() for name in header] != columns:
        raise Refusal(f"{shown(path)} has other columns", do=f"it needs exactly {','.join(columns)}")
    return rows


def _image_files(folder: Path) -> dict[str, list[Path]]:
    """Exam -> its image files. Hidden files (a Mac writes some beside every file) are none."""
    files: dict[str, list[Path]] = {}
    if (folder / "images").is_dir():
        for path in sorted((folder / "images").iterdir()):
            if path.suffix.lower() in IMAGE_ENDS and not path.name.startswith(".") and path.is_file():
                files.setdefault(path.stem, []).append(path)
    return files


def _unlisted(folder: Path, images: dict[str, list[Path]]) -> list[SourceFilm]:
    """The image files whose exam is in neither table."""
    listed = {cells[0].strip() for table in TABLES.values() for cells in _read_table(folder, *table)}
    paths = [path for exam, paths in images.items() if exam not in listed for path in paths]
    return [
        SourceFilm(f"images/{path.name}", path, f"images/ (unlisted file {n})", None, 0, excluded=UNLISTED)
        for n, path in enumerate(paths, start=1)
    ]


def _fault(row: dict[str, str]) -> str | None:
    """What is wrong with a row's cells."""
    if not re.fullmatch(r"\w[\w.-]{0,127}", row[EXAM]):
        return f"{EXAM} is no plain identifier"  # it names files: nothing may lead out of the folder
    if row[REPORT] not in ("0", "1"):
        return f"{REPORT} is neither 0 nor 1"
    if row[CHEST_TUBE] not in ("", "0", "1"):
        return f"{CHEST_TUBE} is neither 1, 0 nor empty"
    return None


def _film(
    folder: Path,
    images: dict[str, list[Path]],
    row: dict[str, str],
    origin: str,
    training: bool,
    rules: Rules,
) -> SourceFilm:
    """One row of the table: its files, its label, and the rules and faults that the row shows."""
    exam, fault = row[EXAM], _fault(row)
    if fault:
        return SourceFilm(exam, None, origin, None, 0, fault=fault)
    paths = images.get(exam, [])
    # beside its DICOM file, which knows the patient, an exam's pictures are copies
    paths = [path for path in paths if path.suffix.lower() == ".dcm"] or paths
    label = folder / "labels" / exam / "label.json"
    annotation = Rectangles(label) if label.is_file() else None
    tube = int(row[CHEST_TUBE] == "1")
    excluded = None
    if training and row[INCLUDED] != "1":
        excluded = f"{INCLUDED} flag is not 1"
    elif tube and not rules.allow_chest_tube:
        excluded = TUBED
    elif training and row[REPORT] == "1" and annotation is None:
        excluded = UNMASKED
    if len(paths) != 1:
        fault = "several image files in images/" if paths else "no image file in images/"
    return SourceFilm(
        identifier=exam,
        path=None if fault else paths[0],
        origin=origin,
        annotation=annotation,
        report=int(row[REPORT]),
        excluded=excluded,
        fault=fault,
        chest_tube=tube,
    )
