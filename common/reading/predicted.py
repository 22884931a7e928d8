"""The room of new films: what predict.sh found in each, without truth."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from common.files import CASE
from common.paths import shown
from common.prediction.finding import COLUMN_MEANINGS
from common.reading.grid import Grid
from common.reading.pictures import png, thumbnail_jpeg
from common.reading.room import Query, Room, ShownFilm, Summary, inside
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
        if not path.is_file():
            raise Refusal("there are no findings to show", missing=shown(path), made_by=made)
        try:
            self._table = pd.read_csv(path, dtype=str, keep_default_na=False)
            numbers = {name: pd.to_numeric(self._table[name]).to_numpy(float) for name in _ORDERS}
        except (OSError, ValueError, KeyError) as error:
            raise Refusal(f"{shown(path)} is no table of findings", found=error, made_by=made) from None
        cases = self._table.get("case", pd.Series(dtype=str)).tolist()
        if set(self._table.columns) != set(COLUMN_MEANINGS) or not all(fnmatchcase(c, CASE) for c in cases):
            raise Refusal(f"{shown(path)} is no table of findings", made_by=made)
        self.notes = [
            "The pictures are those of predict.sh, the outline drawn in; there is no truth and no metric. "
            "A finding's side is the patient's.",
            *_unread(folder / "unread.csv"),
        ]
        said = zip(self._table["decision"], numbers["probability"].tolist(), strict=True)
        tiles = [f"{decision} · {probability:.3f}" for decision, probability in said]
        facets = {name: self._table[name].to_numpy(str) for name in _FACETS}
        facets["warnings"] = np.where(self._table["warnings"] == "", "none", "some")
        self._grid = Grid(np.array(cases, dtype=str), facets, numbers, tiles)
        self._thumbnail = lru_cache(None)(self._reduced)

    def grid(self, query: Query) -> Grid:
        return self._grid

    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        kinds, numbers = np.unique(self._grid.facets["decision"][rows], return_counts=True)
        said = [f"{number} {kind}" for kind, number in zip(kinds.tolist(), numbers.tolist(), strict=True)]
        return Summary(said, [], [], "")

    def film(self, row: int) -> ShownFilm:
        facts = [
            (str(name).replace("_", " "), str(value))
            for name, value in self._table.iloc[row].items()
            if value and name not in _HIDDEN
        ]
        if self._picture(row) is None:
            facts.append(("picture", "none: text may be burned in, which may be a name"))
        height, width = self._pixels(row).shape[:2]
        return ShownFilm(str(self._grid.case[row]), (width, height), None, False, {}, (), {"Finding": facts})

    def picture(self, row: int) -> bytes:
        return self._picture(row) or png(_NO_PICTURE)

    def thumbnail(self, row: int) -> bytes:
        return self._thumbnail(row)

    def outlined(self, row: int) -> bytes:
        return self.picture(row)

    def _picture(self, row: int) -> bytes | None:
        path = inside(self._folder / "overlays", f"{self._grid.case[row]}.png")
        return path.read_bytes() if path.is_file() else None

    def _pixels(self, row: int) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(self.picture(row), np.uint8), cv2.IMREAD_COLOR)
        return _NO_PICTURE if pixels is None else pixels  # somebody changed it

    def _reduced(self, row: int) -> bytes:
        pixels = self._pixels(row)
        return thumbnail_jpeg(pixels, (pixels.shape[1], pixels.shape[0]))


def _unread(path: Path) -> list[str]:
    """How many files predict.sh could not read, in a sentence; the reasons stand in its list."""
    lines = len(pd.read_csv(path)) if path.is_file() else 0
    return [f"{lines} files could not be read: unread.csv says why."] if lines else []
