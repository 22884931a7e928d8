"""The prepared cases, `cases.csv` of a prepared set: a row a film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.paths import shown
from common.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

# What `cases.csv` of a prepared set holds, row i belonging to film i of `films.npy`.
COLUMNS = {
    "case": "pseudonym of the film",
    "patient": "pseudonym of the patient, or of the exam where the patient is unknown",
    "patient_known": "1: by DICOM PatientID; 0: films are grouped by exam",
    "has_mask": "1: an annotated lesion",
    "report": "1: positive by the radiology report (SIIM: by the annotation); empty: without a label",
    "mask_row": "row in masks.npy, -1 without a mask",
    "mask_area_fraction": "mask over film area, on the prepared 1024 x 1024 grid; 0 without a mask",
    "age": "years, empty where unknown",
    "sex": "M, F or empty",
    "view": "ViewPosition, or empty",
    "position": "PatientPosition or orientation such as SUPINE, or empty",
    "manufacturer": "of the X-ray device, or empty",
    "date": "of the film, YYYY-MM-DD, or empty",
    "study": "pseudonym of the DICOM study, or empty",
    "chest_tube": "1, 0, or empty where unknown",
    "width": "of the original film in pixels",
    "height": "of the original film in pixels",
    "spacing_row": "mm between rows of the original film, or empty",
    "spacing_column": "mm between columns of the original film, or empty",
}
_WHOLE = ("patient_known", "has_mask", "mask_row", "width", "height")


def read_cases(path: Path) -> pd.DataFrame:
    """Read prepared cases: a row a film, the columns as in `COLUMNS`.

    `report` is of whole numbers where every film has a label, else float64 with NaN where a film has none.

    Raises:
        Refusal: The file is missing or lacks a column.
    """
    import pandas as pd  # a new film does without

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise Refusal(f"{shown(path)} cannot be read", found=error) from None
    if list(table.columns) != list(COLUMNS):
        raise Refusal(
            f"{shown(path)} is no table of prepared cases", found=f"columns {', '.join(table.columns)}"
        )
    return table.astype(dict.fromkeys(_WHOLE, int))
