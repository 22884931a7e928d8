"""From the result files of inference to the printed and written metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from common.command_line import ReportOptions
from common.files import digest, read_json, write_csv, write_json
from common.inference.result_files import Result, read_results
from common.paths import result_folder, shown, workspace
from common.removal import Written, refuse_foreign
from common.report.cohort_table import NAME as COHORT
from common.report.estimates import line_text, p_text
from common.report.imrmc_file import refuse_foreign_imrmc, remove_earlier_imrmc, write_imrmc
from common.report.looks import note_look
from common.report.page import PLOTS, write_report
from common.report.thresholds_kept import tested_thresholds, threshold_sentences
from common.stages import BOOTSTRAP_COMMAND, SYSTEMS, TESTING_FOLDER
from common.statistics.bootstrap import RESAMPLING, bootstrap, metric_rows
from common.statistics.compare_systems import FAMILY, PAIR, comparison_rows
from common.statistics.group_differences import MINUS, group_difference_rows
from common.statistics.human_readers import AID, CALL, Reading, read_readers, reader_rows
from common.statistics.intervals import CONFIDENCE, EXPANDED, MIN_FILMS, MIN_PATIENTS
from common.statistics.metric_catalogue import METRICS
from common.statistics.metrics import DECISIONS, OF_CLEAR, REFERENCES
from common.statistics.peers import Peer, peer_rows
from common.statistics.plan import Plan, plan_sentences, read_plan, verdicts
from common.statistics.reader_means import AIDED_READERS, READERS, mean_rows
from common.statistics.strata import SIZE_EDGES, STRATA
from common.statistics.tested_films import CLEAR, Cases

METRIC_COLUMNS = (
    "system",
    "reference",
    "decision",
    "stratum",
    "metric",
    "n",
    "positives",
    "estimate",
    "ci_low",
    "ci_high",
    "interval",
    "note",
    "p_value",
    "p_holm",
    "test",
    "plan",
)
FILES = Written(
    (*(f"figures/{name}.svg" for name in PLOTS), "report.html", COHORT, "metrics.csv", "metrics.json"),
    {"metrics.csv": ",".join(METRIC_COLUMNS[:5]), "metrics.json": '"replicates"'},
)
_ROW_KEY = METRIC_COLUMNS[:5]
_FEW_REPLICATES = 1_000
_WIDTH = 100
_DEMO = "Preset demo: small networks and short runs, not the published recipe."
_TITLES = {
    "two_stage": "two-stage decision",
    "stage_1": "stage 1 alone (probability >= cls_threshold)",
    "mask": "reference: mask",
    "report": "reference: radiology report",
    CLEAR: "reference: mask, or clear by report",
}
# Metrics of the main tables; three a line keep a table within 100 columns.
_LINES = (
    ("auroc", "sensitivity", "specificity"),
    ("auprc", "ppv", "npv"),
    ("dice_segmentation", "dice_positives", "dice_true_positives"),
)
_OF_GROUPS = ("auroc", "sensitivity", "specificity", "dice_positives")
_OF_READERS = ("sensitivity", "specificity", "auroc")
_OF_PEERS = (("auroc", "auprc", "dice_segmentation"), ("sensitivity", "specificity", "dice_positives"))


def _main() -> list[str]:
    """Metrics of the main tables."""
    return [metric for line in _LINES for metric in line]


def _counts() -> list[str]:
    """Metrics of the tables of counts."""
    return [metric for metric, declared in METRICS.items() if declared.kind == "count"]


def _further() -> list[str]:
    """Metrics that are in no other table."""
    return [metric for metric in METRICS if metric not in (*_main(), *_counts())]


def _titles(metrics: Iterable[str], more: Sequence[str] = ()) -> str:
    """Titles in a sentence: `AUROC, Sensitivity and PPV`."""
    *first, last = [*(METRICS[metric].short_title for metric in metrics), *more]
    return f"{', '.join(first)} and {last}"


# --- writing ---------------------------------------------------------------------------------------


def cohort(result: Result) -> dict[str, int]:
    """How many films, patients and positives there are, and films without a label beside them."""
    return {**result.cases.cohort(), "without_a_label": len(result.unlabelled)}


def write_metrics(
    results: Mapping[str, Result],
    peers: Mapping[str, Peer],
    rows: Sequence[dict[str, Any]],
    options: ReportOptions,
    planned: Planned,
) -> tuple[Path, Path]:
    """Write metrics.csv (the tidy table) and metrics.json (the same and where it comes from).

    The same inputs and seed give the same bytes.
    """
    folder = workspace() / TESTING_FOLDER
    csv_path, json_path = folder / "metrics.csv", folder / "metrics.json"
    kept = (
        "cases_sha256",
        "cls_threshold",
        "seg_threshold",
        "image_size",
        "nsd_tolerance_mm",
        "nsd_tolerance_px",
        "films",
        "weights",
        "preset",
    )
    written = [row | {"plan": planned.told} for row in rows]
    write_csv(csv_path, METRIC_COLUMNS, written)
    write_json(
        json_path,
        {
            "replicates": options.replicates,
            "seed": options.seed,
            "confidence": CONFIDENCE,
            "interval": options.interval,
            "resampling": RESAMPLING,
            "prevalence": options.prevalence,
            "plan": planned.plan and {"sha256": planned.plan.sha256, "written": str(planned.plan.written)},
            "planned": planned.sentences,
            "fewest_for_an_interval": {"films": MIN_FILMS, "patients": MIN_PATIENTS},
            "size_edges": list(SIZE_EDGES),
            "cohort": cohort(next(iter(results.values()))),
            "systems": {
                system: {key: result.meta[key] for key in kept if key in result.meta}
                for system, result in results.items()
            },
            "peers": {name: {"decides": peer.decides, "maps": peer.maps} for name, peer in peers.items()},
            "rows": written,
        },
    )
    return csv_path, json_path


# --- printing --------------------------------------------------------------------------------------


def print_report(
    console: Console,
    results: Mapping[str, Result],
    rows: Sequence[dict[str, Any]],
    options: ReportOptions,
    planned: Planned,
    peers: Sequence[str] = (),
) -> None:
    """Print the primary tables and, with `options.all`, every other table and what there is to say of it."""
    found = {tuple(row[key] for key in _ROW_KEY): row for row in rows}
    if not options.all:
        _print_primary(console, results, found, options, planned)
        _print_pair(console, rows)
        _print_readers(console, rows)
        _print_peers(console, rows, peers)
        console.print()
        console.print(
            "The other reference, stage 1 alone, groups, calibration and all further metrics: "
            "python bootstrap.py --all, report.html, metrics.csv"
        )
        return
    for line in _header(next(iter(results.values())), options):
        console.print(line)
    for sentence in planned.sentences:
        console.print(sentence)
    for system, result in results.items():
        console.print()
        console.rule(f"System {system}", align="left", characters="=")
        meta = result.meta
        console.print(
            f"cls_threshold {meta['cls_threshold']:.6g}; seg_threshold {meta['seg_threshold']:g} pixels "
            f"at {meta['image_size']} x {meta['image_size']}"
        )
        chosen = tested_thresholds(system, result)
        for sentence in threshold_sentences(rows, system, meta["cls_threshold"], chosen):
            console.print(sentence)
        console.print(
            f"NSD: share of both outlines within {meta['nsd_tolerance_mm']:g} mm "
            f"({meta['nsd_tolerance_px']:g} pixels where the spacing is unknown) of the other. Outlines made "
            "of rectangles are blocky: read HD95 and NSD of such masks with caution."
        )
        if meta["preset"] == "demo":
            console.print(_DEMO)
        for reference in REFERENCES:
            for decision in DECISIONS:
                _print_block(console, found, result, (system, reference, decision))
            _print_further(console, found, system, reference)
        if any(key[:2] == (system, CLEAR) for key in found):
            for decision in DECISIONS:
                _print_block(console, found, result, (system, CLEAR, decision))
        _print_groups(console, found, system)
    _print_pair(console, rows)
    _print_readers(console, rows)
    _print_peers(console, rows, peers)


def _print_primary(
    console: Console,
    results: Mapping[str, Result],
    found: Mapping[tuple, dict[str, Any]],
    options: ReportOptions,
    planned: Planned,
) -> None:
    """The primary table of each system, and what nobody may miss beside it."""
    first = next(iter(results.values()))
    counts = cohort(first)
    console.print(
        f"{counts['films']} test films of {counts['patients']} patients; positive by mask: "
        f"{counts['positive_by_mask']}. Each metric: estimate ({CONFIDENCE:.0%} interval of patients) "
        "n = films."
    )
    for line in (*_cautions(options), *planned.sentences):
        console.print(line)
    for system, result in results.items():
        block = (system, REFERENCES[0], DECISIONS[0])
        rows = _of_block(found, block)
        console.print()
        console.print(_title(block), style="bold")
        console.print(_reference_note(REFERENCES[0], counts))
        console.print(_stratum_table(rows, _LINES[0]))
        for metric in _LINES[2]:
            console.print(f"{METRICS[metric].short_title}: {line_text(rows['all', metric])}")
        for sentence in threshold_sentences(
            list(found.values()), system, result.meta["cls_threshold"], tested_thresholds(system, result)
        ):
            if sentence.startswith("Warning"):
                console.print(sentence)
        if result.meta["preset"] == "demo":
            console.print(_DEMO)


def _cautions(options: ReportOptions) -> list[str]:
    if options.replicates >= _FEW_REPLICATES:
        return []
    return [
        f"CAUTION: {options.replicates} replicates are too few to report; "
        f"the default is {ReportOptions.replicates:,}."
    ]


def _title(block: tuple[str, str, str]) -> str:
    system, reference, decision = block
    primary = " (primary)" if (reference, decision) == (REFERENCES[0], DECISIONS[0]) else ""
    return f"{system} | {_TITLES[reference]} | {_TITLES[decision]}{primary}"


def _stratum_table(rows: Mapping[tuple[str, str], dict[str, Any]], metrics: Sequence[str]) -> Table:
    table = _table((METRICS[metric].short_title for metric in metrics), justify="left")
    for stratum in STRATA:
        table.add_row(stratum, *(line_text(rows[stratum, metric]) for metric in metrics))
    return table


def _header(result: Result, options: ReportOptions) -> list[str]:
    counts = cohort(result)
    one_film_each = counts["patients"] == counts["films"]
    patients = (
        "every patient has one film" if one_film_each else "films of one patient are resampled together"
    )
    kind = {"percentile": "percentile", "bca": "bias-corrected and accelerated"}[options.interval]
    low, high = SIZE_EDGES
    known = {name: metric for name, metric in METRICS.items() if metric.known(result.cases)}
    proportions = (name for name, metric in known.items() if metric.kind == "proportion")
    lines = [
        f"{counts['films']} test films of {counts['patients']} patients ({patients}).",
        f"Positive by mask: {counts['positive_by_mask']}; "
        f"by radiology report: {counts['positive_by_report']}, "
        f"of which {counts['positive_by_report_without_mask']} without a mask; "
        f"mask but negative by report: {counts['mask_but_negative_by_report']}.",
        f"Each metric: estimate on the full sample ({CONFIDENCE:.0%} interval) n = films that it is over, "
        "where both classes count positives+negatives.",
        f"Intervals: {kind} bootstrap of patients in two strata (with a positive film, without), "
        f"{options.replicates} replicates, seed {options.seed}; {EXPANDED}.",
        f"{_titles(proportions)} have Wilson's interval"
        + ("." if one_film_each else ", for as many films as independent ones would tell as much."),
        "AUROCs have DeLong's interval by patients, towards 0.5 no nearer than Newcombe's method 5; their "
        "differences DeLong's.",
        "Where no resample differs, others have Wilson's at 0 and 1, and else none: none is without width.",
        f"Too few: below {MIN_FILMS} films or {MIN_PATIENTS} patients, of either class where both count.",
        f"{_titles((m for m in _main() if METRICS[m].case_mix), ['metrics with *'])} are conditional on the "
        "case mix, the prevalence of these films.",
        f"Size is lesion area over film area: small < {low:.3f} <= medium < {high:.3f} <= large; each size "
        "against all negatives.",
        "Dice: only films with a mask enter; map and mask both empty would be 1, one of them empty is 0.",
        "Dice, segmentation: whatever the decision; positives: a missed film is 0; true positives: only "
        "films called positive.",
        f"{_titles(m for m in _main() if not METRICS[m].by_decision)} do not depend on the decision and are "
        "repeated.",
    ]
    if result.unlabelled:
        lines.insert(1, f"{len(result.unlabelled)} more have no label and count in no metric.")
    if options.prevalence is not None:
        lines.append(f"Stated prevalence: {options.prevalence:g}.")
    return lines + _cautions(options)


def _of_block(
    found: Mapping[tuple, dict[str, Any]], block: tuple[str, str, str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a system, reference and decision, by stratum and metric."""
    return {(key[3], key[4]): row for key, row in found.items() if key[:3] == block}


