"""The grid of a room: which films a query chooses, in which order, and how many each choice would leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SORT, MARKED = "sort", "marked"  # parameters of a query; every other one names a facet
DOWN = "-"  # before the name of an order: largest first


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

    def table(self, rows: np.ndarray) -> tuple[list[str], list[dict[str, Any]]]:
        """Columns and lines of the films of these rows, as `common.files.csv_text` takes them."""
        named = {"case": self.case, **self.facets, **self.orders}
        lines = [{name: _cell(values[row]) for name, values in named.items()} for row in rows.tolist()]
        return list(named), lines

    def chosen(self, query: Mapping[str, str]) -> np.ndarray:
        """Rows of the films that a query chooses, sorted (int64).

        Args:
            query: Value by facet, `sort`: an order, `-` before it for the largest first, and `marked`: rows,
                commas between. What the grid does not know is ignored.
        """
        rows = np.flatnonzero(self._holds(query))
        order = query.get(SORT, "")
        values = self.orders.get(order.removeprefix(DOWN))
        if values is None:
            return rows
        keys = -values[rows] if order.startswith(DOWN) else values[rows]
        return rows[np.argsort(keys, kind="stable")]  # what is unknown, NaN, comes last either way

    def counts(self, query: Mapping[str, str]) -> dict[str, dict[str, int]]:
        """Films of each value of each facet, given what the query says of the other facets."""
        found = {}
        for name, values in self.facets.items():
            others = {key: value for key, value in query.items() if key != name}
            kinds, numbers = np.unique(values[self._holds(others)], return_counts=True)
            present = dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
            found[name] = {kind: present.get(kind, 0) for kind in np.unique(values).tolist()}
        return found

    def _holds(self, query: Mapping[str, str]) -> np.ndarray:
        holds = np.ones(len(self.case), dtype=bool)
        for name, value in query.items():
            if name in self.facets:
                holds &= self.facets[name] == value
        if query.get(MARKED):
            marked = [int(row) for row in query[MARKED].split(",") if row.isdecimal()]
            holds &= np.isin(np.arange(len(holds)), marked)
        return holds


def _cell(value: Any) -> Any:
    """A number or a text; None where the number is not known."""
    return None if value != value else value.item()
