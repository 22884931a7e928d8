"""The room of the training films: what each fold says of those it did not see, and a threshold to be moved.

Here choosing is legitimate: a threshold is chosen on these films, never on test films. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.inference.threshold_rules import Roc
from common.inference.two_stage_rule import read_thresholds
from common.paths import shown, thresholds_file
from common.reading.grid import Grid
from common.reading.pictures import outline_path
from common.reading.prepared_films import PreparedFilms
from common.reading.room import Query, Room, ShownFilm, Summary
from common.refusal import Refusal
from common.report.plots import roc_plot
from common.stages import SYSTEMS, THRESHOLDS_COMMAND
from common.statistics.curves import GRID, Curve


class OutOfFoldRoom(Room):
    """The room of the out-of-fold films of the systems whose thresholds are there.

    Raises:
        Refusal: There are none, or they are of other films than the prepared ones.
    """

    name, title = "out_of_fold", "Move a threshold (out-of-fold films)"
    figures = ("ROC",)
    notes = (
        "Training films, each as the fold that held it out sees it. A threshold that is moved here is "
        "written nowhere: get_thresholds.sh chooses.",
        "Stage 1 alone: the area rule is not in these numbers. They are optimistic: by these films the "
        "networks' best weights were kept.",
    )

    def __init__(self) -> None:
        systems = [system for system in SYSTEMS if thresholds_file(system).is_file()]
        chosen = {str(system): read_thresholds(system) for system in systems or SYSTEMS}
        self.thresholds = {
            f"{system} threshold": point.cls_threshold for system, (point, _) in chosen.items()
        }
        self._aurocs = {system: content["auc"] for system, (_, content) in chosen.items()}
        contents = {content["made_from"]["content"] for _, content in chosen.values()}
        self.films = PreparedFilms("ntuh_train", contents.pop(), THRESHOLDS_COMMAND)
        self.tables = {system: self._read(system) for system in chosen}
        first = next(iter(self.tables.values()))
        self.case = first["case"].to_numpy()
        self.positive = first["has_mask"].to_numpy() == 1
        self._rocs = {
            system: Roc.of(self.positive, table["probability"].to_numpy())
            for system, table in self.tables.items()
        }

    def _read(self, system: str) -> pd.DataFrame:
        path = thresholds_file(system).with_name("out_of_fold.csv")
        try:
            table = pd.read_csv(path, dtype={"case": str, "patient": str})
            if table["case"].tolist() != list(self.films.row_of) or table["probability"].isna().any():
                raise ValueError("other films than the prepared ones")
        except (OSError, ValueError, KeyError) as error:
            raise Refusal(
                f"{shown(path)} cannot be used", found=error, do=f"make it again: {THRESHOLDS_COMMAND}"
            ) from None
        return table

    # --- the grid ----------------------------------------------------------------------------------

    def grid(self, query: Query) -> Grid:
        facets, orders = {"lesion": np.where(self.positive, "annotated", "none")}, {}
        for system, table in self.tables.items():
            probability = table["probability"].to_numpy()
            was = probability >= self.thresholds[f"{system} threshold"]
            now = probability >= self._moved(system, query)
            facets[f"{system} change"] = np.where(
                was == now,
                np.where(now, "stays positive", "stays negative"),
                np.where(now, "becomes positive", "becomes negative"),
            )
            orders[f"{system} probability"] = probability
            orders[f"{system} Dice"] = table["dice"].to_numpy(float)
        facets["fold"] = next(iter(self.tables.values()))["fold"].astype(str).to_numpy(str)
        tiles = [
            f"{'positive' if self.positive[row] else 'negative'} · "
            + " · ".join(f"{s} {orders[f'{s} probability'][row]:.3f}" for s in self.tables)
            for row in range(len(self.case))
        ]
        return Grid(self.case, facets, orders, tiles)

    def _moved(self, system: str, query: Query) -> float:
        """The threshold that a query names, or the one that was chosen."""
        name = f"{system} threshold"
        try:
            return float(query[name])
        except (KeyError, ValueError):
            return self.thresholds[name]

    # --- the table and the curve -------------------------------------------------------------------

    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        """Sensitivity and specificity of all films at the chosen and the moved thresholds."""
        facets, said = self.grid(query).facets, []
        for system in self.tables:
            for change in ("becomes positive", "becomes negative"):
                films = facets[f"{system} change"] == change
                said.append(
                    f"{system}: {films.sum()} {change} ({(films & self.positive).sum()} with a lesion)"
                )
        lines = [[title] for title in ("threshold", "sensitivity", "specificity")]
        for system in self.tables:
            for threshold in (self.thresholds[f"{system} threshold"], self._moved(system, query)):
                sensitivity, false = self._rates(system, threshold)
                lines[0].append(f"{threshold:.4f}")
                lines[1].append(f"{sensitivity:.3f} (n {self.positive.sum()})")
                lines[2].append(f"{1 - false:.3f} (n {(~self.positive).sum()})")
        columns = [words for system in self.tables for words in (f"{system}, chosen", f"{system}, moved")]
        caption = f"Stage 1 of all {len(self.case)} out-of-fold films"
        return Summary(said, ["", *columns], lines, caption)

    def _rates(self, system: str, threshold: float) -> tuple[float, float]:
        """Sensitivity and 1 - specificity of calling films whose probability reaches a threshold, 0-1."""
        roc = self._rocs[system]
        point = np.count_nonzero(roc.thresholds >= threshold) - 1
        if point < 0:
            return 0.0, 0.0
        return float(roc.sensitivity[0, point]), float(roc.false_positive_rate[0, point])

    def figure(self, title: str, query: Query) -> bytes | None:
        rates = {system: self._rates(system, self._moved(system, query)) for system in self.tables}
        points = {system: {"stage_1": (false, true)} for system, (true, false) in rates.items()}
        curves = {system: _curve(roc) for system, roc in self._rocs.items()}
        return roc_plot(curves, points, lambda system, _: f"{self._aurocs[system]:.3f}")

    # --- a film ------------------------------------------------------------------------------------

    def film(self, row: int) -> ShownFilm:
        truth = self.films.truth(row)
        parts: Mapping[str, list[tuple[str, str]]] = {
            "Film": [
                ("truth", "lesion" if self.positive[row] else "no annotated lesion"),
                ("original", self.films.pixels(row)),
            ],
            **{
                system: [
                    ("fold", f"{table['fold'].iloc[row]}, which did not train on this film"),
                    ("probability", f"{table['probability'].iloc[row]:.6f}"),
                    ("chosen", f"threshold {self.thresholds[f'{system} threshold']:.6f}"),
                ]
                for system, table in self.tables.items()
            },
        }
        outlines = {"truth": None if truth is None else outline_path(truth)}
        return ShownFilm(
            str(self.case[row]), self.films.size(row), self.films.mm(row), True, outlines, (), parts
        )

    def picture(self, row: int) -> bytes:
        return self.films.picture(row)

    def thumbnail(self, row: int) -> bytes:
        return self.films.thumbnail(row)

    def outlined(self, row: int) -> bytes:
        return self.films.outlined(row, {"truth": self.films.truth(row)})


def _curve(roc: Roc) -> Curve:
    """A curve without a band, which would be of optimistic numbers."""
    x, y = (np.append(0, rates[0]) for rates in (roc.false_positive_rate, roc.sensitivity))
    return Curve(x, y, low=np.full(len(GRID), np.nan), high=np.full(len(GRID), np.nan))
