"""The SIIM-ACR download -> source films.

Layout: `dicom-images-train/<study>/<series>/<ImageId>.dcm` and `train-rle.csv` with the columns `ImageId`
and ` EncodedPixels` (the leading space is the download's own).
"""

from __future__ import annotations

from pathlib import Path

from common.films.annotations import RunLengths
from common.paths import shown
from common.refusal import Refusal
from common.sources.csv_rows import read_rows
from common.sources.source_film import SourceFilm

IMAGES = "dicom-images-train"
LABELS = "train-rle.csv"
UNLISTED = f"image file without a row in {LABELS}"


def source_films(folder: Path) -> list[SourceFilm]:
    """List the films of a SIIM-ACR download, last the image files that the label file does not name.

    Raises:
        Refusal: The folder is not laid out as the download, or its label file cannot be read.
    """
    for name in (IMAGES, LABELS):
        if not (folder / name).exists():
            raise Refusal(
                "the SIIM-ACR download is not laid out as expected",
                missing=shown(folder / name),
                do=f"the folder must hold {IMAGES}/ and {LABELS}",
            )
    files = _image_files(folder / IMAGES)
    labels = read_labels(folder / LABELS)
    films = [_film(identifier, rows, files.get(identifier, [])) for identifier, rows in labels.items()]
    paths = [path for identifier, paths in files.items() if identifier not in labels for path in paths]
    return films + [
        SourceFilm(
            path.relative_to(folder).as_posix(),
            path,
            f"{IMAGES} (unlisted file {number})",
            None,
            0,
            excluded=UNLISTED,
        )
        for number, path in enumerate(paths, start=1)
    ]


def _image_files(folder: Path) -> dict[str, list[Path]]:
    """ImageId -> its files; more than one where a name occurs twice. Hidden files are none."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".dcm" and not path.name.startswith(".") and path.is_file():
            files.setdefault(path.stem, []).append(path)
    return files


def _film(identifier: str, rows: list[tuple[int, str]], paths: list[Path]) -> SourceFilm:
    """One film with its rows of the label file."""
    encoded = tuple(text for _, text in rows if text != "-1")
    fault = None
    if not all(encoded):
        fault = "a row has no EncodedPixels: no lesion is -1"
    elif 0 < len(encoded) < len(rows):
        fault = "one of its rows says no lesion, another one has run lengths"
    elif len(paths) != 1:
        fault = f"several image files of its name in {IMAGES}" if paths else f"no image file in {IMAGES}"
    return SourceFilm(
        identifier=identifier,
        path=None if fault else paths[0],
        origin=f"{LABELS}, row {rows[0][0]}",
        annotation=RunLengths(encoded) if encoded and all(encoded) else None,
        report=int(bool(encoded)),
        fault=fault,
    )


def read_labels(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Read the label file.

    Returns:
        ImageId -> its rows, in the file's order: (row number as a spreadsheet shows it, run lengths or `-1`).

    Raises:
        Refusal: It cannot be read, lacks a column, or has rows with more or fewer cells than its header.
    """
    (_, header), *body = read_rows(path) or [(1, [])]
    header = [name.strip() for name in header]
    if not {"ImageId", "EncodedPixels"} <= set(header):
        raise Refusal(f"{shown(path)} lacks a column", do="it needs ImageId and EncodedPixels")
    image, encoded = header.index("ImageId"), header.index("EncodedPixels")
    rows: dict[str, list[tuple[int, str]]] = {}
    for number, cells in body:
        if len(cells) != len(header):
            raise Refusal(f"{shown(path)}: row {number} has more or fewer cells than the header")
        rows.setdefault(cells[image].strip(), []).append((number, cells[encoded].strip()))
    return rows
