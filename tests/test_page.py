"""The report: its curves, tables and films against references, its page against hostile and missing input."""

from __future__ import annotations

import base64
import dataclasses
import getpass
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from page_study import HOSTILE, fold_probability, made_up_cases, metric_rows, row, write_study
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from common.inference.result_files import Result
from common.paths import result_folder, thresholds_file
from common.report import page as report_page
from common.report.estimates import estimate_text, number, p_text
from common.report.page import PLOTS, write_report
from common.report.shown_films import shown_films, telling_films, worst_films
from common.report.tables import tables
from common.stages import TESTING_FOLDER
from common.statistics.bootstrap import resample_counts
from common.statistics.curves import (
    DECISION_THRESHOLDS,
    GRID,
    calibration,
    net_benefit,
    precision_recall,
    roc,
)
from common.statistics.intervals import percentile_tail
from common.statistics.tested_films import Cases


class Page(HTMLParser):
    """The tags, the visible text and the cells of each table row of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.lines: list[list[str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.lines and self.lines[-1]:
            self.lines[-1][-1] += data

    def line(self, *starts: str) -> list[str]:
        """The first row of a table whose first cells are these; its cells with single spaces."""
        found = ([" ".join(cell.split()) for cell in line] for line in self.lines)
        return next(line for line in found if line[: len(starts)] == list(starts))


def one_film_each(positive: list[int], probability: list[float]) -> Cases:
    n = len(positive)
    mask, score = np.array(positive, dtype=bool), np.array(probability)
    return Cases(
        case=np.array([f"c{i}" for i in range(n)]),
        patient=np.array([f"p{i}" for i in range(n)]),
        has_mask=mask,
        report=mask,
        mask_area_fraction=np.where(mask, 0.05, np.nan),
        probability=score,
        stage_1=score >= 0.5,
        two_stage=score >= 0.5,
        dice_segmentation=np.where(mask, 0.7, np.nan),
    )


# --- curves ----------------------------------------------------------------------------------------


def test_roc_points_equal_sklearn_with_ties():
    cases = made_up_cases()
    curve = roc(cases, "mask", 3, seed=0)
    false_rate, true_rate, _ = roc_curve(cases.has_mask, cases.probability, drop_intermediate=False)
    assert len(np.unique(cases.probability)) < len(cases)  # there are ties
    np.testing.assert_allclose(curve.x, false_rate, atol=1e-12)
    np.testing.assert_allclose(curve.y, true_rate, atol=1e-12)
    area = np.trapezoid(curve.y, curve.x) if hasattr(np, "trapezoid") else np.trapz(curve.y, curve.x)
    assert area == pytest.approx(roc_auc_score(cases.has_mask, cases.probability), abs=1e-12)


def test_precision_recall_area_is_the_average_precision():
    cases = made_up_cases()
    curve = precision_recall(cases, "report", 3, seed=0)
    area = float((np.diff(curve.x) * curve.y[1:]).sum())
    assert area == pytest.approx(average_precision_score(cases.report, cases.probability), abs=1e-12)


def test_precision_recall_points_by_hand():
    curve = precision_recall(one_film_each([1, 0, 1, 0], [0.9, 0.8, 0.8, 0.1]), "mask", 3, seed=0)
    # above 0.9: 1 of 1; above 0.8: 2 of 3; all: 2 of 4
    np.testing.assert_allclose(curve.x, [0, 0.5, 1, 1])
    np.testing.assert_allclose(curve.y, [1, 1, 2 / 3, 1 / 2])


def test_net_benefit_equals_a_plain_loop_over_patients():
    cases = made_up_cases()
    curve = net_benefit(cases, "mask", 40, seed=5)
    everything = np.ones(len(cases))
    weights = np.concatenate(list(resample_counts(cases.patient, cases.has_mask, 40, seed=5)))

    def benefit(weight, threshold):
        called = cases.probability >= threshold
        true, false = (weight[called & truth].sum() for truth in (cases.has_mask, ~cases.has_mask))
        return (true - false * threshold / (1 - threshold)) / weight.sum()

    tail = percentile_tail(len(np.unique(cases.patient[cases.has_mask])))
    assert DECISION_THRESHOLDS[[0, -1]].tolist() == [0.01, 0.5]
    for i, threshold in enumerate(DECISION_THRESHOLDS):
        assert curve.y[i] == pytest.approx(benefit(everything, threshold), abs=1e-12)
        ends = np.quantile([benefit(weight, threshold) for weight in weights], [tail, 1 - tail])
        assert (curve.low[i], curve.high[i]) == pytest.approx(tuple(ends), abs=1e-12)
    assert curve.y[0] > cases.has_mask.mean() * 0.99 - 0.01  # nearly every film is called
    assert net_benefit(one_film_each([1, 1], [0.9, 0.8]), "mask", 3, seed=0) is None


@pytest.mark.parametrize("kind", ["roc", "precision_recall"])
def test_bands_equal_a_plain_loop_over_patients(kind: str):
    cases = made_up_cases()
    weights = np.concatenate(list(resample_counts(cases.patient, cases.has_mask, 40, seed=5)))
    assert (np.ptp([w[cases.patient == "p0001"] for w in weights], axis=1) == 0).all()
    values = []
    for weight in weights:
        y_true, score = np.repeat(cases.has_mask, weight.astype(int)), np.repeat(
            cases.probability, weight.astype(int)
        )  # fmt: skip
        if kind == "roc":
            x, y, _ = roc_curve(y_true, score, drop_intermediate=False)
            values.append([_upper_at(grid, x, y) for grid in GRID])
        else:
            precision, recall, _ = precision_recall_curve(y_true, score)
            values.append([_first_reaching(grid, recall[:-1], precision[:-1]) for grid in GRID])
    curve = {"roc": roc, "precision_recall": precision_recall}[kind](cases, "mask", 40, seed=5)
    tail = percentile_tail(len(np.unique(cases.patient[cases.has_mask])))
    assert tail < 0.0249
    np.testing.assert_allclose(curve.low, np.quantile(values, tail, axis=0), atol=1e-9)
    np.testing.assert_allclose(curve.high, np.quantile(values, 1 - tail, axis=0), atol=1e-9)


def _upper_at(grid: float, x: np.ndarray, y: np.ndarray) -> float:
    """The height of a ROC curve at a false-positive rate; the upper end where it rises upright."""
    at = [b for a, b in zip(x, y, strict=True) if abs(a - grid) < 1e-12]
    if at:
        return max(at)
    i = max(k for k in range(len(x)) if x[k] < grid)
    return y[i] + (y[i + 1] - y[i]) * (grid - x[i]) / (x[i + 1] - x[i])


def _first_reaching(grid: float, recall: np.ndarray, precision: np.ndarray) -> float:
    """The precision at the highest threshold that reaches a recall (at recall 0: of the first threshold)."""
    reached = [(r, p) for r, p in zip(recall[::-1], precision[::-1], strict=True) if r >= grid - 1e-9]
    return reached[0][1]


def test_no_curve_without_both_classes():
    assert roc(one_film_each([1, 1], [0.2, 0.9]), "mask", 5, 0) is None
    assert precision_recall(one_film_each([0, 0], [0.2, 0.9]), "mask", 5, 0) is None


def test_calibration_tenths():
    probability = np.repeat(np.arange(10) / 10 + 0.05, 4)
    cases = one_film_each([i % 4 == 0 for i in range(40)], probability.tolist())
    tenths = calibration(cases, "mask")
    assert [(t.n, t.positives, t.observed) for t in tenths] == [(4, 1, 0.25)] * 10
    np.testing.assert_allclose([t.predicted for t in tenths], np.arange(10) / 10 + 0.05)
    wilson = binomtest(1, 4).proportion_ci(method="wilson")
    assert (tenths[0].low, tenths[0].high) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_films_of_one_probability_stay_in_one_tenth():
    tenths = calibration(one_film_each([0] * 15 + [1] * 5, [0.1] * 15 + [0.9] * 5), "mask")
    assert [(t.n, t.positives) for t in tenths] == [(15, 0), (5, 5)]


# --- numbers and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9534, "0.953"),
        (12.344, "12.34"),
        (130.25, "130.2"),
        (110, "110"),
        (-0.0312, "−0.031"),
        (-1e-5, "0.000"),
    ],
)
def test_numbers(value: float, text: str):
    assert number(value) == text


def test_estimates_and_p_values_as_text():
    estimate = row("eff", "mask", "two_stage", "all", "auroc", 0.9534)
    assert estimate_text(estimate) == "0.953 (0.903 to 0.993)"
    assert estimate_text(estimate | {"ci_low": None}) == "0.953"
    assert estimate_text(estimate | {"estimate": None}) == "not estimable"
    assert (p_text(0.0004), p_text(0.0312), p_text(None)) == ("< 0.001", "0.031", "")


def test_every_row_is_in_a_table_once():
    rows = metric_rows("eff", "vit")
    rows.append(row("eff", "mask", "two_stage", "all", "brier", 0.5))
    rows.append(row("reader A", "mask", "call", "all", "sensitivity", 0.7))
    made = tables(rows, ["eff", "vit"])
    assert [table.title for table in made.primary] == [
        "primary results, all films", "by lesion size", "by group of films",
    ]  # fmt: skip
    assert [group for group, _ in made.primary[1].groups] == ["Small lesions (< 3.2% of the film)"]
    assert [line.title for line in made.primary[0].groups[0][1]][-1] == "Brier score"
    assert len(made.others) == 3
    cells = [
        cell
        for table in (*made.primary, *made.others)
        for _, lines in table.groups
        for line in lines
        for cell in (*line.cells, *line.differences)
        if cell is not None
    ]
    assert len(cells) + len(made.further) == len(rows)
    assert [r["system"] for r in made.further] == ["reader A"]


def test_a_comparison_stands_beside_its_systems():
    first = tables(metric_rows("eff", "vit"), ["eff", "vit"]).primary[0]
    assert (first.systems, first.comparisons, first.tested) == (["eff", "vit"], ["eff-vit"], True)
    auroc, auprc = first.groups[0][1][:2]
    difference = auroc.differences[0]
    assert (difference.cell.text, difference.p, difference.p_holm, difference.test) == (
        "−0.031 (−0.081 to 0.009)", "< 0.001", "0.002", "DeLong",
    )  # fmt: skip
    assert auprc.differences == [None]
    assert first.notes == {"1": "conditional on the case mix"}
    assert [cell.mark for cell in auprc.cells] == ["1", "1"]


# --- films -----------------------------------------------------------------------------------------


def test_worst_films_by_hand():
    cases = one_film_each([1, 1, 1, 1, 0, 0, 0, 0], [0.4, 0.1, 0.9, 0.8, 0.6, 0.95, 0.2, 0.6])
    cases = dataclasses.replace(
        cases,
        dice_segmentation=np.array([0.1, 0.2, 0.6, 0.3] + [np.nan] * 4),
        report=np.ones(8, dtype=bool),  # says nothing here
    )
    found = {kind: rows.tolist() for kind, rows in worst_films(cases).items()}
    assert found == {"missed": [1, 0], "low_dice": [3, 2], "false_alarms": [5, 4, 7]}


def test_telling_films_by_hand():
    cases = one_film_each([1, 1, 1, 1, 1, 0, 0, 0, 0], [0.4, 0.1, 0.9, 0.8, 0.7, 0.6, 0.95, 0.2, 0.52])
    dice = np.array([0.1, 0.2, 0.6, 0.3, 0.5] + [np.nan] * 4)
    cases = dataclasses.replace(cases, dice_segmentation=dice)
    assert telling_films(cases, 0.5) == {"found": 4, "missed": 1, "false_alarm": 6, "borderline": 8}
    # of those left, only films that stage 2 saw can be shown: the negative of 0.52 is none of them any more
    unseen = dataclasses.replace(cases, stage_1=cases.probability >= 0.55)
    assert telling_films(unseen, 0.5)["borderline"] == 0
    assert telling_films(one_film_each([0, 0], [0.1, 0.2]), 0.5) == {}


def test_a_film_is_shown_with_both_outlines_and_its_facts(workspace: Path):
    cases = made_up_cases()
    write_study(cases, "eff")
    missed = int(worst_films(cases)["missed"][0])
    (film,) = shown_films(cases, np.array([missed]), result_folder("eff"), 0.5)
    picture = cv2.imdecode(np.frombuffer(film.jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    blue, green, red = np.moveaxis(picture, -1, 0)
    half = len(picture) // 2
    assert (green - red)[:half, :half].max() > 80  # the truth, in the upper left
    assert (green - red)[half:, half:].max() < 40
    assert (red - blue)[half:, half:].max() > 80  # what was found, in the lower right
    assert film.facts["probability"] == f"{cases.probability[missed]:.3f}"
    assert film.facts["Dice"] == f"{cases.dice_segmentation[missed]:.2f}"
    assert film.facts["negative by"] == ("area" if cases.stage_1[missed] else "probability")


# --- the page --------------------------------------------------------------------------------------


def written(results, rows) -> tuple[Page, list[Path]]:
    paths = write_report(results, rows, 1000, 0)
    return Page(paths[0].read_text(encoding="utf-8")), paths


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Result], Page, list[Path]]:
    """Two systems: the results, the page and what was written."""
    root = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTX_WORKSPACE", str(root))
        results = write_study(made_up_cases(), "eff", "vit")
        page, paths = written(results, metric_rows("eff", "vit"))
    assert {path.parent for path in paths} == {root / TESTING_FOLDER, root / TESTING_FOLDER / "figures"}
    return results, page, paths


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page alone is looked at: its figures are empty."""
    monkeypatch.setattr(report_page, "draw_plots", lambda *_: dict.fromkeys(PLOTS, b"<svg/>"))


