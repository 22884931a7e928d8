"""A room of prepared films: pictures in the proportions of the original ones, and what is known of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping

import cv2
import numpy as np
import pandas as pd

from common.paths import prepared_folder, set_is_prepared, shown
from common.prediction.finding import on_film
from common.preparation.film_store import SIDE, PreparedSet
from common.reading.pictures import TRUTH, outline_path
from common.reading.room import Facts, Room, ShownFilm
from common.refusal import Refusal
from common.stages import PREPARE_COMMAND
from common.statistics.strata import lesion_sizes
from common.statistics.surface_distance import MM, Scale

_NAMED = {"sex": "sex", "view": "view", "device": "manufacturer"}


class PreparedRoom(Room):
    """A room of films of a prepared set.

    Args:
        source: `ntuh_test` or `ntuh_train`.
        contents: Hashes of the films that the results are of.
        needed_by: What must be made again where the prepared films are others.

    Raises:
        Refusal: The set is not there, or is of other films.
    """

    case: np.ndarray  # (n,) str, pseudonyms of the room's films, in its order

    def __init__(self, source: str, contents: Collection[str], needed_by: str) -> None:
        folder = prepared_folder(source)
        if not set_is_prepared(source):
            raise Refusal(
                "the reading room shows the prepared films", missing=shown(folder), made_by=PREPARE_COMMAND
            )
        self._prepared = PreparedSet(folder)
        if {self._prepared.content} != set(contents):
            raise Refusal(
                f"{shown(folder)} holds other films than the results are of",
                do=f"make the results again: {needed_by}",
            )
        self._row_of = {case: row for row, case in enumerate(self._prepared.cases["case"].astype(str))}

    @abstractmethod
    def parts(self, row: int) -> Mapping[str, Facts]:
        """What is told of a film beside what its preparation knows, by system."""

    # --- pictures ----------------------------------------------------------------------------------

    def film(self, row: int) -> ShownFilm:
        areas = self.areas(row)
        return ShownFilm(
            case=str(self.case[row]),
            size=self.size(row),
            mm=self.mm(row),
            plain=True,
            outlines={name: outline_path(area) for name, area in areas.items()},
            maps=[name for name, area in areas.items() if area is not None and name != TRUTH],
            parts={"Film": self._facts(row), **self.parts(row)},
        )

    def pixels(self, row: int) -> np.ndarray:
        # Linear both ways: one side keeps its pixels, the other one grows. Nothing is mirrored or turned.
        return cv2.resize(self._prepared.film(self._own(row)), self.size(row), interpolation=cv2.INTER_LINEAR)

    def truth(self, row: int) -> np.ndarray | None:
        """The annotated lesion, as in `areas`; None without one."""
        own = self._own(row)
        return self.stretched(row, self._prepared.mask(own), 0.5) if self._prepared.has_mask[own] else None

    def stretched(self, row: int, found: np.ndarray, threshold: float) -> np.ndarray:
        """Where a map of the film, (s, s), exceeds a threshold, as in `areas`."""
        width, height = self.size(row)
        return on_film(found.astype(np.float32), height, width, threshold)

    # --- what its preparation knows ----------------------------------------------------------------

    def _own(self, row: int) -> int:
        """Row in the prepared set."""
        return self._row_of[str(self.case[row])]

    def _known(self, row: int) -> pd.Series:
        return self._prepared.cases.iloc[self._own(row)]

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of the picture in pixels; the shorter side is that of the prepared film."""
        width, height = self._known(row)[["width", "height"]]
        scale = SIDE / min(width, height)
        return round(width * scale), round(height * scale)

    def _scale(self, row: int) -> Scale:
        """A film as a square of one pixel."""
        return Scale.of(1, *self._known(row)[["width", "height", "spacing_row", "spacing_column"]])

    def mm(self, row: int) -> tuple[float, float] | None:
        scale = self._scale(row)
        return (scale.column, scale.row) if scale.unit == MM else None

    def in_words(self, row: int, share: float) -> str:
        """A share of the film's area, in cm² too where the spacing is known."""
        cm2 = self._scale(row).film_cm2
        return f"{share:.2%} of the film" + ("" if cm2 is None else f", {share * cm2:.1f} cm²")

    def _facts(self, row: int) -> Facts:
        known, mm = self._known(row), self.mm(row)
        report = {1: "positive", 0: "negative"}.get(known["report"], "")
        truth = "no annotated lesion" if report else "no label: nobody has said whether there is a lesion"
        if report == "positive":
            truth += ", though the report is positive"
        if known["has_mask"]:
            share = known["mask_area_fraction"]
            truth = f"lesion, {self.in_words(row, share)} ({lesion_sizes(known['has_mask'] == 1, share)})"
        facts = {
            "truth": truth,
            "report": report,
            "size": f"{mm[0]:.0f} × {mm[1]:.0f} mm" if mm else "unknown: the film names no spacing",
            "original": f"{known['width']} × {known['height']} pixels",
            "age": "" if pd.isna(known["age"]) else f"{known['age']:.0f}",
            **{title: "" if pd.isna(known[name]) else str(known[name]) for title, name in _NAMED.items()},
        }
        return {title: words or "unknown" for title, words in facts.items()}
