"""The report of the test results as one page that opens offline: `report.html`, and its figures as SVG.

Everything on the page is from the result files, the metric rows and the thresholds files. No host, path, user
or clock is on it: the same inputs and packages give the same bytes. Text from films and files is escaped by
the template engine, and the page's own policy forbids scripts and everything from outside.
"""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common import __version__
from common.files import read_json, whole_file
from common.inference.result_files import Result
from common.paths import result_folder, workspace
from common.report import plots
from common.report.claim_checklist import Known, checklist
from common.report.cohort_table import GROUPS, Cohort, cohort_entries, cohort_lines, write_cohort
from common.report.estimates import Row, estimate_text, films_text, number, p_text
from common.report.shown_films import shown_films, telling_films, worst_films
from common.report.tables import Table, table, tables
from common.report.thresholds_kept import tested_thresholds, threshold_sentences
from common.stages import INFERENCE_COMMAND, N_FOLDS, STUDENTS, TESTING_FOLDER
from common.statistics.calibration_curve import smooth_calibration
from common.statistics.compare_systems import FAMILY
from common.statistics.curves import calibration, froc, net_benefit, precision_recall, roc
from common.statistics.group_differences import MINUS
from common.statistics.human_readers import CALL
from common.statistics.intervals import EXPANDED
from common.statistics.metric_catalogue import METRICS
from common.statistics.metrics import Ranks
from common.statistics.overlap import MAP_THRESHOLD
from common.statistics.strata import STRATA
from common.statistics.tested_films import Cases

BAND_REPLICATES = 500  # a band is looked at, not read to the third digit
PLOTS = (
    *("roc", "precision_recall", "calibration", "folds", "dice_by_size", "area_agreement", "froc"),
    "net_benefit",
)
_PACKAGES = (
    "numpy", "scipy", "scikit-learn", "pandas", "opencv-python-headless", "pillow", "matplotlib", "jinja2",
)  # fmt: skip
# What facts of meta.json and 5cv_avg.json are called; others keep their names.
_NAMES = {
    "system": "System",
    "cls_threshold": "Threshold of the probability",
    "seg_threshold": "Threshold of the area, pixels",
    "image_size": "Working size, pixels",
    "n_cases": "Films",
    "cases_sha256": "Tested cases (cases.csv)",
    "films": "Test films",
    "preset": "Recipe, based on",
    "precision": "Computed in",
    "weights": "",
    "ntuh_segmentation": "Network, segmentation, fold",
    "ntuh_classification": "Network, classification, fold",
    "student_segmentation": "Student, segmentation",
    "student_classification": "Student, classification",
    "teachers": "Teachers",
    "unlabelled": "Unlabelled films",
    "apart_from": "kept apart from the test films",
    "content": "Training films",
    "split": "Division into folds",
    "auc": "AUROC",
    "fpr": "1 - specificity",
    "tpr": "Sensitivity",
    "version": "Version of this project",
}
_LONGEST_LIST = 12  # of a file's facts: longer ones are counted, not printed
_PRIMARY = ("mask", "two_stage", "all")


def write_report(
    results: Mapping[str, Result],
    rows: Sequence[Row],
    replicates: int,
    seed: int,
    planned: Sequence[str] = (),
    peers: Sequence[str] = (),
) -> list[Path]:
    """Write report.html, figures/*.svg and cohort.csv beside the result folders.

    Args:
        results: Results by system, the films in the same order in all, as `read_results` gives them.
        rows: Tidy metric rows, with `system, reference, decision, stratum, metric, n, estimate, ci_low,
            ci_high` and, where there are any, `interval`, `note`, `p_value`, `p_holm`, `test`.
        replicates: Number of resamples behind the rows' intervals.
        seed: Seed of the resampling, for the rows and the curves' bands.
        planned: What is said of the plan of the test, a sentence each.
        peers: Names of the systems of others that have rows.

    Returns:
        What was written, report.html first.

    Raises:
        Refusal: flow.json or 5cv_avg.json is malformed, or the folder cannot be written.
    """
    folder = workspace() / TESTING_FOLDER
    drawn = draw_plots(results, rows, seed)
    cohort = cohort_entries(results)
    page = _page(results, rows, replicates, seed, drawn, planned, cohort, peers)
    contents = {folder / "report.html": page.encode()} | {
        folder / "figures" / f"{name}.svg": svg for name, svg in drawn.items()
    }
    for path, content in contents.items():
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    return [*contents, write_cohort(cohort)]