def test_the_page_holds_what_a_paper_needs(pair):
    results, page, paths = pair
    cases = results["eff"].cases
    assert [path.name for path in paths] == [
        "report.html",
        *(f"{name}.svg" for name in PLOTS),
        "cohort.csv",
    ]
    text = " ".join(page.text.split())
    assert "Research use only. Not a medical device." in text
    assert "40 films of" in text
    assert "Found: 49 films" in text
    assert "Excluded by a rule: 7 films age under 20: 3chest tube: 4" in text
    positive, called = cases.has_mask, cases.two_stage
    counts = [(positive & called), (~positive & called), (positive & ~called), (~positive & ~called)]
    assert page.line("eff", str(counts[0].sum()))[1:] == [str(count.sum()) for count in counts]
    assert page.line("AUROC")[1:] == ["0.953 (0.903 to 0.993) n 40"] * 2  # the first screen
    compared = [[" ".join(cell.split()) for cell in line] for line in page.lines if len(line) > 4]
    assert next(line for line in compared if line[0] == "AUROC")[1:5] == [
        "0.953 (0.903 to 0.993) n 40", "0.953 (0.903 to 0.993) n 40", "−0.031 (−0.081 to 0.009) n 40",
        "< 0.001DeLongHolm 0.002",
    ]  # fmt: skip
    for fold in range(5):
        for stage in ("segmentation", "classification"):
            expected = results["vit"].meta["weights"]["weights"][f"ntuh_{stage}"][fold]
            assert any(
                line == [f"Network, {stage}, fold {fold}", expected] for line in page.lines
            )  # fmt: skip
    assert page.line("Seed") == ["Seed", "0"]
    assert page.line("matplotlib")[1].startswith("3.")
    assert "To be filled by the authors." in page.line("42")[3]
    assert "16 films positive by mask, 24 negative." in page.line("21")[3]
    assert [line[0] for line in page.lines if line[0].isdecimal()] == [str(i) for i in range(1, 45)]


