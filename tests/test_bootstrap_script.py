"""bootstrap.py as a user runs it, on result files as inference leaves them."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import start
from common.command_line import parse_report
from common.files import digest
from common.inference.result_columns import COLUMNS
from common.inference.result_files import read_results
from common.refusal import Refusal
from common.report.terminal import METRIC_COLUMNS
from common.statistics.intervals import wilson_interval
from common.statistics.metric_catalogue import METRICS

FOLDER = Path(__file__).resolve().parents[1] / "step3_testing" / "testing"

# case, patient, has_mask, report, mask_area_fraction, probability, area_pixels, dice_segmentation
FILMS = [
    ("a", "p1", 1, 1, 0.010, 0.90, 50, 0.6),
    ("b", "p1", 1, 1, 0.031, 0.40, 40, 0.5),
    ("c", "p2", 1, 1, 0.032, 0.70, 5, 0.2),
    ("d", "p3", 1, 0, 0.079, 0.80, 80, 0.7),
    ("e", "p4", 1, 1, 0.080, 0.95, 300, 0.9),
    ("f", "p5", 0, 1, "", 0.55, 8, ""),
    ("g", "p6", 0, 0, "", 0.70, 30, ""),
    ("h", "p6", 0, 0, "", 0.60, 3, ""),
    ("i", "p7", 0, 0, "", 0.40, "", ""),
    ("j", "p8", 0, 0, "", 0.30, "", ""),
    ("k", "p9", 0, 0, "", 0.20, "", ""),
    ("l", "p10", 0, 0, "", 0.10, "", ""),
]


FILM_CM2 = 1200.0  # of the films whose spacing is known
PIXELS = ("c", "i")  # cases whose spacing is not known


def case_rows(films=FILMS, cls_threshold=0.5, seg_threshold=10) -> list[dict]:
    """Rows of cases.csv; a film whose report is empty has no label."""
    rows = []
    for case, patient, mask, report, area, probability, pixels, dice in films:
        stage_1 = probability >= cls_threshold
        two_stage = stage_1 and pixels >= seg_threshold
        rule = "positive" if two_stage else "negative: area" if stage_1 else "negative: probability"
        fraction = "" if pixels == "" else pixels / 512**2
        in_mm = case not in PIXELS
        rows.append(
            {
                "case": case,
                "patient": patient,
                "has_mask": mask,
                "report": report,
                "mask_area_fraction": area,
                "probability": probability,
                **{f"fold_{fold}": probability for fold in range(5)},
                "area_pixels": pixels,
                "area_fraction": fraction,
                "area_cm2": fraction * FILM_CM2 if in_mm and fraction != "" else "",
                "stage_1": int(stage_1),
                "two_stage": int(two_stage),
                "rule": rule,
                "dice_segmentation": dice,
                "dice_positives": "" if dice == "" else dice * two_stage,
                "iou": "" if dice == "" else dice / (2 - dice),
                "dice_full_size": dice,
                "laterality": "" if dice == "" else float(dice > 0.3),
                "outline_laterality": "" if dice == "" or not pixels else float(dice > 0.3),
                "hit": "" if dice == "" else float(dice > 0.4),
                "lesions": "" if dice == "" else 1,
                "lesions_found": "" if dice == "" else int(dice > 0),
                "false_outlines": "" if pixels == "" else int(pixels > 40),
                "lesion_scores": "" if dice == "" else f"{0.5 + dice / 2 if dice > 0 else 0:.3f}",
                "false_scores": "0.75" if pixels != "" and pixels > 40 else "",
                "thumbnail_probability": 0.2 + 0.2 * (ord(case[0]) % 3),
                "header_probability": "",
                "no_answer": "",
                "hd95": "" if dice == "" else 20 * (1 - dice),
                "nsd": "" if dice == "" else dice**0.5,
                "distance_unit": "mm" if in_mm else "px",
                "film_cm2": FILM_CM2 if in_mm else "",
                "age": 60,
                "sex": "F",
                "view": "AP",
                "manufacturer": "Acme, Inc.",
                "chest_tube": "",
            }
        )
    return rows


def enough_films() -> list[tuple]:
    """60 films of as many patients, 20 positive: enough for intervals."""
    return [
        (f"c{i}", f"p{i}", int(i < 20), int(i < 20), 0.05 if i < 20 else "", 0.9 if i < 25 else 0.1,
         99 if i < 25 else "", 0.5 if i < 20 else "")
        for i in range(60)
    ]  # fmt: skip


def write_result(workspace: Path, system: str, /, rows=None, columns=tuple(COLUMNS), **meta) -> Path:
    """result_<system>/ with these rows; `meta` replaces keys of meta.json, None removes one."""
    rows = case_rows() if rows is None else rows
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    folder = workspace / "step3_testing" / "testing" / f"result_{system}"
    folder.mkdir(parents=True, exist_ok=True)
    content = text.getvalue().encode()
    (folder / "cases.csv").write_bytes(content)
    facts = {
        "system": system,
        "cls_threshold": 0.5,
        "seg_threshold": 10,
        "image_size": 512,
        "n_cases": len(rows),
        "cases_sha256": digest(content),
        "films": "f" * 64,
        "weights": {"fold_0": "w" * 64},
        "preset": "published",
        "nsd_tolerance_mm": 10.0,
        "nsd_tolerance_px": 13.0,
    } | meta
    facts = {key: value for key, value in facts.items() if value is not None}
    (folder / "meta.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with the results of both systems."""
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    for system in ("eff", "vit"):
        write_result(tmp_path, system)
    return tmp_path


