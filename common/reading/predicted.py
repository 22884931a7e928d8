"""The room of new films: what predict.sh found in each, without truth."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from common.files import CASE
from common.paths import shown
from common.prediction.finding import COLUMN_MEANINGS
from common.reading.grid import Grid
from common.reading.room import Query, Room, ShownFilm, Summary, counted, inside
from common.refusal import Refusal
from common.stages import PREDICTION_FOLDER

_FACETS = ("decision", "rule", "side", "borderline")
_ORDERS = ("probability", "spread", "area_percent", "area_cm2", "segmented_pixels")
_HIDDEN = ("file", "number", "note")  # a path may hold a name
_NO_PICTURE = np.zeros((256, 256), np.uint8)


class PredictedRoom(Room):
    """The room of an output folder of predict.sh.

    Args:
        folder: Output folder.

    Raises:
        Refusal: It holds no findings.
    """

    name, title = "predicted", "New films"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / "findings.csv"
        made = f"cd {PREDICTION_FOLDER} && bash predict.sh INPUT OUTPUT"
        try:
            self._table = pd.read_csv(path, dtype=str, keep_default_na=False)
            cases = self._table["case"].tolist()
            if set(self._table) != set(COLUMN_MEANINGS) or not all(fnmatchcase(c, CASE) for c in cases):
                raise ValueError("other columns, or a case that is no pseudonym")
            numbers = {name: pd.to_numeric(self._table[name]).to_numpy(float) for name in _ORDERS}
        except (OSError, ValueError, KeyError) as error:
            raise Refusal(f"{shown(path)} is no table of findings", found=error, made_by=made) from None
        self.notes = [
            "The pictures are those of predict.sh, the outline drawn in; there is no truth and no metric. "
            "A finding's side is the patient's."
        ]
        if (folder / "unread.csv").is_file() and (unread := len(pd.read_csv(folder / "unread.csv"))):
            self.notes.append(f"{unread} files could not be read: unread.csv says why.")
        said = zip(self._table["decision"], numbers["probability"].tolist(), strict=True)
        tiles = [f"{decision} · {probability:.3f}" for decision, probability in said]
        facets = {name: self._table[name].to_numpy(str) for name in _FACETS}
        facets["warnings"] = np.where(self._table["warnings"] == "", "none", "some")
        self._grid = Grid(np.array(cases, dtype=str), facets, numbers, tiles)

    def grid(self, query: Query) -> Grid:
        return self._grid

    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        return Summary([counted(self._grid.facets["decision"][rows])])

    def film(self, row: int) -> ShownFilm:
        facts = {
            str(name).replace("_", " "): str(value)
            for name, value in self._table.iloc[row].items()
            if value and name not in _HIDDEN
        }
        if not self._path(row).is_file():
            facts["picture"] = "none: text may be burned in, which may be a name"
        height, width = self.pixels(row).shape[:2]
        return ShownFilm(str(self._grid.case[row]), (width, height), None, False, {}, (), {"Finding": facts})

    def pixels(self, row: int) -> np.ndarray:
        path = self._path(row)
        found = cv2.imread(str(path)) if path.is_file() else None
        return _NO_PICTURE if found is None else found  # somebody took it away, or changed it

    def _path(self, row: int) -> Path:
        return inside(self._folder / "overlays", f"{self._grid.case[row]}.png")
