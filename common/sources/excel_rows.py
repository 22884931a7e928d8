"""The rows of a source's Excel workbook, as text: what its cells hold, not how they are formatted."""

from __future__ import annotations

import warnings
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from common.paths import shown
from common.refusal import Refusal

SHEET = "cases"  # of a workbook that holds several with cells
LARGEST = 500_000_000  # bytes of its parts, unpacked
_Rows: TypeAlias = list[tuple[int, list[Any]]]
_EXACT = 10**15  # from here on a spreadsheet has rounded a number: it holds 15 digits


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the one sheet of a workbook that holds cells, or the one that is called `cases`.

    Returns:
        The rows that are not empty, each with its number as Excel shows it and as many cells as the first
        of them, or more where more are filled.

    Raises:
        Refusal: No such file, no workbook, several sheets, or formulas whose values are not saved.
    """
    import openpyxl  # here, because most users have none, and every command would wait for it

    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > LARGEST:
                raise ValueError("too large")
        with warnings.catch_warnings():  # of styles and validations that openpyxl does not know
            warnings.simplefilter("ignore")
            book, formulas = (
                openpyxl.load_workbook(path, read_only=True, data_only=values) for values in (True, False)
            )
            sheets = {sheet.title: _cells(sheet) for sheet in book.worksheets}
            written = {sheet.title: _cells(sheet) for sheet in formulas.worksheets}
    except OSError as error:
        raise Refusal(f"{shown(path)} cannot be read", found=error.strerror) from None
    except Exception as error:  # a damaged workbook can make openpyxl raise anything
        raise Refusal(
            f"{shown(path)} cannot be read",
            found=f"no Excel workbook ({type(error).__name__})",
            do="save it again as .xlsx, without a password, or as cases.csv",
        ) from None
    title = _sheet(path, sheets)
    _refuse_unsaved(path, sheets[title], written[title])
    rows = [(number, [_text(cell) for cell in cells]) for number, cells in sheets[title]]
    width = len(rows[0][1]) if rows else 0
    return [(number, cells + [""] * (width - len(cells))) for number, cells in rows]


def _cells(sheet: Any) -> _Rows:
    """The rows of a sheet that are not empty, without the empty cells at their ends."""
    sheet.reset_dimensions()  # which other programs write wrongly
    rows = []
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = list(row)
        while cells and _text(cells[-1]) == "":
            cells.pop()
        if cells:
            rows.append((number, cells))
    return rows


def _sheet(path: Path, sheets: dict[str, _Rows]) -> str:
    """The title of the sheet that holds the table."""
    filled = [title for title, rows in sheets.items() if rows]
    named = [title for title in filled if title.casefold() == SHEET]
    if len(named or filled) > 1:
        raise Refusal(
            f"{shown(path)} has several sheets with cells",
            found=f"{len(filled)} of them",
            do=f"keep the one with the films, or call it {SHEET}",
        )
    return (named or filled or list(sheets))[0]


def _refuse_unsaved(path: Path, values: _Rows, written: _Rows) -> None:
    """Refuse formulas that were never computed: a program wrote them, and their values would be empty."""
    held = dict(values)
    for number, cells in written:
        for place, cell in enumerate(cells):
            known = held.get(number, [])
            if cell is not None and (place >= len(known) or known[place] is None):
                raise Refusal(
                    f"{shown(path)} holds formulas whose values are not saved",
                    found=f"row {number}",
                    do="open it in a spreadsheet program and save it again",
                )


def _text(cell: Any) -> str:
    """A cell as `cases.csv` would hold it; a number that was rounded as spreadsheets show one (1.2e+15)."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.date().isoformat()
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return f"{cell:.15g}" if isinstance(cell, float) or abs(cell) >= _EXACT else str(cell)
    return str(cell).strip()