def test_the_page_says_which_views_were_tested(workspace: Path, undrawn):
    cases = made_up_cases()
    view = np.array(["PA", ""] + ["AP"] * (len(cases) - 2))
    page, _ = written(write_study(dataclasses.replace(cases, view=view), "eff"), metric_rows("eff"))
    assert f"AP {len(cases) - 2}, PA 1, unknown 1. AP does not mean that the patient lay." in page.text


def test_the_roc_marks_are_the_decisions(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    cases = one_film_each([1, 1, 0, 0, 0], [0.9, 0.6, 0.7, 0.2, 0.1])
    cases = dataclasses.replace(cases, two_stage=np.array([1, 0, 0, 0, 0], dtype=bool))
    seen = {}

    def spy(curves, points, told, readers):
        seen.update(points=points, readers=readers, told=told("eff", "auroc"))
        return b"<svg/>"

    for name in PLOTS:
        monkeypatch.setattr(report_page.plots, f"{name}_plot", spy if name == "roc" else lambda *_: b"")
    rows = metric_rows("eff")
    for who, decision in (
        ("reader A", "call"),
        ("eff-reader A", "two_stage"),
        ("readers", "call"),
        ("reader A aided-reader A", "aid"),
    ):
        rows.append(row(who, "mask", decision, "all", "sensitivity", 0.75))
        rows.append(row(who, "mask", decision, "all", "specificity", 0.5))
    written(write_study(cases, "eff"), rows)
    assert seen["points"]["eff"] == {
        "stage_1": pytest.approx((1 / 3, 1)),
        "two_stage": pytest.approx((0, 0.5)),
    }
    assert seen["readers"] == [(0.5, 0.75)]
    assert seen["told"] == "0.953 (0.903 to 0.993)"


def test_each_fold_alone_is_scored(workspace: Path, undrawn):
    cases = made_up_cases()
    page, _ = written(write_study(cases, "eff"), metric_rows("eff"))
    alone = [roc_auc_score(cases.has_mask, fold_probability(cases, fold)) for fold in range(5)]
    assert f"eff: {', '.join(f'{value:.3f}' for value in alone)} (range" in page.text


def test_same_inputs_give_the_same_bytes_and_tell_nothing_of_the_machine(pair, workspace: Path):
    first = [path.read_bytes() for path in pair[2]]
    results, rows = write_study(made_up_cases(), "eff", "vit"), metric_rows("eff", "vit")
    assert [path.read_bytes() for path in written(results, rows)[1]] == first
    for content in first:
        for secret in (str(pair[2][0].parent), str(Path.home())):
            assert secret.encode() not in content
        assert f"/{getpass.getuser()}/".encode() not in content


def test_the_bands_are_of_the_seed():
    low = [roc(made_up_cases(), "mask", 50, seed).low for seed in (0, 0, 1)]
    assert (low[0] == low[1]).all()
    assert (low[0] != low[2]).any()


def test_nothing_on_the_page_is_from_outside(pair):
    _, page, paths = pair
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "https://doi.org/"))
    html = paths[0].read_text(encoding="utf-8")
    assert "url(" not in html
    assert "@import" not in html
    for path in paths[1:-1]:
        for element in ElementTree.parse(path).iter():
            links = [value for name, value in element.attrib.items() if name.endswith("href")]
            assert all(link.startswith(("#", "data:")) for link in links)


