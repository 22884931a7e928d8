"""The films of a prepared set, in the proportions of the original ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from common.paths import prepared_folder, set_is_prepared, shown
from common.prediction.finding import on_film
from common.preparation.film_store import PreparedSet
from common.reading.pictures import drawn_outlines, in_proportion, picture_size, png, thumbnail_jpeg
from common.reading.room import COLOURS
from common.refusal import Refusal
from common.stages import PREPARE_COMMAND

_KEPT_THUMBNAILS = 20_000  # of about 5 kB


class PreparedFilms:
    """The pictures of a prepared set, in the proportions of the original films.

    Args:
        name: `ntuh_test` or `ntuh_train`.
        content: Hash of the films that are shown, by which others are refused.
        needed_by: What else must be made again where the films are others.

    Raises:
        Refusal: The set is not there, or is of other films.
    """

    def __init__(self, name: str, content: str, needed_by: str) -> None:
        if not set_is_prepared(name):
            raise Refusal(
                "the reading room shows the prepared films",
                missing=shown(prepared_folder(name)),
                made_by=PREPARE_COMMAND,
            )
        self.prepared = PreparedSet(prepared_folder(name))
        if self.prepared.content != content:
            raise Refusal(
                f"{shown(prepared_folder(name))} holds other films than the results are of",
                do=f"make the results again: {needed_by}",
            )
        self.row_of = {case: row for row, case in enumerate(self.prepared.cases["case"].astype(str))}
        self.thumbnail = lru_cache(_KEPT_THUMBNAILS)(self._thumbnail)  # each is made once, when it is seen

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of a film's picture in pixels."""
        facts = self.prepared.cases.iloc[row]
        return picture_size(int(facts["width"]), int(facts["height"]))

    def mm(self, row: int) -> tuple[float, float] | None:
        """Width and height of a film in mm; None where its spacing is unknown."""
        facts = self.prepared.cases.iloc[row]
        spacing = float(facts["spacing_column"]), float(facts["spacing_row"])
        if not all(np.isfinite(each) and each > 0 for each in spacing):
            return None
        return spacing[0] * int(facts["width"]), spacing[1] * int(facts["height"])

    def pixels(self, row: int) -> str:
        """How many columns and rows the original film has, in words."""
        facts = self.prepared.cases.iloc[row]
        return f"{facts['width']} × {facts['height']} pixels"

    def picture(self, row: int) -> bytes:
        """A film as PNG."""
        return png(in_proportion(self.prepared.film(row), self.size(row)))

    def truth(self, row: int) -> np.ndarray | None:
        """The annotated lesion on the pixels of the picture, (height, width) bool; None without one."""
        if not self.prepared.has_mask[row]:
            return None
        width, height = self.size(row)
        return on_film(self.prepared.mask(row).astype(np.float32), height, width, 0.5)

    def outlined(self, row: int, areas: Mapping[str, np.ndarray | None]) -> bytes:
        """A film as PNG with the borders of areas on the pixels of its picture, by what they show."""
        known = [(area, COLOURS[name]) for name, area in areas.items() if area is not None]
        return png(drawn_outlines(in_proportion(self.prepared.film(row), self.size(row)), known))

    def _thumbnail(self, row: int) -> bytes:
        return thumbnail_jpeg(self.prepared.film(row), self.size(row))
