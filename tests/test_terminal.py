"""The printed metrics: how they read, and that they fit."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from common.command_line import ReportOptions
from common.inference.result_files import Result
from common.report.estimates import line_text
from common.report.terminal import Planned, cohort, print_report, table_rows
from common.statistics.bootstrap import TOO_FEW
from common.statistics.metric_catalogue import METRICS
from common.statistics.metrics import DECISIONS, REFERENCES
from common.statistics.strata import STRATA
from common.statistics.tested_films import Cases
from tests.test_metrics import pointed


def row(n, estimate, low, high, note="", metric="sensitivity"):
    return {"metric": metric, "n": n, "estimate": estimate, "ci_low": low, "ci_high": high, "note": note}


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (row(308, 0.9526, 0.92149, 0.9775), "0.953 (0.921-0.978) n=308"),
        (row(12, 1.0, 1.0, 1.0), "1.000 (1.000-1.000) n=12"),
        (row(1, 1.0, None, None), "1.000 (not estimable) n=1"),
        (row(9, 1.0, None, None, TOO_FEW), "1.000 (too few) n=9"),
        (row(0, None, None, None), "not estimable n=0"),
        (row(5, 0.0, 0.0, 0.25), "0.000 (0.000-0.250) n=5"),
        (row(50, -1.25, -2.5, 0.25), "-1.250 (-2.500 to 0.250) n=50"),
        (row(90, 0.1, None, None, metric="prevalence"), "0.100 n=90"),
    ],
)
def test_an_estimate_reads(estimate, text):
    assert line_text(estimate) == text


def test_an_estimate_of_a_group_is_short():
    assert line_text(row(308, 0.9526, 0.92149, 0.9775), digits=2, with_n=False) == "0.95 (0.92-0.98)"


META = {
    "cls_threshold": 0.5,
    "seg_threshold": 12,
    "image_size": 512,
    "preset": "published",
    "nsd_tolerance_mm": 10.0,
    "nsd_tolerance_px": 12.5,
}


def results(n: int, films_a_patient: int = 1) -> Result:
    rng = np.random.default_rng(0)
    mask = rng.random(n) < 0.15
    report = mask ^ (rng.random(n) < 0.05)
    probability = rng.random(n) * 0.5 + 0.4 * report
    stage_1 = probability >= 0.5
    area = np.where(stage_1 | mask, rng.uniform(0, 0.9, n), np.nan)
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
        area_fraction=area,
        hd95=np.where(mask, rng.uniform(0, 700, n), np.nan),
        in_mm=rng.random(n) < 0.5,
        sex=rng.choice(["F", "M", ""], n),
        manufacturer=rng.choice(["Agfa", "A Long Name of a Manufacturer"], n),
        chest_tube=rng.choice([0.0, 1.0, np.nan], n),
        further=pointed(rng, mask, area),
    )
    return Result(cases, META)


def reported(result: Result, **options) -> tuple[str, list[dict]]:
    """What is printed, and the rows behind it."""
    console = Console(file=io.StringIO(), width=100, highlight=False, markup=False)
    chosen = ReportOptions(**{"replicates": 50, "all": True, **options})
    rows, _ = table_rows({"eff": result.cases}, {}, {}, chosen)
    print_report(console, {"eff": result}, rows, chosen, Planned(None, []))
    return console.file.getvalue(), rows


def printed(result: Result, **options) -> str:
    return reported(result, **options)[0]


def test_tables_fit_100_columns_with_every_estimate_on_one_line():
    text, rows = reported(results(9_000), prevalence=0.05, replicates=40)
    assert max(map(len, text.splitlines())) <= 100
    shown = 0
    for each in rows:
        in_blocks = each["stratum"] in STRATA and each["metric"] in ("auroc", "auprc")
        if METRICS[each["metric"]].kind != "count" and (in_blocks or each["stratum"] == "all"):
            assert line_text(each) in text or not each["n"], each
            shown += 1
    assert shown > 100


def test_every_metric_is_printed_somewhere():
    """For all films, each name has its line or its column."""
    text, rows = reported(results(300), prevalence=0.05)
    for metric in METRICS:
        (each,) = [
            each
            for each in rows
            if (each["reference"], each["decision"], each["stratum"], each["metric"])
            == ("mask", "stage_1", "all", metric)
        ]
        shown = str(each["estimate"]) if METRICS[metric].kind == "count" else line_text(each)
        assert shown in text, metric


def test_blocks_come_in_order_with_four_strata_in_each_table():
    lines = printed(results(200)).splitlines()
    titles = [line for line in lines if line.startswith("eff | ") and not line.endswith(("films", "groups"))]
    assert [("mask" in t.split("|")[1], "two-stage" in t) for t in titles] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
        (True, True),
        (True, False),
    ]
    assert ["clear" in t for t in titles] == [False] * 4 + [True] * 2
    assert [t.endswith("(primary)") for t in titles] == [True] + [False] * 5
    for stratum in STRATA:
        tables = (4 * len(REFERENCES) + 3) * len(DECISIONS)  # three of metrics (two if clear), one of counts
        assert sum(line.split()[:1] == [stratum] for line in lines) == tables


def test_films_without_a_mask_are_left_out_only_where_there_are_any():
    result = results(300)
    cases = result.cases
    without = (cases.report & ~cases.has_mask).sum()
    text, rows = reported(result)
    assert f"Positive by report without a mask, so left out here: {without}." in text
    (row,) = [
        row
        for row in rows
        if (row["reference"], row["decision"], row["stratum"], row["metric"])
        == ("mask_or_clear", "stage_1", "all", "specificity")
    ]
    assert row["n"] == 300 - cases.has_mask.sum() - without
    clear = replace(cases, report=cases.report & cases.has_mask)
    text, rows = reported(Result(clear, META))
    assert "left out here" not in text
    assert {row["reference"] for row in rows} == {"mask", "report"}


def test_groups_have_a_line_each_with_their_numbers():
    result = results(400)
    lines = printed(result).splitlines()
    cases = result.cases
    for sex in ("F", "M"):
        (line,) = [line for line in lines if line.startswith(f"sex {sex} ")]
        of_sex = cases.sex == sex
        assert line.split()[2:4] == [
            str((of_sex & cases.has_mask).sum()),
            str((of_sex & ~cases.has_mask).sum()),
        ]
    assert any(line.startswith("sex unknown") for line in lines)
    assert any(line.startswith("device Agfa") for line in lines)
    alone = result.cases.taken(np.flatnonzero((cases.sex == "F") & (cases.manufacturer == "Agfa")))
    alone = replace(alone, chest_tube=np.full(len(alone), np.nan))
    assert "groups" not in printed(Result(alone, result.meta))


def test_header_says_who_was_tested():
    result = results(200)
    counts = cohort(result)
    text = " ".join(printed(result).split())
    assert "200 test films of 200 patients (every patient has one film)." in text
    assert (
        f"Positive by mask: {counts['positive_by_mask']}; by radiology report: "
        f"{counts['positive_by_report']}, of which {counts['positive_by_report_without_mask']} without a mask"
    ) in text
    assert "50 replicates, seed 0" in text
    assert "percentile bootstrap" in text
    assert "expanded for few patients" in text
    assert "conditional on the case mix, the prevalence of these films" in text
    assert "Hit have Wilson's interval. AUROCs have DeLong's interval" in text
    assert "cls_threshold 0.5; seg_threshold 12 pixels at 512 x 512" in text
    without = counts["positive_by_report_without_mask"]
    assert f"Positive by report without a mask, so negative here: {without}." in text
    assert "within 10 mm (12.5 pixels where the spacing is unknown)" in text
    assert "no label" not in text
    assert "3 more have no label and count in no metric." in printed(
        Result(result.cases, META, unlabelled=("x", "y", "z"))
    )
    assert "Stated prevalence" not in text
    several = " ".join(printed(results(200, films_a_patient=2)).split())
    assert "200 test films of 100 patients (films of one patient are resampled together)." in several
    assert "Hit have Wilson's interval, for as many films as independent ones would tell as much." in several
    assert "bias-corrected and accelerated bootstrap" in printed(results(200), interval="bca").replace(
        "\n", " "
    )
    assert "Stated prevalence: 0.05." in printed(results(200), prevalence=0.05)


def test_few_replicates_are_said_to_be_few():
    assert "CAUTION: 999 replicates are too few to report; the default is 10,000." in printed(
        results(60), replicates=999
    )
    assert "CAUTION" not in printed(results(60), replicates=1000)


def test_cohort_by_hand():
    mask = np.array([True, True, False, False, False])
    report = np.array([True, False, True, True, False])
    patient = np.array(["p1", "p1", "p2", "p3", "p4"])
    blank = np.zeros(5)
    cases = Cases(patient, patient, mask, report, blank, blank, mask, mask, blank)
    assert cohort(Result(cases, META, unlabelled=("x", "y", "z"))) == {
        "films": 5,
        "patients": 4,
        "positive_by_mask": 2,
        "positive_by_report": 3,
        "positive_by_report_without_mask": 2,
        "mask_but_negative_by_report": 1,
        "without_a_label": 3,
    }


def test_the_demo_says_so():
    demo = Result(results(50).cases, META | {"preset": "demo"})
    assert "not the published recipe" in printed(demo)
    assert "not the published recipe" not in printed(results(50))


def test_the_primary_tables_alone_are_sixty_lines_for_two_systems_and_say_where_the_rest_is():
    both = {"eff": results(300), "vit": results(300)}
    console = Console(file=io.StringIO(), width=100, highlight=False, markup=False)
    options = ReportOptions(replicates=50)
    rows, _ = table_rows({system: each.cases for system, each in both.items()}, {}, {}, options)
    print_report(console, both, rows, options, Planned(None, []))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    titles = [line for line in lines if "| reference: mask |" in line]
    assert titles[:2] == [
        f"{system} | reference: mask | two-stage decision (primary)" for system in ("eff", "vit")
    ]
    text = "\n".join(lines)
    for row in rows:
        key = row["system"], row["reference"], row["decision"], row["stratum"]
        shown = ("auroc", "sensitivity", "specificity", "dice_positives")
        if key == ("vit", "mask", "two_stage", "all") and row["metric"] in shown:
            assert line_text(row) in text
    assert "eff minus vit" in text
    assert "CAUTION: 50 replicates" in text
    assert "reference: radiology report" not in text
    assert lines[-2].startswith("The other reference, stage 1 alone")
    assert "--all" in lines[-2] + lines[-1]