@pytest.mark.parametrize(
    ("gain", "ends", "said"),
    [
        (0.25, (0.1, 0.4), "0.700, n 40: the system is above it by 0.250 (0.100 to 0.400)."),
        (0.05, (-0.01, 0.1), "the system is not clearly above it (0.050 (−0.010 to 0.100))"),
        (0.05, (0.0, 0.1), "the system is not clearly above it"),
        (0.05, (None, None), "cannot be told from so few films"),
        (None, (None, None), None),
    ],
)
def test_the_page_says_in_words_whether_a_shortcut_would_do(workspace: Path, undrawn, gain, ends, said):
    low, high = ends
    rows = metric_rows("eff")
    rows += [
        row("eff", "mask", "two_stage", "all", "auroc_header", 0.7) | {"ci_low": None, "ci_high": None},
        row("eff", "mask", "two_stage", "all", "auroc_over_header", gain) | {"ci_low": low, "ci_high": high},
    ]
    page, _ = written(write_study(made_up_cases(), "eff"), rows)
    text = " ".join(page.text.split())
    assert ("From facts of the header alone, AUROC" in text) == (said is not None)
    assert "24 x 24 pixels alone" not in text
    assert said is None or said in text


def test_hostile_text_is_text(workspace: Path, undrawn):
    cases = made_up_cases()
    names = np.array([f"{HOSTILE}{i}" for i in range(len(cases))])
    everywhere = dict.fromkeys(("sex", "view", "manufacturer"), np.full(len(cases), HOSTILE))
    cases = dataclasses.replace(cases, case=names, **everywhere)
    results = write_study(cases, "eff", note=HOSTILE, deep={HOSTILE: [HOSTILE]})
    rows = metric_rows("eff")
    rows.append(row("eff", "mask", "two_stage", f"device {HOSTILE}", "auroc", 0.9) | {"note": HOSTILE})
    rows.append(row(f"reader {HOSTILE}", "mask", "call", "all", "auroc", 0.9))
    (result_folder("eff") / "flow.json").write_text(
        '{"found": 41, "excluded": {"<script>x</script>": 1}, "rejected": {}, "prepared": 40}'
    )
    page, _ = written(results, rows)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any(tag == "script" for tag, _ in page.tags)
    assert not any(attributes.get("src") == "x" for _, attributes in page.tags)
    assert page.text.count(HOSTILE) > 10
    assert "<script>x</script>: 1" in page.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positive", "probability", "why"),
    [
        ([0, 0, 0], [0.1, 0.6, 0.2], "no film has a mask"),
        ([1, 1, 1], [0.1, 0.6, 0.7], "no curve: all films are of one class"),
        ([1], [0.6], "fewer than two films with a mask"),
        ([1, 0], [0.5, 0.5], None),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(workspace: Path, positive, probability, why: str | None):
    rows = [row("eff", "mask", "two_stage", "all", "auroc", None)]
    page, paths = written(write_study(one_film_each(positive, probability), "eff"), rows)
    drawn = "".join(path.read_text() for path in paths[1:-1])
    assert why is None or why in drawn
    assert "not estimable" in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_without_pictures_flow_or_thresholds_the_page_says_so(workspace: Path, undrawn):
    cases = made_up_cases()
    results = write_study(cases, "eff")
    for path in [*result_folder("eff").rglob("*.png"), result_folder("eff") / "flow.json"]:
        path.unlink()
    thresholds_file("eff").unlink()
    page, _ = written(results, [])
    kinds = [*worst_films(cases).values(), telling_films(cases, 0.5)]
    assert page.text.count("no picture") == sum(map(len, kinds))
    assert "Inference left no flow.json" in page.text
    assert "5cv_avg.json is not there" in page.text


def test_thresholds_of_other_networks_are_not_shown(workspace: Path, undrawn):
    results = write_study(made_up_cases(), "eff")
    assert "choice of the thresholds" in written(results, [])[0].text
    other = {"eff": dataclasses.replace(results["eff"], meta=results["eff"].meta | {"weights": {"other": 1}})}
    assert "choice of the thresholds" not in written(other, [])[0].text


def test_films_without_a_label_leave_the_flow_by_name(workspace: Path, undrawn):
    results = write_study(made_up_cases(), "eff")
    path = result_folder("eff") / "flow.json"
    path.write_text(path.read_text().replace('"prepared": 40', '"prepared": 45'))
    assert "Without a label: 5 films, in no metric" in written(results, [])[0].text


def test_figures_on_the_page_are_the_files_and_keep_their_text(pair):
    _, page, paths = pair
    shown = [a["src"] for tag, a in page.tags if tag == "img" and a["src"].startswith("data:image/svg")]
    assert sorted(base64.b64decode(s.split(",")[1]) for s in shown) == sorted(
        p.read_bytes() for p in paths[1:-1]
    )
    texts = {path.stem: " ".join(ElementTree.parse(path).getroot().itertext()) for path in paths[1:-1]}
    assert "AUROC 0.953 (0.903 to 0.993)" in texts["roc"]
    assert "AUPRC 0.871" in texts["precision_recall"]
    assert "slope 1.250" in texts["calibration"]
    shown_area = np.where(made_up_cases().two_stage, made_up_cases().area_fraction, 0)
    bias = 100 * np.nanmean(shown_area - made_up_cases().mask_area_fraction)
    assert math.isfinite(bias)
    assert f"{bias:+.2f}".replace("-", "−") in texts["area_agreement"]
