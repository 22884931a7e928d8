"""The SIIM-ACR download -> source films, in each of the three ways in which it is handed out.

- `dicom-images-train/<study>/<series>/<ImageId>.dcm` and `train-rle.csv` with the columns `ImageId` and
  ` EncodedPixels` (the leading space is the download's own): the challenge of 2019.
- `stage_2_images/<ImageId>.dcm` and `stage_2_train.csv`, with the same columns: Kaggle since then.
- `png_images/`, `png_masks/` (a mask for every film, black where there is no lesion) and
  `stage_1_train_images.csv`, `stage_1_test_images.csv` with the columns `new_filename`, `ImageId` and
  `has_pneumo`: the edition in PNG. Both tables are of labelled films.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.films.annotations import RunLengths
from common.films.mask_files import MaskFile
from common.paths import shown
from common.refusal import Refusal
from common.sources.csv_rows import RAGGED, read_rows
from common.sources.source_film import SourceFilm

IMAGES = "dicom-images-train"
LABELS = "train-rle.csv"
MASKS = "png_masks"


@dataclass(frozen=True)
class Layout:
    """Where a download has its image files and its tables of labels."""

    images: str
    tables: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join([f"{self.images}/", *self.tables])


RUN_LENGTHS = (Layout(IMAGES, (LABELS,)), Layout("stage_2_images", ("stage_2_train.csv",)))
PNG = Layout("png_images", ("stage_1_train_images.csv", "stage_1_test_images.csv"))


def source_films(folder: Path) -> list[SourceFilm]:
    """List the films of a SIIM-ACR download, last the image files that no table names.

    Raises:
        Refusal: The folder is laid out in none of the known ways or in several, or a table cannot be read.
    """
    layout = _layout(folder)
    if layout == PNG:
        return _png_films(folder)
    (table,) = layout.tables
    files = _image_files(folder / layout.images, ".dcm")
    labels = read_labels(folder / table)
    films = [
        _film(layout, identifier, rows, files.get(identifier, [])) for identifier, rows in labels.items()
    ]
    paths = [path for identifier, paths in files.items() if identifier not in labels for path in paths]
    return films + _unlisted(folder, layout, paths)


def _layout(folder: Path) -> Layout:
    """The way in which a folder is laid out."""
    known = (*RUN_LENGTHS, PNG)
    present = [layout for layout in known if _parts(folder, layout) == 1.0]
    if len(present) == 1:
        return present[0]
    if present:
        raise Refusal(
            "the folder holds SIIM-ACR in more than one edition",
            found="; ".join(map(str, present)),
            do="name a folder with one of them: their films are the same",
        )
    # The layout of which most is there is the one that was meant: only what it lacks is told.
    nearest = max(known, key=lambda layout: _parts(folder, layout))
    missing = [name for name in (nearest.images, *nearest.tables) if not (folder / name).exists()]
    raise Refusal(
        "the SIIM-ACR download is not laid out as expected",
        missing=shown(folder / missing[0]),
        do="the folder must hold " + ", or ".join(map(str, known)),
    )


def _parts(folder: Path, layout: Layout) -> float:
    """The share of a layout's folders and tables that are there."""
    names = (layout.images, *layout.tables, *([MASKS] if layout == PNG else []))
    return sum((folder / name).exists() for name in names) / len(names)


def _unlisted(folder: Path, layout: Layout, paths: list[Path]) -> list[SourceFilm]:
    """The image files that no table names."""
    excluded = f"image file without a row in {' or '.join(layout.tables)}"
    return [
        SourceFilm(
            path.relative_to(folder).as_posix(),
            path,
            f"{layout.images} (unlisted file {number})",
            None,
            0,
            excluded=excluded,
        )
        for number, path in enumerate(paths, start=1)
    ]


def _image_files(folder: Path, end: str) -> dict[str, list[Path]]:
    """ImageId -> its files; more than one where a name occurs twice. Hidden files are none."""
    files: dict[str, list[Path]] = {}
    # Sorted, since disks list a folder in any order. Hidden: macOS leaves `._` files beside the true ones.
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == end and not path.name.startswith(".") and path.is_file():
            files.setdefault(path.stem, []).append(path)
    return files


def _film(layout: Layout, identifier: str, rows: list[tuple[int, str]], paths: list[Path]) -> SourceFilm:
    """One film with its rows of the label file."""
    encoded = tuple(text for _, text in rows if text != "-1")
    fault = None
    if not all(encoded):
        fault = "a row has no EncodedPixels: no lesion is -1"
    elif 0 < len(encoded) < len(rows):
        fault = "one of its rows says no lesion, another one has run lengths"
    elif len(paths) != 1:
        where = layout.images
        fault = f"several image files of its name in {where}" if paths else f"no image file in {where}"
    return SourceFilm(
        identifier=identifier,
        path=None if fault else paths[0],
        origin=f"{layout.tables[0]}, row {rows[0][0]}",
        annotation=RunLengths(encoded) if encoded and all(encoded) else None,
        report=int(bool(encoded)),
        fault=fault,
    )


def _png_films(folder: Path) -> list[SourceFilm]:
    """The films of the edition in PNG."""
    images, masks = (_image_files(folder / name, ".png") for name in (PNG.images, MASKS))
    films: dict[str, SourceFilm] = {}
    named: set[str] = set()
    for table in PNG.tables:
        for number, cells in _png_rows(folder / table):
            origin = f"{table}, row {number}"
            identifier = cells[1] if len(cells) == 3 else origin
            stem = Path(cells[0]).stem
            fault = (
                RAGGED if len(cells) != 3 else _png_fault(cells, images.get(stem, []), masks.get(stem, []))
            )
            if identifier in films:
                identifier, fault = origin, "its film is listed a second time"  # the first row keeps the name
            named.add(stem)
            films[identifier] = SourceFilm(
                identifier=identifier,
                path=None if fault else images[stem][0],
                origin=origin,
                annotation=None if fault else MaskFile(masks[stem][0]),
                report=int(not fault and cells[2] == "1"),
                fault=fault,
            )
    paths = [path for stem, paths in images.items() if stem not in named for path in paths]
    return [*films.values(), *_unlisted(folder, PNG, paths)]


def _png_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a table of the edition in PNG: file name, ImageId, label."""
    (_, header), *body = read_rows(path) or [(1, [])]
    header = [name.strip() for name in header]
    columns = ("new_filename", "ImageId", "has_pneumo")
    if not set(columns) <= set(header):
        raise Refusal(f"{shown(path)} lacks a column", do=f"it needs {', '.join(columns)}")
    places = [header.index(name) for name in columns]
    return [
        (n, [cells[p].strip() for p in places] if len(cells) == len(header) else cells[:1])
        for n, cells in body
    ]


def _png_fault(cells: list[str], images: list[Path], masks: list[Path]) -> str | None:
    """What is wrong with a row of the edition in PNG."""
    if cells[2] not in ("0", "1"):
        return "has_pneumo is neither 0 nor 1"
    for what, paths, where in (("image", images, PNG.images), ("mask", masks, MASKS)):
        if len(paths) != 1:
            return f"several {what} files of its name in {where}" if paths else f"no {what} file in {where}"
    return None


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