def _print_block(
    console: Console, found: Mapping[tuple, dict[str, Any]], result: Result, block: tuple[str, str, str]
) -> None:
    rows = _of_block(found, block)
    console.print()
    console.print(_title(block), style="bold")
    console.print(_reference_note(block[1], cohort(result)))
    for line in _LINES:
        if not all(("all", metric) in rows for metric in line):
            continue
        console.print(_stratum_table(rows, line))
        console.print()
    table = _table((METRICS[metric].short_title for metric in _counts()), justify="right")
    for stratum in STRATA:
        table.add_row(stratum, *(str(rows[stratum, name]["estimate"]) for name in _counts()))
    console.print(table)


def _print_further(
    console: Console, found: Mapping[tuple, dict[str, Any]], system: str, reference: str
) -> None:
    """The metrics that are in no other table, of all films, a column a decision."""
    console.print()
    console.print(f"{system} | {_TITLES[reference]} | further metrics, all films", style="bold")
    table = Table("metric", *DECISIONS, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for metric in _further():
        rows = [found.get((system, reference, decision, "all", metric), {}) for decision in DECISIONS]
        if all(row and row["n"] for row in rows):
            mark = " *" if METRICS[metric].case_mix else ""
            table.add_row(METRICS[metric].short_title + mark, *(line_text(row) for row in rows))
    console.print(table)


def _print_groups(console: Console, found: Mapping[tuple, dict[str, Any]], system: str) -> None:
    """The main metrics of each group, against the primary reference with the primary decision."""
    block = (system, REFERENCES[0], DECISIONS[0])
    of_block = _of_block(found, block)
    strata = dict.fromkeys(stratum for stratum, _ in of_block)
    groups = [stratum for stratum in strata if stratum not in STRATA and MINUS not in stratum]
    if not groups:
        return
    console.print()
    console.print(f"{system} | {_TITLES[block[1]]} | {_TITLES[block[2]]} | groups", style="bold")
    table = Table("group", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("pos", "neg"):
        table.add_column(column, justify="right")
    for metric in _OF_GROUPS:
        table.add_column(METRICS[metric].short_title, no_wrap=True)
    for group in groups:
        rows = [of_block[group, metric] for metric in _OF_GROUPS]
        positives, negatives = (of_block[group, name]["n"] for name in ("sensitivity", "specificity"))
        # The counts have columns of their own.
        texts = (line_text(row, digits=2, with_n=False) for row in rows)
        table.add_row(group, str(positives), str(negatives), *texts)
    console.print(table)
    adjusted = [
        row["p_holm"]
        for (stratum, _), row in of_block.items()
        if MINUS in stratum and row["p_holm"] is not None
    ]
    if adjusted:
        console.print(
            f"Each group minus the largest of its kind: {len(adjusted)} comparisons, exploratory, in "
            f"metrics.csv; smallest p (Holm) {p_text(min(adjusted))}."
        )


def _print_pair(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The primary comparisons: one system minus the other on the same films."""
    family = [row for row in rows if row["system"] == PAIR and row["p_holm"] is not None]
    if not family:
        return
    console.print()
    title = f"{' minus '.join(SYSTEMS)} | {_TITLES[REFERENCES[0]]} | {_TITLES[DECISIONS[0]]}"
    console.rule(title, align="left", characters="=")
    table = _table(("difference", "p", "p (Holm)", "test"), justify="left", first="metric")
    for row in family:
        p_values = (p_text(row["p_value"]), p_text(row["p_holm"]))
        table.add_row(METRICS[row["metric"]].short_title, line_text(row), *p_values, row["test"])
    console.print(table)
    console.print(
        f"Holm's adjustment is over the {len(FAMILY)} primary comparisons, tested or not; metrics.csv has "
        "all others, unadjusted."
    )


def _print_readers(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Human readers and their mean on the films they read, against the primary reference."""
    of_all = [row for row in rows if (row["reference"], row["stratum"]) == (REFERENCES[0], "all")]
    read = [row for row in of_all if row["decision"] == CALL]
    if not read:
        return
    console.print()
    console.rule("Readers, reference: mask", align="left", characters="=")
    metrics = [metric for metric in _OF_READERS if any(row["metric"] == metric for row in read)]
    table = _table((METRICS[metric].short_title for metric in metrics), justify="left", first="reader")
    for reader in dict.fromkeys(row["system"] for row in read):
        of_reader = {row["metric"]: row for row in read if row["system"] == reader}
        cells = (of_reader.get(metric) for metric in metrics)
        name = {READERS: "mean", AIDED_READERS: "mean, aided"}.get(reader, reader)
        table.add_row(name, *(line_text(row) if row else "" for row in cells))
    console.print(table)
    _print_of_mean(console, of_all)
    console.print("Each system against each reader, and each reader with aid against without: metrics.csv.")


def _print_of_mean(console: Console, of_all: Sequence[Mapping[str, Any]]) -> None:
    """What is compared with the mean of the readers."""
    compared = [
        row
        for row in of_all
        if row["system"].endswith(f"-{READERS}") and row["decision"] in (DECISIONS[0], AID)
    ]
    if not compared:
        return
    console.print()
    table = _table(("metric", "difference", "p", "p (Holm)"), justify="left", first="mean of the readers")
    for row in compared:
        name = row["system"].replace("-", " - ")
        p_values = p_text(row["p_value"]), p_text(row["p_holm"])
        table.add_row(name, METRICS[row["metric"]].short_title, line_text(row), *p_values)
    console.print(table)
    console.print("Intervals are for other readers and other patients (Obuchowski and Rockette).")


def _print_peers(console: Console, rows: Sequence[Mapping[str, Any]], peers: Sequence[str]) -> None:
    """Systems of others over all films against the primary reference, and ours minus each of them."""
    if not peers:
        return
    place = (REFERENCES[0], DECISIONS[0], "all")
    of_all = [row for row in rows if (row["reference"], row["decision"], row["stratum"]) == place]
    found = {(row["system"], row["metric"]): row for row in of_all}
    console.print()
    console.rule("Peers, reference: mask", align="left", characters="=")
    for line in _OF_PEERS:
        metrics = [metric for metric in line if any((peer, metric) in found for peer in peers)]
        if not metrics:
            continue
        table = _table((METRICS[metric].short_title for metric in metrics), justify="left", first="peer")
        for peer in peers:
            cells = (found.get((peer, metric)) for metric in metrics)
            table.add_row(peer, *(line_text(row) if row else "" for row in cells))
        console.print(table)
        console.print()
    table = _table(("metric", "difference", "p"), justify="left", first="system - peer")
    for (name, metric), row in found.items():
        system, _, other = name.partition("-")
        if other in peers and any(metric in line for line in _OF_PEERS):
            p = p_text(row["p_value"])
            table.add_row(f"{system} - {other}", METRICS[metric].short_title, line_text(row), p)
    console.print(table)
    console.print("Outside the primary comparisons: p-values of peers are not adjusted.")


def _table(columns: Iterable[str], justify: Literal["left", "right"], first: str = "stratum") -> Table:
    table = Table(first, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify=justify)
    return table


def _reference_note(reference: str, counts: Mapping[str, int]) -> str:
    without = counts["positive_by_report_without_mask"]
    if reference == CLEAR:
        return f"Positive by report without a mask, so left out here: {without}."
    if reference == "mask":
        return f"Positive by report without a mask, so negative here: {without}."
    return (
        f"Positive by report without a mask, so in stratum all only: {without}; "
        f"mask but negative by report, so negative here: {counts['mask_but_negative_by_report']}."
    )


# --- the command -----------------------------------------------------------------------------------


def report(options: ReportOptions) -> None:
    """Read the result files, print the tables, write metrics.csv, metrics.json and report.html.

    Raises:
        Refusal: A plan that is none, result files that cannot be trusted, or files in the way that were not
            written by this script.
    """
    plan = read_plan(options.plan) if options.plan else None
    if plan:
        options = replace(options, prevalence=plan.prevalence_with(options.prevalence))
    refuse_foreign(workspace() / TESTING_FOLDER, FILES)
    if options.readers:
        refuse_foreign_imrmc()
    results = read_results(tuple(dict.fromkeys(options.system)))  # a system that is named twice is read once
    systems = {system: result.cases for system, result in results.items()}
    films = next(iter(systems.values()))
    readers = read_readers(options.readers, films) if options.readers else {}
    peers = _read_peers(options, next(iter(results.values())))
    rows, of_peers = table_rows(systems, readers, peers, options)
    planned = Planned.of(plan, rows, note_look(results, plan))  # no plan speaks of peers
    rows += of_peers
    # Written first: a reader that closes the pipe early (`| head`) must not cost the files.
    written = [*write_metrics(results, peers, rows, options, planned)]
    if readers:
        written.append(write_imrmc(films, readers))
    else:
        remove_earlier_imrmc()
    page, *_, described = write_report(
        results, rows, options.replicates, options.seed, planned.sentences, tuple(peers)
    )
    console = _console()
    print_report(console, results, rows, options, planned, tuple(peers))
    names = ", ".join(path.name for path in (*written, described, page))
    console.print(f"\nwritten: {names}\nin {shown(page.parent)}", soft_wrap=True)  # a path stays whole


def is_reported(options: ReportOptions) -> bool:
    """Whether the metrics that are there are of the present results, with the numbers that are asked for.

    Metrics with readers or peers, or by a plan, are made again, whatever is there: it takes a minute.
    """
    folder = workspace() / TESTING_FOLDER
    lacking = [
        name for name in ("metrics.json", "metrics.csv", "report.html") if not (folder / name).is_file()
    ]
    if lacking or options.readers or options.peer or options.plan:
        return False
    content = read_json(folder / "metrics.json", BOOTSTRAP_COMMAND)
    found = {system: facts.get("cases_sha256") for system, facts in content.get("systems", {}).items()}
    try:
        cases = {s: digest((result_folder(s) / "cases.csv").read_bytes()) for s in options.system}
    except OSError:
        return False
    numbers = ("replicates", "seed", "interval", "prevalence")
    same = all(content.get(name) == getattr(options, name) for name in numbers)
    return same and found == cases and content.get("plan") is None and not content.get("peers")


def _read_peers(options: ReportOptions, result: Result) -> dict[str, Peer]:
    if not options.peer:
        return {}
    from common.inference.peer_files import read_peer  # pandas, which takes a second, only where it is needed

    return {name: read_peer(name, folder, result) for name, folder in options.peers.items()}


@dataclass(frozen=True)
class Planned:
    """The plan of the test, and what every output says of it.

    Attributes:
        plan: The plan; None without one.
        sentences: What is said of it, of the looks at the test films, and its verdicts.
        told: What each row of metrics.csv says of it, and of a change after the first look.
    """

    plan: Plan | None
    sentences: list[str]
    told: str | None = None

    @classmethod
    def of(cls, plan: Plan | None, rows: Sequence[dict[str, Any]], looks: Sequence[str]) -> Planned:
        """With the verdicts of these rows; the notes of the primary ones name the plan from now on."""
        if plan is None:
            return cls(None, list(looks))
        for row in rows:
            key = row["reference"], row["decision"], row["stratum"]
            if row["metric"] in plan.primary and key == ("mask", "two_stage", "all"):
                row["note"] = "; ".join(filter(None, (row["note"], f"primary by the {plan.name}")))
        changed = any(each.startswith("Warning:") for each in looks)
        told = f"{plan.name}{'; changed after the first look' if changed else ''}"
        return cls(plan, [*plan_sentences(plan), *looks, *verdicts(plan, rows)], told)


def table_rows(
    systems: Mapping[str, Cases],
    readers: Mapping[str, Reading],
    peers: Mapping[str, Peer],
    options: ReportOptions,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Everything that metrics.csv holds: the systems' metrics, differences and readers; and the peers'."""
    found = {
        reference: bootstrap(
            systems, reference, options.replicates, options.seed, options.interval, options.prevalence
        )
        for reference in REFERENCES
    }
    if not all(cases.counted(CLEAR).all() for cases in systems.values()):  # else it is `mask`
        found[CLEAR] = bootstrap(
            systems,
            CLEAR,
            options.replicates,
            options.seed,
            options.interval,
            metrics=OF_CLEAR,
        )
    untested = {"p_value": None, "p_holm": None, "test": None}
    rows = [row | untested for row in metric_rows(found, options.interval, options.prevalence)]
    for reference, of_reference in found.items():
        rows += comparison_rows(systems, of_reference, reference)
    rows += group_difference_rows(found[REFERENCES[0]], REFERENCES[0])
    rows += mean_rows(systems, readers)
    rows += reader_rows(systems, readers, options.replicates, options.seed)
    return rows, [row for peer in peers.values() for row in peer_rows(systems, peer, found, options)]


def _console() -> Console:
    """The terminal; to a file or a pipe, plain text of 100 columns."""
    # Names of readers and devices are printed as they are: `[red]` in one is no markup.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console