def _page(
    results: Mapping[str, Result],
    rows: Sequence[Row],
    replicates: int,
    seed: int,
    drawn: Mapping[str, bytes],
    planned: Sequence[str],
    cohort: Cohort,
    peers: Sequence[str],
) -> str:
    cases = {system: result.cases for system, result in results.items()}
    first = next(iter(cases.values()))
    flow = _flow(next(iter(results)))
    # What the films without a mask add is in cohort.csv.
    described = {key: each for key, each in cohort.items() if key[1] != "without_mask"}
    thresholds = {system: tested_thresholds(system, result) for system, result in results.items()}
    statistics = (
        f"Patients, with all their films, are resampled {replicates:,} times (seed {seed}), those with a "
        f"positive film and the others apart; {EXPANDED}; the interval of each metric is named in the tables."
    )
    known = Known(
        results=results,
        flow=flow,
        estimates={system: _estimates(rows, system) for system in results},
        metrics=list(dict.fromkeys(METRICS[row["metric"]].title for row in rows)),
        groups=[s for s in dict.fromkeys(row["stratum"] for row in rows) if s != "all" and MINUS not in s],
        statistics=statistics,
        out_of_fold={system: _threshold_text(found) for system, found in thresholds.items() if found},
        training_films=any(name == "training" for name, _ in described),
        planned=planned,
    )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        systems=list(results),
        students=[system for system in results if system in STUDENTS],
        unlabelled=max(map(_unlabelled, results.values())),
        demo=any(result.meta["preset"] == "demo" for result in results.values()),
        cohort=first.cohort(),
        flow=flow,
        outcomes={system: _outcomes(c) for system, c in cases.items()},
        cohort_sets=list(dict.fromkeys(name for name, _ in described)),
        cohort_groups=[GROUPS[group] for _, group in described],
        characteristics=cohort_lines(described),
        training_known=known.training_films,
        views=_views(first),
        statistics=statistics,
        planned=planned,
        glance=_glance(rows, list(results)),
        told_films=_told_films(results),
        peers=peers,
        tables=tables(rows, list(results), peers),
        kept={
            system: threshold_sentences(rows, system, result.meta["cls_threshold"], thresholds[system])
            for system, result in results.items()
        },
        shortcuts={system: _shortcuts(rows, system) for system in results},
        figures={name: _data_uri("image/svg+xml", svg) for name, svg in drawn.items()},
        band_replicates=BAND_REPLICATES,
        folds={system: _fold_text(_fold_aurocs(c)) for system, c in cases.items()},
        calibration={system: calibration(c, "mask") for system, c in cases.items()},
        films={system: _films(system, result) for system, result in results.items()},
        provenance=_provenance(results, replicates, seed),
        facts={system: list(_flat(result.meta)) for system, result in results.items()},
        thresholds={system: found and list(_flat(found)) for system, found in thresholds.items()},
        checklist=checklist(known),
        number=number,
        estimate_text=estimate_text,
        films_text=films_text,
        p_text=p_text,
        metrics=METRICS,
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _glance(rows: Sequence[Row], systems: Sequence[str]) -> Table:
    """The primary metrics alone, without differences, in the order in which they were chosen."""
    primary = [
        next((row for row in rows if row["system"] == system and _place(row) == place), None)
        for place in FAMILY
        for system in systems
    ]
    return table([row for row in primary if row is not None], systems, "primary metrics")


def _place(row: Row) -> tuple[str, ...]:
    return row["reference"], row["decision"], row["stratum"], row["metric"]


def _shortcuts(rows: Sequence[Row], system: str) -> list[str]:
    """What shortcuts say of a system's AUROC, a sentence each; none where no shortcut could be fitted."""
    found = {
        row["metric"]: row
        for row in rows
        if (row["system"], row["reference"], row["decision"], row["stratum"]) == (system, *_PRIMARY)
    }
    sentences = []
    for name, title in (("thumbnail", "the film at 24 x 24 pixels"), ("header", "facts of the header")):
        own, gain = found.get(f"auroc_{name}"), found.get(f"auroc_over_{name}")
        if own is None or gain is None or gain["estimate"] is None:
            continue
        if gain["ci_low"] is None:
            verdict = "whether the system is above it cannot be told from so few films"
        elif gain["ci_low"] > 0:
            verdict = f"the system is above it by {estimate_text(gain)}"
        else:
            verdict = (
                f"the system is not clearly above it ({estimate_text(gain)}): its AUROC does not show that "
                "it sees the pneumothorax"
            )
        sentences.append(f"From {title} alone, AUROC {estimate_text(own)}, n {films_text(own)}: {verdict}.")
    return sentences


