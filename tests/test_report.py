"""The printed figures: how they read, and that they fit."""

import io

import numpy as np
import pytest
from rich.console import Console

from common.evaluation.bootstrap import metric_rows
from common.evaluation.cases import Cases
from common.evaluation.metrics import DECISIONS, REFERENCES, STRATA
from common.evaluation.report import cohort, figure_text, print_report
from common.evaluation.results import Result


def row(n, estimate, low, high):
    return {"n": n, "estimate": estimate, "ci_low": low, "ci_high": high}


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (row(308, 0.9526, 0.92149, 0.9775), "0.953 (0.921-0.978) n=308"),
        (row(12, 1.0, 1.0, 1.0), "1.000 (1.000-1.000) n=12"),
        (row(1, 1.0, None, None), "1.000 (not estimable) n=1"),
        (row(0, None, None, None), "not estimable n=0"),
        (row(5, 0.0, 0.0, 0.25), "0.000 (0.000-0.250) n=5"),
    ],
)
def test_a_figure_reads(figure, text):
    assert figure_text(figure) == text


def results(n: int, films_a_patient: int = 1) -> Result:
    rng = np.random.default_rng(0)
    mask = rng.random(n) < 0.15
    report = mask ^ (rng.random(n) < 0.05)
    probability = rng.random(n) * 0.5 + 0.4 * report
    stage_1 = probability >= 0.5
    cases = Cases(
        np.array([f"c{i}" for i in range(n)]),
        np.array([f"p{i // films_a_patient}" for i in range(n)]),
        mask,
        report,
        np.where(mask, rng.uniform(0.001, 0.2, n), np.nan),
        probability,
        stage_1,
        stage_1,
        np.where(mask, rng.random(n), np.nan),
    )
    return Result(
        cases, {"cls_threshold": 0.5, "seg_threshold": 12, "image_size": 512, "preset": "published"}
    )


def printed(result: Result, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    rows = metric_rows({"eff": result.cases}, 100, 0)
    print_report(console, {"eff": result}, rows, 100, 0)
    return console.file.getvalue()


def test_tables_fit_100_columns_with_every_figure_on_one_line():
    result = results(12_000)
    lines = printed(result).splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for figure in metric_rows({"eff": result.cases}, 100, 0):
        if figure["metric"] not in ("tp", "fp", "fn", "tn"):
            assert figure_text(figure) in text


def test_blocks_come_in_order_with_four_strata_in_each_table():
    lines = printed(results(200)).splitlines()
    titles = [line for line in lines if line.startswith("eff | ")]
    assert [("mask" in t.split("|")[1], "two-stage" in t) for t in titles] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]
    assert [t.endswith("(primary)") for t in titles] == [True, False, False, False]
    for stratum in STRATA:
        tables = 4 * len(REFERENCES) * len(DECISIONS)  # three of figures, one of counts
        assert sum(line.split()[:1] == [stratum] for line in lines) == tables


def test_header_says_who_was_tested():
    result = results(200)
    counts = cohort(result.cases)
    text = " ".join(printed(result).split())
    assert "200 test films of 200 patients (every patient has one film)." in text
    assert (
        f"Positive by mask: {counts['positive_by_mask']}; by radiology report: "
        f"{counts['positive_by_report']}, of which {counts['positive_by_report_without_mask']} without a mask"
    ) in text
    assert "100 replicates, seed 0" in text
    assert "PPV, NPV and AUPRC, and their intervals, are for the prevalence of these films." in text
    assert "cls_threshold 0.5; seg_threshold 12 pixels at 512 x 512" in text
    without = counts["positive_by_report_without_mask"]
    assert f"Positive by report without a mask, so negative here: {without}." in text
    several = " ".join(printed(results(200, films_a_patient=2)).split())
    assert "200 test films of 100 patients (films of one patient are resampled together)." in several


def test_cohort_by_hand():
    mask = np.array([True, True, False, False, False])
    report = np.array([True, False, True, True, False])
    patient = np.array(["p1", "p1", "p2", "p3", "p4"])
    blank = np.zeros(5)
    assert cohort(Cases(patient, patient, mask, report, blank, blank, mask, mask, blank)) == {
        "films": 5,
        "patients": 4,
        "positive_by_mask": 2,
        "positive_by_report": 3,
        "positive_by_report_without_mask": 2,
        "mask_but_negative_by_report": 1,
    }


def test_the_demo_says_so():
    result = results(50)
    result.meta["preset"] = "demo"
    assert "not the published recipe" in printed(result)
    assert "not the published recipe" not in printed(results(50))
