"""From the result files of inference to the printed and written figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from common.artefacts import SYSTEMS, TESTING_FOLDER, shown, workspace, write_csv, write_json
from common.evaluation.bootstrap import CONFIDENCE, METHOD, metric_rows
from common.evaluation.cases import Cases
from common.evaluation.metrics import CONFUSION, DECISIONS, REFERENCES, SIZE_EDGES, STRATA
from common.evaluation.results import Result, read_results
from common.refusal import Refusal

METRIC_COLUMNS = (
    "system",
    "reference",
    "decision",
    "stratum",
    "metric",
    "n",
    "estimate",
    "ci_low",
    "ci_high",
)
# Below this many replicates the 2.5% tails hold less than one of them.
_FEWEST_REPLICATES = 40
_WIDTH = 100
_NOT_ESTIMABLE = "not estimable"
_TITLES = {
    "two_stage": "two-stage decision",
    "stage_1": "stage 1 alone (probability >= cls_threshold)",
    "mask": "reference: mask",
    "report": "reference: radiology report",
}
# Three figures a line keep a table within 100 columns.
_LINES = (
    {"auroc": "AUROC", "sensitivity": "Sensitivity", "specificity": "Specificity"},
    {"auprc": "AUPRC", "ppv": "PPV", "npv": "NPV"},
    {
        "dice_segmentation": "Dice, segmentation",
        "dice_positives": "Dice, positives",
        "dice_true_positives": "Dice, true positives",
    },
)


# --- writing ---------------------------------------------------------------------------------------


def cohort(cases: Cases) -> dict[str, int]:
    """How many films, patients and positives there are."""
    return {
        "films": len(cases),
        "patients": len(set(cases.patient.tolist())),
        "positive_by_mask": int(cases.has_mask.sum()),
        "positive_by_report": int(cases.report.sum()),
        "positive_by_report_without_mask": int((cases.report & ~cases.has_mask).sum()),
        "mask_but_negative_by_report": int((cases.has_mask & ~cases.report).sum()),
    }


def write_metrics(
    results: Mapping[str, Result], rows: Sequence[dict[str, Any]], replicates: int, seed: int
) -> tuple[Path, Path]:
    """Write metrics.csv (the tidy table) and metrics.json (the same and where it comes from).

    The same inputs and seed give the same bytes.
    """
    folder = workspace() / TESTING_FOLDER
    table, record = folder / "metrics.csv", folder / "metrics.json"
    kept = ("cases_sha256", "cls_threshold", "seg_threshold", "image_size", "films", "weights", "preset")
    write_csv(table, METRIC_COLUMNS, rows)
    write_json(
        record,
        {
            "replicates": replicates,
            "seed": seed,
            "confidence": CONFIDENCE,
            "method": METHOD,
            "size_edges": list(SIZE_EDGES),
            "cohort": cohort(next(iter(results.values())).cases),
            "systems": {
                system: {key: result.meta[key] for key in kept if key in result.meta}
                for system, result in results.items()
            },
            "rows": list(rows),
        },
    )
    return table, record


# --- printing --------------------------------------------------------------------------------------


def figure_text(row: Mapping[str, Any]) -> str:
    """`0.953 (0.921-0.978) n=308`, or what of it can be estimated."""
    if row["estimate"] is None:
        return f"{_NOT_ESTIMABLE} n={row['n']}"
    interval = _NOT_ESTIMABLE if row["ci_low"] is None else f"{row['ci_low']:.3f}-{row['ci_high']:.3f}"
    return f"{row['estimate']:.3f} ({interval}) n={row['n']}"


def print_report(
    console: Console,
    results: Mapping[str, Result],
    rows: Sequence[dict[str, Any]],
    replicates: int,
    seed: int,
) -> None:
    """Print the header and, for each system, the tables of each reference and decision."""
    for line in _header(next(iter(results.values())).cases, replicates, seed):
        console.print(line)
    found = {tuple(row[key] for key in METRIC_COLUMNS[:5]): row for row in rows}
    for system, result in results.items():
        console.print()
        console.rule(f"System {system}", align="left", characters="=")
        meta = result.meta
        console.print(
            f"cls_threshold {meta['cls_threshold']:.6g}; seg_threshold {meta['seg_threshold']:g} pixels "
            f"at {meta['image_size']} x {meta['image_size']}"
        )
        if meta["preset"] == "demo":
            console.print("Preset demo: small networks and short runs, not the published recipe.")
        for reference in REFERENCES:
            for decision in DECISIONS:
                _print_block(console, found, result.cases, (system, reference, decision))


def _header(cases: Cases, replicates: int, seed: int) -> list[str]:
    counts = cohort(cases)
    patients = (
        "every patient has one film"
        if counts["patients"] == counts["films"]
        else "films of one patient are resampled together"
    )
    low, high = SIZE_EDGES
    return [
        f"{counts['films']} test films of {counts['patients']} patients ({patients}).",
        f"Positive by mask: {counts['positive_by_mask']}; "
        f"by radiology report: {counts['positive_by_report']}, "
        f"of which {counts['positive_by_report_without_mask']} without a mask; "
        f"mask but negative by report: {counts['mask_but_negative_by_report']}.",
        f"Each figure: estimate on the full sample ({CONFIDENCE:.0%} interval) n = films that it is over.",
        f"Intervals: percentile bootstrap of patients in two strata (with a positive film, without), "
        f"{replicates} replicates, seed {seed}.",
        "So PPV, NPV and AUPRC, and their intervals, are for the prevalence of these films.",
        "An estimate of exactly 0 or 1 gets an interval without width: read its n.",
        f"Size is lesion area over film area: small < {low:.3f} <= medium < {high:.3f} <= large; each size "
        "against all negatives.",
        "Dice: only films with a mask enter; map and mask both empty would be 1, one of them empty is 0.",
        "Dice, segmentation: whatever the decision; positives: a missed film is 0; true positives: only "
        "films called positive.",
        "AUROC, AUPRC and Dice, segmentation do not depend on the decision and are repeated.",
    ]


def _print_block(
    console: Console, found: Mapping[tuple, dict[str, Any]], cases: Cases, block: tuple[str, str, str]
) -> None:
    system, reference, decision = block
    primary = " (primary)" if (reference, decision) == (REFERENCES[0], DECISIONS[0]) else ""
    console.print()
    console.print(f"{system} | {_TITLES[reference]} | {_TITLES[decision]}{primary}", style="bold")
    console.print(_reference_note(reference, cohort(cases)))
    for line in _LINES:
        table = _table(line.values(), justify="left")
        for stratum in STRATA:
            table.add_row(stratum, *(figure_text(found[(*block, stratum, metric)]) for metric in line))
        console.print(table)
        console.print()
    table = _table((name.upper() for name in CONFUSION), justify="right")
    for stratum in STRATA:
        table.add_row(stratum, *(str(found[(*block, stratum, name)]["estimate"]) for name in CONFUSION))
    console.print(table)


def _table(columns: Iterable[str], justify: Literal["left", "right"]) -> Table:
    table = Table("stratum", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify=justify)
    return table


def _reference_note(reference: str, counts: Mapping[str, int]) -> str:
    without = counts["positive_by_report_without_mask"]
    if reference == "mask":
        return f"Positive by report without a mask, so negative here: {without}."
    return (
        f"Positive by report without a mask, so in stratum all only: {without}; "
        f"mask but negative by report, so negative here: {counts['mask_but_negative_by_report']}."
    )


# --- the command -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Figures of the test results, with 95% bootstrap intervals."""

    replicates: int = 10_000
    """Resamples behind each interval."""
    seed: int = 0
    """Of the resampling; the same seed gives the same bytes."""
    system: tuple[Literal["eff", "vit"], ...] = SYSTEMS
    """Systems to report, in this order; metrics.csv then holds these only."""