# --- the films -------------------------------------------------------------------------------------


def _flow(system: str) -> dict[str, Any]:
    """flow.json of the test films; empty where inference left none."""
    path = result_folder(system) / "flow.json"
    return read_json(path, INFERENCE_COMMAND) if path.is_file() else {}


def _outcomes(cases: Cases) -> dict[str, int | str]:
    """The confusion counts of the two-stage decision under `mask`, and the films that get no answer."""
    positive, called, declined = cases.has_mask, cases.two_stage, cases.column("no_answer")
    return {
        "tp": int((positive & called).sum()),
        "fn": int((positive & ~called).sum()),
        "fp": int((~positive & called).sum()),
        "tn": int((~positive & ~called).sum()),
        "no_answer": "unknown" if np.isnan(declined).any() else int(declined.sum()),
    }


def _views(cases: Cases) -> str:
    """How many films have each view: `AP 30, PA 5, unknown 2`."""
    names, counts = np.unique(np.where(cases.view == "", "unknown", cases.view), return_counts=True)
    return ", ".join(f"{name} {count:,}" for name, count in zip(names.tolist(), counts.tolist(), strict=True))


def _films(system: str, result: Result) -> dict[str, list[dict[str, Any]]]:
    return {kind: _shown(system, result, chosen) for kind, chosen in worst_films(result.cases).items()}


