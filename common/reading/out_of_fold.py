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
from common.reading.pictures import TRUTH
from common.reading.prepared_films import PreparedRoom
from common.reading.room import Facts, Query, Summary
from common.refusal import Refusal
from common.report.plots import roc_plot
from common.stages import STUDENTS, SYSTEMS, THRESHOLDS_COMMAND
from common.statistics.curves import GRID, Curve
from common.statistics.strata import lesion_sizes


class OutOfFoldRoom(PreparedRoom):
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
        there = [system for system in (*SYSTEMS, *STUDENTS) if thresholds_file(system).is_file()]
        chosen = {system: read_thresholds(system)[1] for system in there or SYSTEMS}
        of_films = {content["made_from"]["content"] for content in chosen.values()}
        super().__init__("ntuh_train", of_films, THRESHOLDS_COMMAND)
        self.thresholds = {system: content["cls_threshold"] for system, content in chosen.items()}
        self._aurocs = {system: content["auc"] for system, content in chosen.items()}
        self.tables = {system: self._read(system) for system in chosen}
        self.case = np.array(list(self._row_of))
        self.positive = self._prepared.has_mask

    def _read(self, system: str) -> pd.DataFrame:
        path = thresholds_file(system).with_name("out_of_fold.csv")
        try:
            table = pd.read_csv(path, dtype={"case": str, "patient": str})
            if table["case"].tolist() != list(self._row_of) or table["probability"].isna().any():
                raise ValueError("other films than the prepared ones")
        except (OSError, ValueError, KeyError) as error:
            raise Refusal(
                f"{shown(path)} cannot be used", found=error, do=f"make it again: {THRESHOLDS_COMMAND}"
            ) from None
        return table

    # --- the grid ----------------------------------------------------------------------------------

    def grid(self, query: Query) -> Grid:
        area = self._prepared.cases["mask_area_fraction"].to_numpy()
        facets, orders = {"lesion": lesion_sizes(self.positive, area)}, {"lesion area": area}
        tiles = np.where(self.positive, "positive", "negative")
        for system, table in self.tables.items():
            probability = table["probability"].to_numpy()
            was, now = (probability >= each for each in self._before_and_after(system, query))
            facets[f"{system} change"] = np.char.add(
                np.where(was == now, "stays ", "becomes "), np.where(now, "positive", "negative")
            )
            orders[f"{system} probability"] = probability
            orders[f"{system} Dice"] = table["dice"].to_numpy(float)
            tiles = np.char.add(tiles, [f" · {system} {each:.3f}" for each in probability.tolist()])
        facets["fold"] = next(iter(self.tables.values()))["fold"].astype(str).to_numpy(str)
        return Grid(self.case, facets, orders, tiles.tolist())

    def _before_and_after(self, system: str, query: Query) -> tuple[float, float]:
        """The threshold that was chosen, and the one that a query names, else the same."""
        chosen = self.thresholds[system]
        try:
            moved = float(query[system])
        except (KeyError, ValueError):
            return chosen, chosen
        # A slider gives four digits: back at those of the chosen one, it is the chosen one.
        return chosen, chosen if f"{moved:.4f}" == f"{chosen:.4f}" else moved

    # --- the table and the curve -------------------------------------------------------------------

    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        """Sensitivity and specificity of all films at the chosen and the moved thresholds."""
        facets, said = self.grid(query).facets, []
        head, *lines = [""], ["threshold"], ["sensitivity"], ["specificity"]
        for system in self.tables:
            for change in ("becomes positive", "becomes negative"):
                films = facets[f"{system} change"] == change
                said.append(
                    f"{system}: {films.sum()} {change} ({(films & self.positive).sum()} with a lesion)"
                )
            head += [f"{system}, chosen", f"{system}, moved"]
            for threshold in self._before_and_after(system, query):
                false, true = self._rates(system, threshold)
                lines[0].append(f"{threshold:.4f}")
                lines[1].append(f"{true:.3f} (n {self.positive.sum()})")
                lines[2].append(f"{1 - false:.3f} (n {(~self.positive).sum()})")
        return Summary(said, [head, *lines], f"Stage 1 of all {len(self.case)} out-of-fold films")

    def _rates(self, system: str, threshold: float) -> tuple[float, float]:
        """1 - specificity and sensitivity of calling films whose probability reaches a threshold, 0-1."""
        called = self.tables[system]["probability"].to_numpy() >= threshold
        return float(called[~self.positive].mean()), float(called[self.positive].mean())

    def figure(self, title: str, query: Query) -> bytes | None:
        moved = {system: self._before_and_after(system, query)[1] for system in self.tables}
        points = {system: {"stage_1": self._rates(system, each)} for system, each in moved.items()}
        curves = {system: self._curve(table) for system, table in self.tables.items()}
        return roc_plot(curves, points, lambda system, _: f"{self._aurocs[system]:.3f}")

    def _curve(self, table: pd.DataFrame) -> Curve:
        """A curve without a band, which would be of optimistic numbers."""
        roc = Roc.of(self.positive, table["probability"].to_numpy())
        x, y = (np.append(0, rates[0]) for rates in (roc.false_positive_rate, roc.sensitivity))
        return Curve(x, y, low=np.full(len(GRID), np.nan), high=np.full(len(GRID), np.nan))

    # --- a film ------------------------------------------------------------------------------------

    def areas(self, row: int) -> dict[str, np.ndarray | None]:
        return {TRUTH: self.truth(row)}

    def parts(self, row: int) -> Mapping[str, Facts]:
        return {
            system: {
                "fold": f"{table['fold'].iloc[row]}, which did not train on this film",
                "probability": f"{table['probability'].iloc[row]:.6f}",
                "chosen": f"threshold {self.thresholds[system]:.6f}",
            }
            for system, table in self.tables.items()
        }
