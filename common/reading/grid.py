"""The grid of a room: which films a query chooses, in which order, and how many each choice would leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.files import csv_text


@dataclass(frozen=True)
class Grid:
    """Films to choose from, an element a film; row i of all is one film.

    Attributes:
        case: (n,) str, pseudonyms.
        facets: Value of each film in words, (n,) str, by the name that the page shows.
        orders: Number to sort by, (n,) float64, NaN where unknown, by the name that the page shows.
        tiles: Words on each film's tile.
    """

    case: np.ndarray
    facets: Mapping[str, np.ndarray]
    orders: Mapping[str, np.ndarray]
    tiles: Sequence[str]

    def csv(self, rows: np.ndarray) -> str:
        """The films of these rows as CSV; a number that is unknown is an empty cell."""
        columns = {"case": self.case, **self.facets, **self.orders}
        table = pd.DataFrame({name: values[rows] for name, values in columns.items()}, dtype=object)
        return csv_text(list(columns), table.where(table.notna(), None).to_dict("records"))

    def chosen(self, query: Mapping[str, str]) -> np.ndarray:
        """Rows of the films that a query chooses, sorted (int64).

        Args:
            query: Value by facet, `sort`: an order, `-` before it for the largest first, and `marked`: rows,
                commas between. What the grid does not know is ignored.
        """
        rows = np.flatnonzero(self._holds(query))
        order = query.get("sort", "")
        values = self.orders.get(order.removeprefix("-"))
        if values is None:
            return rows
        keys = -values[rows] if order.startswith("-") else values[rows]
        return rows[np.argsort(keys, kind="stable")]  # what is unknown, NaN, comes last either way

    def counts(self, query: Mapping[str, str]) -> dict[str, dict[str, int]]:
        """Films of each value of each facet, given what the query says of the other facets."""
        found = {}
        for name, values in self.facets.items():
            others = values[self._holds({key: value for key, value in query.items() if key != name})]
            found[name] = {kind: int((others == kind).sum()) for kind in np.unique(values).tolist()}
        return found

    def _holds(self, query: Mapping[str, str]) -> np.ndarray:
        holds = np.ones(len(self.case), dtype=bool)
        for name, value in query.items():
            if name in self.facets:
                holds &= self.facets[name] == value
        if query.get("marked"):
            marked = [int(row) for row in query["marked"].split(",") if row.isdecimal()]
            holds &= np.isin(np.arange(len(holds)), marked)
        return holds
