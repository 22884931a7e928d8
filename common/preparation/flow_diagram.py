"""Where every film of a source went: counted, printed and drawn (as CONSORT 2010 and CLAIM 2024 ask).

found = prepared + excluded by a rule + rejected for a fault; nothing is dropped without a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.files import whole_file

_TITLES = {
    "siim": "SIIM-ACR",
    "ntuh_train": "hospital, training",
    "ntuh_test": "hospital, test",
    "unlabelled": "without labels, for students",
}


def count_flow(
    name: str, rows: Sequence[dict[str, Any]], excluded: Sequence[str], rejected: Sequence[str]
) -> dict[str, Any]:
    """Count where the films of a set went.

    Args:
        name: `siim`, `ntuh_train`, `ntuh_test` or `unlabelled`.
        rows: Case table of the films that were prepared.
        excluded: Rule that dropped it, for each film that a rule dropped.
        rejected: Fault of each film that has one.

    Returns:
        The content of `flow.json`: `found` = `prepared` + all of `excluded` + all of `rejected`. `unlabelled`
        counts the prepared films without a label, where there are any.
    """

    def count(condition: Callable[[dict[str, Any]], bool]) -> int:
        return sum(map(condition, rows))

    unlabelled = count(lambda r: r["report"] is None)
    return {
        "set": name,
        "found": len(rows) + len(excluded) + len(rejected),
        "excluded": dict(sorted(Counter(excluded).items())),
        "rejected": dict(sorted(Counter(rejected).items())),
        "prepared": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "with_mask": count(lambda r: r["has_mask"] == 1),
        "positive_by_report": count(lambda r: r["report"] == 1),
        "report_without_mask": count(lambda r: r["report"] == 1 and r["has_mask"] == 0),
        "mask_without_report": count(lambda r: r["report"] == 0 and r["has_mask"] == 1),
        **({"unlabelled": unlabelled} if unlabelled else {}),
        "unknown_age": count(lambda r: r["age"] is None),
        "unknown_study": count(lambda r: not r["study"]),
        "grouped_by_exam": count(lambda r: r["patient_known"] == 0),
    }


def print_flow(flow: dict[str, Any]) -> None:
    """Print where every film of a set went."""
    print(f"{flow['set']}: {flow['found']:,} films found")
    for kind in ("excluded", "rejected"):
        for reason, count in flow[kind].items():
            print(f"  {count:>7,} {kind}: {reason}")
    print(f"  {flow['prepared']:>7,} prepared, of {flow['patients']:,} patients")
    if flow["set"] == "unlabelled":
        return
    print(
        f"          {flow['with_mask']:,} with a mask; {flow['positive_by_report']:,} positive by report, "
        f"{flow['report_without_mask']:,} of them without a mask"
    )
    if table := flow.get("patient_table"):
        print(
            f"          {table['films']:,} films of {table['patients']:,} patients by the table of patients; "
            f"{table['films_without_entry']:,} without an entry there, grouped by PatientID; "
            f"{table['entries_without_film']:,} entries of films that are not listed"
        )
    if flow.get("unlabelled"):
        print(f"  {flow['unlabelled']:>7,} of them without a label: predicted, but in no metric")
    if flow["unknown_age"] and flow["set"] != "siim":
        print(f"  {flow['unknown_age']:>7,} of them of unknown age, kept")


def draw_flow(flow: dict[str, Any], path: Path) -> None:
    """Draw the flow diagram of a set: the films that stay go down, those that leave go to the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    steps = [f"{_TITLES[flow['set']]}\n{_films(flow['found'])} found"]
    leaving = []
    left = flow["found"]
    for kind, title in (("excluded", "Excluded by rule"), ("rejected", "Rejected for a fault")):
        total = sum(flow[kind].values())
        reasons = [f"{count:,}  {reason}" for reason, count in flow[kind].items()]
        leaving.append("\n".join([f"{title}: {_films(total)}", *reasons]))
        left -= total
        steps.append(f"{_films(left)} " + ("eligible" if kind == "excluded" else "prepared"))
    how = "patients, by table" if "patient_table" in flow else "patients or exams"
    steps[-1] += f"\n{flow['patients']:,} {how}"
    lines = [max(text.count("\n") + 1, 2) for text in leaving]
    figure = Figure(figsize=(9, 2.2 + 0.22 * sum(lines)), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, 10), ylim=(-sum(lines) - 8.5, 1.5))
    # Each step lies below as many lines of reasons as leave before it.
    tops = [0.0, -lines[0] - 3.0, -sum(lines) - 6.0]
    for text, y in zip(steps, tops, strict=True):
        _box(axes, 2.4, y, text, "center")
    for text, upper, lower in zip(leaving, tops, tops[1:], strict=False):
        middle = (upper + lower) / 2
        _box(axes, 4.9, middle, text, "left")
        axes.annotate("", (2.4, lower + 1), (2.4, upper - 1), arrowprops={"arrowstyle": "->"})
        axes.annotate("", (4.8, middle), (2.4, middle), arrowprops={"arrowstyle": "->"})
    unlabelled = f",\n{flow['unlabelled']:,} without a label" if flow.get("unlabelled") else ""
    ends = (
        f"{_films(flow['with_mask'])} with a mask\n"
        f"{_films(flow['prepared'] - flow['with_mask'])} without\n"
        f"(of these {flow['report_without_mask']:,} positive by report{unlabelled})"
    )
    _box(axes, 4.9, tops[-1], ends, "left")
    axes.annotate("", (4.8, tops[-1]), (3.7, tops[-1]), arrowprops={"arrowstyle": "->"})
    with whole_file(path) as temporary:
        # Without `Software`, or matplotlib's version would be in the bytes.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _films(count: int) -> str:
    return f"{count:,} film" + ("" if count == 1 else "s")


def _box(axes: Any, x: float, y: float, text: str, align: str) -> None:
    text = text.encode("latin-1", "ignore").decode("latin-1")  # the font has no Chinese column names
    box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": "black"}
    axes.text(x, y, text, ha=align, va="center", fontsize=9, bbox=box)
