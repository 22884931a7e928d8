"""How an estimate, its interval and a p-value read, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.statistics.bootstrap import NOT_ESTIMABLE, TOO_FEW
from common.statistics.metric_catalogue import METRICS

Row = Mapping[str, Any]  # of metrics.csv


def number(value: float, like: float | None = None) -> str:
    """A value with about three digits: 0.953, 12.35, 130.2; a whole number stays whole.

    Args:
        value: Finite.
        like: Value whose decimals are used (an interval has those of its estimate); None: its own.
    """
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value if like is None else like)
    text = f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")  # no -0.000


def estimate_text(row: Row) -> str:
    """`0.953 (0.921 to 0.978)`, or what of it can be estimated."""
    if row["estimate"] is None:
        return f"at least {number(float(row['ci_low']))}" if open_ended(row) else NOT_ESTIMABLE
    if open_ended(row):
        return f"{number(row['estimate'])} ({number(float(row['ci_low']), row['estimate'])} or more)"
    if row["ci_low"] is None or row["ci_high"] is None:
        return number(row["estimate"])
    low, high = (number(float(row[end]), row["estimate"]) for end in ("ci_low", "ci_high"))
    return f"{number(row['estimate'])} ({low} to {high})"


def open_ended(row: Row) -> bool:
    """Whether an interval has no upper end, as that of a ratio by a share that may be 0."""
    return row["ci_low"] is not None and row["ci_high"] is None


def films_text(row: Row) -> str:
    """Films that an estimate is over: `308`; where both classes count, positives and negatives: `33+275`."""
    positives = row.get("positives")
    return f"{row['n']}" if positives is None else f"{positives}+{row['n'] - positives}"


def line_text(row: Row, digits: int = 3, with_n: bool = True) -> str:
    """In the terminal: `0.953 (0.921-0.978) n=33+275`, with the reason where there is no interval."""
    n = f" n={films_text(row)}" if with_n else ""
    low, high = row["ci_low"], row["ci_high"]
    if row["estimate"] is None:
        return (f"at least {low:.{digits}f}" if open_ended(row) else NOT_ESTIMABLE) + n
    estimate = f"{row['estimate']:.{digits}f}"
    if METRICS[row["metric"]].descriptive:
        return estimate + n
    if open_ended(row):
        interval = f"{low:.{digits}f} or more"
    elif low is None:
        interval = "too few" if TOO_FEW in row["note"] else NOT_ESTIMABLE
    else:
        interval = f"{low:.{digits}f}{' to ' if low < 0 else '-'}{high:.{digits}f}"
    return f"{estimate} ({interval}){n}"


def p_text(p: float | None) -> str:
    """A p value as journals print it."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