def main(description: str, arguments: Sequence[str] | None = None) -> None:
    """Read the result files, print the tables, write metrics.csv and metrics.json.

    Args:
        description: The script's docstring, shown by `--help`.
        arguments: Of the command line; None: the script's own.

    Raises:
        Refusal: An option that gives no interval, or result files that cannot be trusted.
    """
    options = tyro.cli(Options, args=arguments, description=description)
    if options.replicates < _FEWEST_REPLICATES:
        raise Refusal(
            f"--replicates {options.replicates} is too few for a {CONFIDENCE:.0%} interval",
            do=f"use at least {_FEWEST_REPLICATES}; the default is {Options.replicates}",
        )
    if options.seed < 0:
        raise Refusal(f"--seed {options.seed} is negative", do="use 0 or more")
    systems = tuple(dict.fromkeys(options.system))
    if not systems:
        raise Refusal("--system names no system", do=f"use --system {' '.join(SYSTEMS)}")
    results = read_results(systems)
    rows = metric_rows({s: r.cases for s, r in results.items()}, options.replicates, options.seed)
    # Written first: a reader that closes the pipe early (`| head`) must not cost the files.
    written = write_metrics(results, rows, options.replicates, options.seed)
    console = _console()
    print_report(console, results, rows, options.replicates, options.seed)
    console.print(f"\nwritten: {', '.join(shown(path) for path in written)}")


def _console() -> Console:
    """The terminal; to a file or a pipe, plain text of 100 columns."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console
