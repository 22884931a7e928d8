"""The tidy metric rows as the tables of the report: a line a metric, a column a system."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.report.estimates import Row, estimate_text, films_text, p_text
from common.statistics.metric_catalogue import METRICS
from common.statistics.strata import SIZE_EDGES, STRATA
from common.statistics.tested_films import CLEAR

REFERENCES = {
    "mask": "annotated mask",
    "report": "radiology report",
    CLEAR: "annotated mask, or clear by report; films positive by report without a mask left out",
}
DECISIONS = {"two_stage": "two-stage decision", "stage_1": "stage 1 alone"}
_STRATA = {
    "all": "All films",
    "small": f"Small lesions (< {SIZE_EDGES[0]:.1%} of the film)",
    "medium": f"Medium lesions ({SIZE_EDGES[0]:.1%} to < {SIZE_EDGES[1]:.1%})",
    "large": f"Large lesions (≥ {SIZE_EDGES[1]:.1%})",
}


# --- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A metric of a system.

    Attributes:
        text: Estimate and interval.
        n: Films that it is over, as `films_text` has it.
        mark: Mark of its footnote, or empty.
    """

    text: str
    n: str
    mark: str


@dataclass(frozen=True)
class Difference:
    """A comparison of two systems: the cell of the difference, and its test."""

    cell: Cell
    p: str
    p_holm: str
    test: str


@dataclass(frozen=True)
class Line:
    """A metric: a cell a system and a difference a comparison, in the table's order; None: no such row."""

    title: str
    cells: list[Cell | None]
    differences: list[Difference | None]
    interval: str


@dataclass(frozen=True)
class Table:
    """The metrics under one reference and one decision.

    Attributes:
        title: Title of the table.
        systems: Systems of the columns.
        comparisons: Comparisons of the columns that follow, e.g. `eff-vit`.
        groups: Title and lines of each stratum.
        notes: Footnotes, by mark.
    """

    title: str
    systems: list[str]
    comparisons: list[str]
    groups: list[tuple[str, list[Line]]]
    notes: dict[str, str]

    @property
    def tested(self) -> bool:
        """Whether any difference has a p value."""
        return any(d and d.p for _, lines in self.groups for line in lines for d in line.differences)

    @property
    def columns(self) -> int:
        """How many there are, the metric's name and the interval's kind included."""
        return 2 + len(self.systems) + (1 + self.tested) * len(self.comparisons)


def comparison_names(systems: Sequence[str]) -> list[str]:
    """What comparisons of two of these systems are called in the rows."""
    return [f"{a}-{b}" for a in systems for b in systems if a != b]


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def table(
    rows: Sequence[Row],
    systems: Sequence[str],
    title: str,
    stratum_titles: Mapping[str, str] = _STRATA,
    comparisons: Sequence[str] | None = None,
) -> Table:
    """Rows of one reference and decision as a table; strata and metrics in the order of the rows.

    Args:
        rows: Rows of these systems and their comparisons; others are passed over.
        systems: Systems of the columns, in this order.
        title: Title of the table.
        stratum_titles: What strata are called; one that is not named keeps its own name.
        comparisons: Comparisons of the columns that follow, where there are rows of them; None: those of the
            systems with each other.
    """
    wanted = comparison_names(systems) if comparisons is None else comparisons
    compared = [name for name in wanted if any(row["system"] == name for row in rows)]
    found = {(row["system"], row["stratum"], row["metric"]): row for row in rows}
    shown = [row for row in rows if row["system"] in (*systems, *compared)]
    marks: dict[str, str] = {}
    groups = []
    for stratum in _unique(row["stratum"] for row in shown):
        metrics = _unique(row["metric"] for row in shown if row["stratum"] == stratum)
        lines = [
            _line(
                metric,
                [found.get((name, stratum, metric)) for name in systems],
                [found.get((name, stratum, metric)) for name in compared],
                marks,
            )
            for metric in metrics
        ]
        groups.append((stratum_titles.get(stratum, stratum), lines))
    return Table(title, list(systems), compared, groups, {mark: note for note, mark in marks.items()})


def _line(
    metric: str, estimates: Sequence[Row | None], differences: Sequence[Row | None], marks: dict[str, str]
) -> Line:
    present = [row for row in (*estimates, *differences) if row is not None]
    return Line(
        METRICS[metric].title,
        [None if row is None else _cell(row, marks) for row in estimates],
        [None if row is None else _difference(row, marks) for row in differences],
        "; ".join(_unique(str(row["interval"]) for row in present if row.get("interval", "none") != "none")),
    )


def _cell(row: Row, marks: dict[str, str]) -> Cell:
    note = row.get("note")
    mark = marks.setdefault(str(note), str(len(marks) + 1)) if note else ""
    return Cell(estimate_text(row), films_text(row), mark)


def _difference(row: Row, marks: dict[str, str]) -> Difference:
    return Difference(
        _cell(row, marks), p_text(row.get("p_value")), p_text(row.get("p_holm")), str(row.get("test") or "")
    )


@dataclass(frozen=True)
class Tables:
    """All rows, as tables.

    Attributes:
        primary: Mask reference, two-stage decision: all films, by lesion size, by groups (sex, age ...), and
            systems minus peers over all films.
        others: Every other reference and decision, all strata of each.
        further: Rows of other systems (human readers) and their comparisons, as they are.
    """

    primary: list[Table]
    others: list[Table]
    further: list[Row]


def tables(rows: Sequence[Row], systems: Sequence[str], peers: Sequence[str] = ()) -> Tables:
    """Sort rows into the tables of the report.

    Every row is in one of them, but those of systems minus peers that are not primary: they would widen each
    table beyond a page.
    """
    blocks: dict[tuple[str, str], list[Row]] = {}
    columns, own = [*systems, *peers], comparison_names(systems)
    known = {*columns, *comparison_names(columns)}
    for row in rows:
        if row["system"] in known:
            blocks.setdefault((row["reference"], row["decision"]), []).append(row)
    primary = blocks.pop(("mask", "two_stage"), [])

    def part(title: str, holds: Callable[[str], bool]) -> Table:
        chosen = [row for row in primary if holds(row["stratum"])]
        return table(chosen, columns, title, comparisons=own)

    parts = (
        part("primary results, all films", lambda stratum: stratum == "all"),
        part("by lesion size", lambda stratum: stratum in STRATA[1:]),
        part("by group of films", lambda stratum: stratum not in STRATA),
        table(
            [row for row in primary if row["stratum"] == "all"],
            [],
            "each system minus each peer, all films; exploratory, no p is adjusted",
            comparisons=[f"{system}-{peer}" for system in systems for peer in peers],
        ),
    )
    return Tables(
        [each for each in parts if each.groups],
        [
            table(
                block,
                columns,
                f"reference {_title(REFERENCES, key[0])}; {_title(DECISIONS, key[1])}",
                comparisons=own,
            )
            for key, block in blocks.items()
        ],
        [row for row in rows if row["system"] not in known],
    )


def _title(names: Mapping[str, str], key: str) -> str:
    return names.get(key, key)
