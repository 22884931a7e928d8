"""The rows of a source's CSV file, whatever wrote it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from common.paths import shown
from common.refusal import Refusal

RAGGED = "its row has more or fewer cells than the header"


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file, UTF-8 with or without a byte-order mark, of any line ends.

    Its cells are separated by commas, or by semicolons, which spreadsheets write in most of Europe: by
    whichever the first line has more of.

    Returns:
        The rows that are not empty, each with its number as a spreadsheet shows it: the file's first row is
        1, empty rows count, and a row with multi-line cells counts once.

    Raises:
        Refusal: No such file, no UTF-8, or quotes that do not match.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        # newline="": line ends within a cell are the csv module's. Strict: an open quote eats no rows.
        first = text.partition("\n")[0]
        between = ";" if first.count(";") > first.count(",") else ","
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=between))
    except UnicodeDecodeError:
        raise Refusal(
            f"{shown(path)} is not UTF-8",
            found="bytes of another encoding",
            do="save it again as CSV with the encoding UTF-8",
        ) from None
    except (OSError, csv.Error) as error:
        raise Refusal(
            f"{shown(path)} cannot be read",
            found=error.strerror if isinstance(error, OSError) else f"no table of separated cells ({error})",
            do="look for a quotation mark that is not closed" if isinstance(error, csv.Error) else None,
        ) from None
    return [(number, cells) for number, cells in enumerate(rows, start=1) if any(map(str.strip, cells))]