def _told_films(results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
    """The films of the first screen, by kind: those of the first system, since four are enough."""
    system, result = next(iter(results.items()))
    chosen = telling_films(result.cases, result.meta["cls_threshold"])
    shown = _shown(system, result, np.array(list(chosen.values()), dtype=int))
    return dict(zip(chosen, shown, strict=True))


def _shown(system: str, result: Result, rows: np.ndarray) -> list[dict[str, Any]]:
    threshold = result.meta.get("map_threshold", MAP_THRESHOLD)
    return [
        {"case": f.case, "facts": f.facts, "picture": f.jpeg and _data_uri("image/jpeg", f.jpeg)}
        for f in shown_films(result.cases, rows, result_folder(system), threshold)
    ]


# --- the figures -----------------------------------------------------------------------------------


def draw_plots(results: Mapping[str, Result], rows: Sequence[Row], seed: int) -> dict[str, bytes]:
    """Every figure as SVG by its name in PLOTS; under the mask reference."""
    cases = {system: result.cases for system, result in results.items()}
    first = next(iter(cases.values()))
    found = {
        (row["system"], row["stratum"], row["metric"]): row
        for row in rows
        if (row["reference"], row["decision"]) == _PRIMARY[:2]
    }

    def told(system: str, metric: str) -> str:
        row = found.get((system, "all", metric))
        return "" if row is None else estimate_text(row)

    points = {s: {d: _operating_point(c, d) for d in ("stage_1", "two_stage")} for s, c in cases.items()}
    ensembles, means = {}, {}
    for system in cases:
        row = found.get((system, "all", "auroc"))
        ensembles[system] = None if row is None else _with_interval(row)
        means[system] = {
            stratum: found[system, stratum, "dice_segmentation"]["estimate"]
            for stratum in STRATA[1:]
            if (found.get((system, stratum, "dice_segmentation")) or {}).get("estimate") is not None
        }
    return {
        "roc": plots.roc_plot(
            {s: roc(c, "mask", BAND_REPLICATES, seed) for s, c in cases.items()},
            {s: {d: (1 - p[1], p[0]) for d, p in by.items()} for s, by in points.items()},
            told,
            _reader_points(rows),
        ),
        "precision_recall": plots.precision_recall_plot(
            {s: precision_recall(c, "mask", BAND_REPLICATES, seed) for s, c in cases.items()},
            {s: {d: (p[0], p[2]) for d, p in by.items()} for s, by in points.items()},
            told,
            float(first.has_mask.mean()),
        ),
        "calibration": plots.calibration_plot(
            {s: calibration(c, "mask") for s, c in cases.items()},
            {s: smooth_calibration(c, "mask") for s, c in cases.items()},
            cases,
            told,
        ),
        "folds": plots.folds_plot({s: _fold_aurocs(c) for s, c in cases.items()}, ensembles),
        "dice_by_size": plots.dice_by_size_plot(cases, means),
        "area_agreement": plots.area_agreement_plot(cases),
        "froc": plots.froc_plot({s: froc(c, BAND_REPLICATES, seed) for s, c in cases.items()}, told),
        "net_benefit": plots.net_benefit_plot(
            {s: net_benefit(c, "mask", BAND_REPLICATES, seed) for s, c in cases.items()},
            float(first.has_mask.mean()),
        ),
    }


def _operating_point(cases: Cases, decision: str) -> tuple[float, float, float]:
    """Sensitivity, specificity and positive predictive value under `mask`; NaN where undefined."""
    positive, called = cases.has_mask, cases.called(decision)

    def share(members: np.ndarray, of: np.ndarray) -> float:
        return float((members & of).sum() / of.sum()) if of.any() else math.nan

    return share(called, positive), share(~called, ~positive), share(positive, called)


def _reader_points(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """1 - specificity and sensitivity of each human reader under `mask`, with aid and without."""
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        own = row["decision"] == CALL and row["system"].startswith("reader ")  # not of their mean
        if own and (row["reference"], row["stratum"]) == ("mask", "all"):
            found.setdefault(row["system"], {})[row["metric"]] = row["estimate"]
    both = [(each.get("specificity"), each.get("sensitivity")) for each in found.values()]
    return [
        (1 - specificity, sensitivity)
        for specificity, sensitivity in both
        if specificity is not None and sensitivity is not None
    ]


def _with_interval(row: Row) -> tuple[float, float, float] | None:
    if row["estimate"] is None:
        return None
    low, high = (math.nan if row[end] is None else row[end] for end in ("ci_low", "ci_high"))
    return row["estimate"], low, high


def _fold_aurocs(cases: Cases) -> list[float] | None:
    """AUROC of each fold's classification network alone under the mask reference; None where not defined."""
    by_fold = [cases.column(f"fold_{fold}") for fold in range(N_FOLDS)]
    if cases.has_mask.all() or not cases.has_mask.any() or np.isnan(by_fold).any():
        return None
    every = np.ones((1, len(cases)))
    return [float(Ranks(each, cases.has_mask, ~cases.has_mask).auroc(every)[0]) for each in by_fold]


def _fold_text(aurocs: Sequence[float] | None) -> str:
    if aurocs is None:
        return "not defined"
    return (
        f"{', '.join(f'{value:.3f}' for value in aurocs)} "
        f"(range {max(aurocs) - min(aurocs):.3f}, standard deviation {np.std(aurocs, ddof=1):.3f})"
    )


# --- where it comes from ---------------------------------------------------------------------------


def _estimates(rows: Sequence[Row], system: str) -> str:
    """The main metrics of a system in a line."""
    metrics = ("auroc", "sensitivity", "specificity", "dice_positives")
    found = {
        row["metric"]: row
        for row in rows
        if (row["system"], row["reference"], row["decision"], row["stratum"]) == (system, *_PRIMARY)
    }
    return ", ".join(f"{METRICS[m].title} {estimate_text(found[m])}" for m in metrics if m in found)


def _threshold_text(found: Mapping[str, Any]) -> str:
    return (
        f"probability {found['cls_threshold']:.6g} by {found.get('rule', 'a rule that is not told')}, area "
        f"{found['seg_threshold']:g} pixels, both chosen on out-of-fold films."
    )


def _provenance(results: Mapping[str, Result], replicates: int, seed: int) -> list[tuple[str, str]]:
    films = sorted({str(result.meta["films"]) for result in results.values()})
    return [
        ("Test films (pixels, labels and masks)", ", ".join(films)),
        ("Resamples of the tables", f"{replicates:,}"),
        ("Resamples of the bands in the figures", f"{BAND_REPLICATES:,}"),
        ("Seed", str(seed)),
        ("This project", __version__),
        ("Python", platform.python_version()),
        *((package, _version(package)) for package in _PACKAGES),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # installed under another name, such as opencv-python
        return "unknown"


def _unlabelled(result: Result) -> int:
    """Films without labels that a system learnt from."""
    learnt = result.meta["weights"].get("unlabelled", {})
    return max((each["number"] for each in learnt.values()), default=0)


def _flat(content: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """A JSON value as lines of (where it stands, value)."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, (*where, _NAMES.get(key, str(key))))
    elif isinstance(content, list) and len(content) <= _LONGEST_LIST:
        for i, value in enumerate(content):
            yield from _flat(value, (*where[:-1], f"{where[-1]} {i}"))
    else:
        value = f"{len(content)} values" if isinstance(content, list) else str(content)
        yield " › ".join(filter(None, where)), value