def run(workspace: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "bootstrap.py", *arguments],
        cwd=FOLDER,
        env={**os.environ, "PTX_WORKSPACE": str(workspace), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(workspace: Path, *arguments: str) -> str:
    """The message of a refusal; nothing else may have happened."""
    done = run(workspace, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(workspace.rglob("metrics.*"))
    return done.stderr


def metrics(workspace: Path) -> list[dict[str, str]]:
    with open(workspace / "step3_testing/testing/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- what it does ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_both_systems(workspace):
    done = run(workspace, "--replicates", "200", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "12 test films of 10 patients (films of one patient are resampled together)." in done.stdout
    assert "Positive by report without a mask, so negative here: 1." in done.stdout
    assert "written: metrics.csv, metrics.json" in done.stdout

    rows = metrics(workspace)
    assert tuple(rows[0]) == METRIC_COLUMNS
    without_prevalence = sum(not (metric.at_prevalence or metric.if_known) for metric in METRICS.values())
    of_systems = [
        row for row in rows if row["system"] in ("eff", "vit") and row["reference"] in ("mask", "report")
    ]
    assert len(of_systems) == 2 * 2 * 2 * 4 * without_prevalence
    assert {row["system"] for row in rows} == {"eff", "vit", "eff-vit"}
    page = (workspace / "step3_testing/testing/report.html").read_text()
    assert "12 films of 10 patients" in page
    found = {tuple(row[c] for c in METRIC_COLUMNS[:5]): row for row in rows}
    assert len(found) == len(rows)
    one = found["eff", "mask", "two_stage", "all", "sensitivity"]
    assert (one["n"], one["estimate"]) == ("5", "0.6")
    assert found["vit", "report", "two_stage", "all", "tp"]["estimate"] == "2"
    assert found["vit", "report", "two_stage", "all", "tp"]["ci_low"] == ""
    none = found["eff", "report", "two_stage", "medium", "dice_true_positives"]
    values = [none[c] for c in ("n", "estimate", "ci_low", "ci_high", "interval", "note")]
    assert values == ["0", "", "", "", "none", "not estimable"]
    for decision in ("two_stage", "stage_1"):
        assert float(found["eff", "mask", decision, "all", "auroc"]["estimate"]) == 31 / 35

    facts = json.loads((workspace / "step3_testing/testing/metrics.json").read_text())
    assert (facts["replicates"], facts["seed"], facts["confidence"]) == (200, 0, 0.95)
    meta = json.loads((workspace / "step3_testing/testing/result_eff/meta.json").read_text())
    for key in ("cases_sha256", "cls_threshold", "seg_threshold", "films", "weights"):
        assert facts["systems"]["eff"][key] == meta[key]
    for written, row in zip(facts["rows"], rows, strict=True):
        assert {k: "" if v is None else str(v) for k, v in written.items()} == row


@pytest.mark.slow
def test_bca_and_a_stated_prevalence(workspace):
    """Enough films of enough patients for intervals, two of them of one patient."""
    rng = np.random.default_rng(0)
    films = []
    for i in range(60):
        mask, probability = int(i < 15), round(float(rng.random()) / 2 + (i < 15) / 3, 2)
        pixels = i if mask or probability >= 0.5 else ""
        films.append((f"c{i}", f"p{max(i, 1)}", mask, mask, 0.05 if mask else "", probability, pixels,
                      0.5 if mask else ""))  # fmt: skip
    write_result(workspace, "vit", case_rows(films))
    arguments = (
        "--system",
        "vit",
        "--replicates",
        "200",
        "--interval",
        "bca",
        "--prevalence",
        "0.05",
        "--all",
    )
    done = run(workspace, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CAUTION: 200 replicates are too few to report" in done.stdout
    assert "Stated prevalence: 0.05." in done.stdout
    rows = {tuple(row[c] for c in METRIC_COLUMNS[:5]): row for row in metrics(workspace)}
    assert rows["vit", "mask", "two_stage", "all", "auprc"]["interval"] == "bca"
    assert rows["vit", "mask", "two_stage", "all", "ppv_at_prevalence"]["note"] == "at prevalence 0.05"
    facts = json.loads((workspace / "step3_testing/testing/metrics.json").read_text())
    assert (facts["interval"], facts["prevalence"]) == ("bca", 0.05)


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_other_intervals(workspace):
    def files(*arguments):
        assert run(workspace, "--replicates", "200", *arguments).returncode == 0
        folder = workspace / "step3_testing/testing"
        return [(folder / name).read_bytes() for name in ("metrics.csv", "metrics.json")]

    for system in ("eff", "vit"):
        write_result(workspace, system, case_rows(enough_films()))
    table, facts = files()
    assert files("--seed", "0") == [table, facts]
    assert files("--seed", "1")[0] != table  # the facts hold the seed itself


@pytest.mark.slow
def test_systems_may_list_their_films_in_another_order(workspace):
    write_result(workspace, "vit", case_rows(FILMS[::-1]))
    assert run(workspace, "--replicates", "100").returncode == 0
    eff, vit = (
        [[row[c] for c in METRIC_COLUMNS[1:]] for row in metrics(workspace) if row["system"] == system]
        for system in ("eff", "vit")
    )
    assert eff == vit  # the same results, on the same draws
    assert {row["estimate"] for row in metrics(workspace) if row["system"] == "eff-vit"} <= {"0.0", ""}


@pytest.mark.slow
def test_imports_no_torch_no_foreign_common_and_nothing_that_takes_seconds(workspace, tmp_path_factory):
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / "common").mkdir()
    (foreign / "common" / "__init__.py").write_text("raise ImportError('the foreign common')")
    for name in ("torch", "sklearn", "pandas"):
        (foreign / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    done = run(workspace, "--replicates", "40", PYTHONPATH=str(foreign))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_pair_and_readers_are_printed_and_written(workspace):
    """Of 20 positives vit misses every third, and the reader calls all of them."""
    films = enough_films()
    worse = [(*film[:5], 0.2, *film[6:]) if i < 20 and i % 3 == 0 else film for i, film in enumerate(films)]
    write_result(workspace, "eff", case_rows(films))
    write_result(workspace, "vit", case_rows(worse))
    calls = workspace / "calls.csv"
    readers = [f"c{i},R1,{int(i < 22)},0\n" for i in range(40)]
    readers += [f"c{i},R2,{int(i < 18)},0\nc{i},R2,{int(i < 20)},1\n" for i in range(60)]
    calls.write_text("case,reader,call,aid\n" + "".join(readers))
    done = run(workspace, "--replicates", "200", "--readers", str(calls))
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    found = {tuple(row[c] for c in METRIC_COLUMNS[:5]): row for row in metrics(workspace)}
    pair = found["eff-vit", "mask", "two_stage", "all", "sensitivity"]
    assert float(pair["estimate"]) == pytest.approx(7 / 20)
    assert pair["test"] == "McNemar, mid-p"
    assert float(pair["p_value"]) == pytest.approx(1 / 2**7)
    assert pair["p_holm"] != ""
    assert "Sensitivity       0.350" in done.stdout.split("eff minus vit")[1]
    reader = found["reader R1", "mask", "call", "all", "specificity"]
    assert (reader["n"], float(reader["estimate"])) == ("20", 18 / 20)
    assert "reader R1         1.000" in done.stdout
    mean = found["readers", "mask", "call", "all", "sensitivity"]
    assert (mean["n"], float(mean["estimate"])) == ("20", pytest.approx(0.95))
    assert mean["interval"] == "obuchowski-rockette, wilson"
    assert "mean              0.950" in done.stdout
    assert "vit - readers" in done.stdout
    assert ("reader R2 aided-reader R2", "mask", "aid", "all", "sensitivity") in found
    assert "readers.imrmc" in done.stdout
    assert "BEGIN DATA:" in (workspace / "step3_testing/testing/readers.imrmc").read_text()
    assert ("vit-reader R1", "mask", "two_stage", "all", "sensitivity") in found
    assert "reader R1" in (workspace / "step3_testing/testing/report.html").read_text()


@pytest.mark.slow
def test_somebody_elses_file_for_imrmc_stays(workspace):
    theirs = workspace / "step3_testing/testing/readers.imrmc"
    theirs.write_text("my study\n")
    calls = workspace / "calls.csv"
    calls.write_text("case,reader,call\na,R1,1\n")
    done = run(workspace, "--readers", str(calls))
    assert done.returncode == 2
    assert "did not write" in done.stderr
    assert theirs.read_text() == "my study\n"
    assert run(workspace, "--replicates", "40").returncode == 0
    assert theirs.read_text() == "my study\n"


@pytest.mark.slow
def test_a_run_without_readers_leaves_no_file_for_imrmc_of_an_earlier_one(workspace):
    ours = workspace / "step3_testing/testing/readers.imrmc"
    calls = workspace / "calls.csv"
    calls.write_text("case,reader,call\na,R1,1\n")
    assert run(workspace, "--readers", str(calls), "--replicates", "40").returncode == 0
    assert ours.exists()
    assert run(workspace, "--replicates", "40").returncode == 0
    assert not ours.exists()


# --- what it refuses -------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_results(tmp_path):
    message = refused(tmp_path)
    for system in ("eff", "vit"):
        for name in ("cases.csv", "meta.json"):
            assert f"step3_testing/testing/result_{system}/{name}" in message
    assert "step3_testing/testing && bash inference.sh" in message
    assert "--system" not in message


@pytest.mark.slow
def test_results_of_one_system_only(tmp_path):
    write_result(tmp_path, "eff")
    message = refused(tmp_path)
    assert "result_vit/cases.csv" in message
    assert "result_eff" not in message
    assert "--system eff" in message
    assert run(tmp_path, "--system", "eff", "--replicates", "40").returncode == 0


def test_edited_results(workspace):
    path = workspace / "step3_testing/testing/result_eff/cases.csv"
    path.write_text(path.read_text().replace("0.95", "0.96"))
    with pytest.raises(Refusal, match=r"result_eff/cases.csv is not the file that") as refusal:
        read_results(("eff", "vit"))
    assert "bash inference.sh" in str(refusal.value)


def test_other_test_films(workspace):
    write_result(workspace, "vit", films="e" * 64)
    with pytest.raises(Refusal, match="eff and vit are not of the same test films") as refusal:
        read_results(("eff", "vit"))
    assert "`films` hash" in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--replicates", "10"), "--replicates 10 is too few"),
        (("--seed", "-1"), "--seed -1 is negative"),
        (("--prevalence", "0"), "--prevalence 0.0 is not between 0 and 1"),
        (("--prevalence", "nan"), "--prevalence nan is not between 0 and 1"),
    ],
)
def test_options_that_give_no_interval(arguments, message):
    with pytest.raises(Refusal, match=message):
        parse_report("", arguments)


@pytest.mark.slow
def test_an_unknown_system_is_no_traceback(workspace):
    done = run(workspace, "--system", "resnet")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("row", "column", "value", "found"),
    [
        (0, "probability", "1.5", "row 1 after the header: probability is '1.5', not a number from 0 to 1"),
        (11, "probability", "-0.1", "row 12 after the header: probability is '-0.1'"),
        (4, "probability", "", "row 5 after the header: probability is ''"),
        (4, "probability", "inf", "row 5 after the header: probability is 'inf'"),
        (4, "fold_3", "high", "row 5 after the header: fold_3 is 'high'"),
        (1, "has_mask", "2", "row 2 after the header: has_mask is '2', not 0 or 1"),
        (1, "report", "2", "row 2 after the header: report is '2', not 0 or 1 or empty"),
        (1, "report", "", "row 2 after the header: report is '', not 0 or 1"),
        (1, "two_stage", "True", "row 2 after the header: two_stage is 'True', not 0 or 1"),
        (1, "case", "", "row 2 after the header: case is '', not a name"),
        (1, "patient", "", "row 2 after the header: patient is '', not a name"),
        (6, "case", "c", "row 7 after the header: case c is also row 3"),
        (0, "mask_area_fraction", "", "row 1 after the header: mask_area_fraction is ''"),
        (0, "mask_area_fraction", "0", "mask_area_fraction is '0', not a number above 0 to 1"),
        (6, "mask_area_fraction", "0.1", "mask_area_fraction is '0.1' where there is none"),
        (0, "dice_segmentation", "", "row 1 after the header: dice_segmentation is ''"),
        (0, "dice_segmentation", "1.01", "row 1 after the header: dice_segmentation is '1.01'"),
        (
            0,
            "dice_positives",
            "0.5",
            "dice_positives is 0.5, but the decision and dice_segmentation give 0.6",
        ),
        (0, "stage_1", "0", "stage_1 is 0, but probability 0.9 and cls_threshold 0.5 give 1"),
        (0, "probability", "0.0", "probability is 0.0, but the mean of the folds is 0.9"),
        (7, "fold_0", "0.5", "probability is 0.6, but the mean of the folds is 0.58"),
        (2, "two_stage", "1", "two_stage is 1, but stage_1 1, area_pixels 5 and seg_threshold 10 give 0"),
        (2, "area_pixels", "", "row 3 after the header: area_pixels is '', not a number from 0 to 262144"),
        (1, "area_pixels", "", "row 2 after the header: area_pixels is '', not a number from 0 to 262144"),
        (8, "area_pixels", "5", "row 9 after the header: area_pixels is '5' where there is none"),
        (0, "area_pixels", "262145", "row 1 after the header: area_pixels is '262145'"),
        (0, "area_pixels", "51", "area_fraction is 0.00019073486328125, but area_pixels gives"),
        (0, "area_fraction", "", "row 1 after the header: area_fraction is ''"),
        (8, "area_fraction", "0.1", "row 9 after the header: area_fraction is '0.1' where there is none"),
        (0, "area_cm2", "", "row 1 after the header: area_cm2 is ''"),
        (0, "area_cm2", "7", "area_cm2 is 7, but area_fraction and film_cm2 give 0.228"),
        (2, "area_cm2", "7", "row 3 after the header: area_cm2 is '7' where there is none"),
        (8, "area_cm2", "7", "row 9 after the header: area_cm2 is '7' where there is none"),
        (0, "iou", "", "row 1 after the header: iou is ''"),
        (5, "iou", "0.5", "row 6 after the header: iou is '0.5' where there is none"),
        (0, "iou", "0.5", "iou is 0.5, but dice_segmentation gives 0.428571"),
        (
            5,
            "dice_segmentation",
            "0.5",
            "row 6 after the header: dice_segmentation is '0.5' where there is none",
        ),
        (5, "dice_positives", "0", "row 6 after the header: dice_positives is '0' where there is none"),
        (0, "hd95", "", "row 1 after the header: hd95 is '', not a number of at least 0"),
        (0, "hd95", "-1", "row 1 after the header: hd95 is '-1', not a number of at least 0"),
        (0, "hd95", "inf", "row 1 after the header: hd95 is 'inf', not a number of at least 0"),
        (5, "hd95", "3", "row 6 after the header: hd95 is '3' where there is none"),
        (0, "nsd", "1.5", "row 1 after the header: nsd is '1.5', not a number from 0 to 1"),
        (5, "nsd", "1", "row 6 after the header: nsd is '1' where there is none"),
        (0, "distance_unit", "cm", "row 1 after the header: distance_unit is 'cm', not mm or px"),
        (
            0,
            "distance_unit",
            "px",
            "row 1 after the header: area_cm2 is '0.2288818359375' where there is none",
        ),
        (0, "film_cm2", "", "row 1 after the header: film_cm2 is '', not a number of at least 0"),
        (0, "age", "old", "row 1 after the header: age is 'old', not a number of at least 0"),
        (0, "sex", "W", "row 1 after the header: sex is 'W', not M or F or empty"),
        (0, "chest_tube", "2", "row 1 after the header: chest_tube is '2', not 0 or 1 or empty"),
        (2, "rule", "positive", "rule is positive, but the one that decided is negative: area"),
    ],
)
def test_values_that_cannot_be(workspace, row, column, value, found):
    rows = case_rows()
    rows[row][column] = value
    write_result(workspace, "eff", rows)
    with pytest.raises(Refusal) as refusal:
        read_results(("eff", "vit"))
    assert found in refusal.value.details["found"]


@pytest.mark.parametrize("column", [name for name, column in COLUMNS.items() if not column.later])
def test_a_missing_column(workspace, column):
    write_result(workspace, "eff", columns=[name for name in COLUMNS if name != column])
    with pytest.raises(Refusal, match="lacks columns") as refusal:
        read_results(("eff",))
    assert refusal.value.details["missing"] == column


def test_results_of_an_earlier_version_lack_columns_and_are_read(workspace):
    later = {name for name, column in COLUMNS.items() if column.later}
    assert {"laterality", "hit", "lesion_scores", "thumbnail_probability"} <= later
    for system in ("eff", "vit"):
        write_result(workspace, system, columns=[name for name in COLUMNS if name not in later])
    cases = read_results(("eff", "vit"))["eff"].cases
    assert np.isnan(cases.column("laterality")).all()
    start.bootstrap("", ["--replicates", "40"])
    with open(workspace / "step3_testing" / "testing" / "metrics.csv", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    of_them = (rows["laterality"], rows["auroc_over_thumbnail"], rows["no_answer"])
    assert {(row["n"], row["estimate"]) for row in of_them} == {("0", "")}
    page = (workspace / "step3_testing" / "testing" / "report.html").read_text(encoding="utf-8")
    assert "turned or inverted): eff unknown, vit unknown." in page


def test_films_without_an_answer_are_counted_and_change_no_other_metric(workspace):
    """Every fourth of 60 films, five of the 20 positives; 25 are called."""
    found = []
    for declined in (None, lambda i: int(i % 4 == 0)):
        rows = case_rows(enough_films())
        for i, row in enumerate(rows):
            row["no_answer"] = declined(i) if declined else ""
        for system in ("eff", "vit"):
            write_result(workspace, system, rows)
        start.bootstrap("", ["--replicates", "40"])
        with open(workspace / "step3_testing" / "testing" / "metrics.csv", newline="") as file:
            found.append(list(csv.DictReader(file)))
    own = ("no_answer", "no_answer_positives", "sensitivity_answered", "specificity_answered")
    before, after = ([row for row in rows if row["metric"] not in own] for rows in found)
    assert before == after
    place = {"system": "eff", "reference": "mask", "decision": "two_stage", "stratum": "all"}
    of_all = {row["metric"]: row for row in found[1] if place.items() <= row.items()}
    told = {name: (float(of_all[name]["estimate"]), of_all[name]["n"]) for name in own}
    assert told == {
        "no_answer": (0.25, "60"),
        "no_answer_positives": (0.25, "20"),
        "sensitivity_answered": (1.0, "15"),
        "specificity_answered": (0.9, "30"),
    }
    ends = tuple(float(of_all["no_answer"][end]) for end in ("ci_low", "ci_high"))
    assert ends == pytest.approx(wilson_interval(15, 60))
    page = (workspace / "step3_testing" / "testing" / "report.html").read_text(encoding="utf-8")
    assert "turned or inverted): eff 15, vit 15." in page


def test_every_column_is_read(workspace):
    rows = case_rows()
    rows[0] |= {"age": "", "sex": "", "view": "", "manufacturer": "", "chest_tube": "1"}
    rows[1]["chest_tube"] = "0"
    for system in ("eff", "vit"):
        write_result(workspace, system, rows)
    cases = read_results(("eff", "vit"))["vit"].cases
    known = [film[0] not in PIXELS for film in FILMS]
    assert cases.in_mm.tolist() == known
    np.testing.assert_array_equal(cases.film_cm2, np.where(known, FILM_CM2, np.nan))
    pixels = np.array([np.nan if film[6] == "" else film[6] for film in FILMS])
    np.testing.assert_allclose(cases.area_fraction, pixels / 512**2)
    dice = np.array([np.nan if film[7] == "" else film[7] for film in FILMS])
    for name, expected in (("iou", dice / (2 - dice)), ("hd95", 20 * (1 - dice)), ("nsd", dice**0.5)):
        np.testing.assert_allclose(getattr(cases, name), expected)
    np.testing.assert_array_equal(cases.age, [np.nan] + 11 * [60])
    assert cases.sex.tolist() == [""] + 11 * ["F"]
    assert cases.view.tolist() == [""] + 11 * ["AP"]
    assert cases.manufacturer.tolist() == [""] + 11 * ["Acme, Inc."]
    np.testing.assert_array_equal(cases.chest_tube, [1, 0] + 10 * [np.nan])


def test_films_without_a_label_are_left_out(workspace):
    films = [(*film[:3], "", *film[4:]) if film[0] in "gi" else film for film in FILMS]
    for system in ("eff", "vit"):
        write_result(workspace, system, case_rows(films))
    for result in read_results(("eff", "vit")).values():
        assert result.cases.case.tolist() == list("abcdefhjkl")
        assert result.unlabelled == ("g", "i")
        assert result.meta["n_cases"] == 12


def test_no_film_with_a_label(workspace):
    write_result(workspace, "eff", case_rows([(*film[:3], "", *film[4:]) for film in FILMS[6:]]))
    with pytest.raises(Refusal, match="has a label, so there is nothing to compare the system with"):
        read_results(("eff",))


def test_unlabelled_films_are_read_with_the_same_doubts(workspace):
    rows = case_rows([(*film[:3], "", *film[4:]) if film[0] == "g" else film for film in FILMS])
    rows[6]["two_stage"] = "0"
    write_result(workspace, "eff", rows)
    with pytest.raises(Refusal) as refusal:
        read_results(("eff",))
    assert "row 7 after the header: two_stage is 0" in refusal.value.details["found"]


def test_columns_are_found_by_name(workspace):
    write_result(workspace, "eff", columns=(*tuple(COLUMNS)[::-1], "added_later"))
    cases = read_results(("eff", "vit"))["eff"].cases
    assert cases.probability.tolist() == [film[5] for film in FILMS]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"cls_threshold": None}, "meta.json is incomplete"),
        ({"cls_threshold": "0.5"}, "cls_threshold is '0.5'"),
        ({"seg_threshold": float("nan")}, "seg_threshold is nan"),
        ({"image_size": "512"}, "image_size is '512'"),
        ({"nsd_tolerance_mm": None}, "meta.json is incomplete"),
        ({"system": "vit"}, "meta.json is of another system"),
        ({"n_cases": 11}, "12 rows, but n_cases of meta.json is 11"),
    ],
)
def test_a_meta_file_that_does_not_fit(workspace, meta, message):
    write_result(workspace, "eff", **meta)
    with pytest.raises(Refusal) as refusal:
        read_results(("eff",))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "not a CSV file with a header"),
        (b"\xff\xfe", "not a CSV file with a header"),
        (",".join(COLUMNS).encode() + b"\n", "no film"),
        (
            ",".join(COLUMNS).encode() + b"\na,b\n",
            f"row 1 after the header: 2 cells where the header has {len(COLUMNS)}",
        ),
    ],
)
def test_a_file_that_is_no_table(workspace, content, found):
    folder = write_result(workspace, "eff", n_cases=0, cases_sha256=digest(content))
    (folder / "cases.csv").write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        read_results(("eff",))
    assert found in refusal.value.details["found"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda films: films[:-1], "1 cases are in one of them only, first l"),
        (lambda films: [*films[:-1], ("m", *films[-1][1:])], "2 cases are in one of them only, first l"),
        (lambda films: [*films[:-1], ("l", "p9", *films[-1][2:])], "patient of case l differs"),
        (lambda films: [*films[:-1], (*films[-1][:3], 1, *films[-1][4:])], "report of case l differs"),
        (
            lambda films: [(*films[0][:4], 0.02, *films[0][5:]), *films[1:]],
            "mask_area_fraction of case a differs",
        ),
    ],
)
def test_systems_with_other_cases(workspace, change, found):
    write_result(workspace, "vit", case_rows(change(FILMS)))
    with pytest.raises(Refusal, match="not of the same test films") as refusal:
        read_results(("eff", "vit"))
    assert refusal.value.details["found"] == found


@pytest.mark.parametrize(
    ("column", "value"),
    [("age", "61"), ("age", ""), ("sex", "M"), ("view", ""), ("manufacturer", "Other"), ("chest_tube", "0")],
)
def test_systems_whose_films_have_other_facts(workspace, column, value):
    rows = case_rows()
    rows[3][column] = value
    write_result(workspace, "vit", rows)
    with pytest.raises(Refusal, match="not of the same test films") as refusal:
        read_results(("eff", "vit"))
    assert refusal.value.details["found"] == f"{column} of case d differs"
