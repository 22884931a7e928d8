"""The SIIM-ACR download -> source films.

Layout: `dicom-images-train/<study>/<series>/<ImageId>.dcm` and `train-rle.csv` with the columns `ImageId`
and ` EncodedPixels` (the leading space is the download's own).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from common.artefacts import shown
from common.data.cases import SourceFilm
from common.data.masks import RunLengths
from common.refusal import Refusal

IMAGES = "dicom-images-train"
LABELS = "train-rle.csv"


def source_films(folder: Path) -> list[SourceFilm]:
    """List the films of a SIIM-ACR download.

    Raises:
        Refusal: The folder is not laid out as the download.
    """
    for name in (IMAGES, LABELS):
        if not (folder / name).exists():
            raise Refusal(
                "the SIIM-ACR download is not laid out as expected",
                missing=shown(folder / name),
                do=f"the folder must hold {IMAGES}/ and {LABELS}",
            )
    files = {path.stem: path for path in sorted((folder / IMAGES).rglob("*.dcm"))}
    films = []
    for identifier, rows in _read_labels(folder / LABELS).items():
        encoded = tuple(text for _, text in rows if text.strip() not in ("", "-1"))
        films.append(
            SourceFilm(
                identifier=identifier,
                path=files.get(identifier),
                origin=f"{LABELS}, row {rows[0][0]}",
                annotation=RunLengths(encoded) if encoded else None,
                report=int(bool(encoded)),
                fault=None if identifier in files else f"no image file in {IMAGES}",
            )
        )
    return films


def _read_labels(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Rows of each film: (row number in the file, run lengths)."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise Refusal(f"{shown(path)} cannot be read", found=type(error).__name__) from None
    table.columns = [column.strip() for column in table.columns]
    if not {"ImageId", "EncodedPixels"} <= set(table.columns):
        raise Refusal(f"{shown(path)} lacks a column", do="it needs ImageId and EncodedPixels")
    rows: dict[str, list[tuple[int, str]]] = {}
    for number, (identifier, text) in enumerate(
        zip(table["ImageId"].str.strip(), table["EncodedPixels"], strict=True), start=2
    ):
        rows.setdefault(identifier, []).append((number, text))
    return rows
