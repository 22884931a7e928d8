"""A plan before the test: what it holds, what it promises, its verdicts, and the looks that are counted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from test_bootstrap_script import case_rows, enough_films, metrics, write_result

from common import start
from common.command_line import ReportOptions
from common.inference.result_files import read_results
from common.refusal import Refusal
from common.report.looks import note_look
from common.report.terminal import report
from common.statistics.auroc import newcombe_interval, placements
from common.statistics.intervals import tango_interval, wilson_interval
from common.statistics.plan import (
    Plan,
    begin_plan,
    expected_differences,
    expected_intervals,
    plan_sentences,
    read_plan,
    verdicts,
)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    begin_plan(path)
    return path


def test_a_plan_that_was_begun_can_be_read(begun: Path) -> None:
    plan = read_plan(begun)
    assert plan.sha256 == hashlib.sha256(begun.read_bytes()).hexdigest()
    assert abs((date.today() - plan.written).days) <= 1
    assert (plan.margin, plan.prevalence, plan.patients_with, plan.patients_without) == (0.05, 0.05, 100, 900)
    assert list(plan.primary) == ["auroc", "sensitivity", "specificity", "dice_positives"]
    with pytest.raises(Refusal, match="is there already"):
        begin_plan(begun)
    with pytest.raises(Refusal, match="cannot be written"):
        begin_plan(begun.parent / "nowhere" / "plan.toml")
    assert plan.prevalence_with(None) == plan.prevalence_with(0.05) == 0.05
    with pytest.raises(Refusal, match="is not the plan's"):
        plan.prevalence_with(0.1)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("margin = 0.05", "margin = 1.5", "margin is 1.5, not a number between 0 and 1"),
        ("margin = 0.05", "margin = -0.1", "margin is -0.1, not a number between 0 and 1"),
        ("margin = 0.05", "margin = nan", "margin is nan"),
        ("margin = 0.05", 'margin = "5%"', "margin is '5%'"),
        ("margin = 0.05", "", "margin is missing"),
        ("prevalence = 0.05", "prevalence = 0.0", "prevalence is 0.0, not a number between 0 and 1"),
        ("patients_with = 100", "patients_with = 1", "patients_with is 1, not a number from 2"),
        ("patients_with = 100", "patients_with = true", "patients_with is True"),
        ("patients_with = 100", "patients_with = 100\nfilms = 3", "films is unknown"),
        ("auroc = 0.95", "auroc = 95", "auroc is 95, not a number between 0 and 1"),
        ("auroc = 0.95", "auprc = 0.9", "[primary] has auprc; it may have auroc, sensitivity"),
        ("margin = 0.05", "margin 0.05", "no TOML"),
    ],
)
def test_what_no_plan_can_hold(begun: Path, old: str, new: str, found: str) -> None:
    begun.write_text(begun.read_text().replace(old, new, 1))
    with pytest.raises(Refusal) as refused:
        read_plan(begun)
    assert found in str(refused.value)


def test_a_plan_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot be read"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(Refusal, match="is no TOML"):
        read_plan(tmp_path / "latin.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(Refusal, match="is no plan"):
        read_plan(tmp_path / "empty.toml")


PLAN = Plan(
    "a" * 64, date(2026, 1, 2), 0.05, 0.1, 40, 300, {"auroc": 0.9, "sensitivity": 0.8, "specificity": 0.95}
)


def test_how_sure_it_can_be() -> None:
    assert expected_intervals(PLAN) == {
        "auroc": newcombe_interval(0.9, 40, 300),
        "sensitivity": wilson_interval(32, 40),
        "specificity": wilson_interval(285, 300),
    }
    first, second, third = plan_sentences(PLAN)
    assert first.startswith(
        "Plan of 2026-01-02, SHA-256 aaaaaaaaaaaa: primary are auroc, sensitivity, specif"
    )
    low, high = wilson_interval(32, 40)
    assert f"Sensitivity 0.800 ({low:.3f}-{high:.3f}), width {high - low:.3f}" in second
    low, high = tango_interval(6.4, 6.4, 40)
    assert f"Sensitivity ({low:+.3f} to {high:+.3f}), width {high - low:.3f}, too wide for the" in third
    assert "Specificity" not in third
    (only,) = plan_sentences(replace(PLAN, primary={"specificity": 0.95}))[1:]
    assert only.startswith("As expected")


def test_intervals_of_differences_are_those_of_systems_that_err_independently() -> None:
    """Of simulated pairs, 95% of the differences lie in what the plan expects, or a little more."""
    plan = replace(PLAN, patients_with=200, patients_without=400, primary={"auroc": 0.9, "sensitivity": 0.8})
    draw = np.random.default_rng(0)
    calls = draw.random((4000, 2, plan.patients_with)) < 0.8
    differences = np.subtract(*calls.mean(axis=2).T)
    low, high = expected_differences(plan)["sensitivity"]
    assert 0.94 < np.mean((low < differences) & (differences < high)) < 0.97
    assert (low, high) == pytest.approx((-high, high), abs=1e-9)
    positive = np.arange(600) < plan.patients_with
    scores = draw.normal(positive * np.sqrt(2) * 1.2815515655446004, 1, (800, 600))
    aurocs = [placements(each, positive)[positive].mean() / 400 for each in scores]
    low, high = expected_differences(plan)["auroc"]
    gaps = np.subtract(aurocs[::2], aurocs[1::2])
    assert 0.93 < np.mean((low < gaps) & (gaps < high)) < 0.995


def difference(system: str, low: float | None, high: float | None, **other: object) -> dict:
    row = {"system": system, "metric": "sensitivity", "reference": "mask", "decision": "two_stage"}
    row |= {"stratum": "all", "n": 40, "ci_low": low, "ci_high": high}
    return row | {"estimate": None if low is None else (low + high) / 2} | other


def test_verdicts() -> None:
    rows = [
        difference("eff-vit", -0.04, 0.06),
        difference("eff-reader A", -0.06, 0.02),
        difference("vit-reader A", -0.3, -0.06),
        difference("vit-reader B", None, None),
        difference("eff", 0.7, 0.9),
        difference("eff-vit", -0.04, 0.06, metric="specificity"),
        difference("eff-vit", -0.04, 0.06, stratum="small"),
        difference("eff-vit", -0.04, 0.06, reference="report"),
        difference("eff-vit", -0.05, 0.06, metric="auroc"),
    ]
    said = verdicts(PLAN, rows)
    assert [each.split(",")[0] for each in said] == [
        *("eff-vit", "eff-reader A", "vit-reader A", "vit-reader B", "eff-vit"),
    ]
    assert said[0] == (
        "eff-vit, Sensitivity: not inferior by the margin 0.05: +0.010 (-0.040 to +0.060), n=40."
    )
    assert "not shown to be not inferior" in said[1]
    assert "inferior by more than the margin" in said[2]
    assert "no verdict (n=40)" in said[3]
    assert "AUROC: not shown to be not inferior" in said[4]  # the margin itself is lost
    assert not any("AUROC" in each for each in verdicts(replace(PLAN, primary={"sensitivity": 0.8}), rows))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    for system in ("eff", "vit"):
        write_result(tmp_path, system, case_rows(enough_films()))
    return tmp_path


def test_looks_are_counted_and_a_changed_plan_is_told(workspace: Path) -> None:
    results = read_results(("eff", "vit"))
    plan, changed = PLAN, replace(PLAN, sha256="b" * 64)
    assert note_look(results, plan) == ["Looks at these test films so far: 1 (looks.json)."]
    assert note_look(results, plan) == note_look({"vit": results["vit"]}, plan)  # nothing new
    said = note_look(results, changed)
    assert said[0] == "Looks at these test films so far: 2 (looks.json)."
    assert "the plan changed after the first look, which was by the plan with SHA-256 aaaaaaaaaaaa" in said[1]
    write_result(workspace, "eff", case_rows(enough_films())[::-1])
    assert note_look(read_results(("eff", "vit")), plan) == [
        "Looks at these test films so far: 3 (looks.json)."
    ]
    for system in ("eff", "vit"):
        write_result(workspace, system, case_rows(enough_films()), films="e" * 64)
    assert "so far: 1 " in note_look(read_results(("eff", "vit")), None)[0]  # at other films
    assert "the first look, which was without a plan" in note_look(read_results(("eff", "vit")), plan)[1]
    path = workspace / "step3_testing/testing/looks.json"
    assert len(json.loads(path.read_text())["looks"]) == 5
    for malformed in ("[]", "{}", '{"looks": [1]}', '{"looks": [{"films": 1}]}'):
        path.write_text(malformed)
        with pytest.raises(Refusal):
            note_look(results, plan)


def test_every_output_states_the_plan(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = workspace / "plan.toml"
    begin_plan(path)
    folder = workspace / "step3_testing/testing"
    options = ReportOptions(plan=path, replicates=40)
    report(options)
    said = " ".join(capsys.readouterr().out.split())
    plan = read_plan(path)
    told = [*plan_sentences(plan), "Looks at these test films so far: 1 (looks.json)."]
    told.append("eff-vit, Sensitivity: not")
    facts = json.loads((folder / "metrics.json").read_text())
    assert facts["plan"] == {"sha256": plan.sha256, "written": plan.written.isoformat()}
    assert facts["prevalence"] == plan.prevalence
    page = (folder / "report.html").read_text()
    for each in told:
        assert each in said
        assert each in page
        assert each in " ".join(facts["planned"])
    primary = [row for row in metrics(workspace) if f"primary by the {plan.name}" in row["note"]]
    assert {row["system"] for row in primary} == {"eff", "vit", "eff-vit"}
    assert {row["metric"] for row in primary} == set(plan.primary)
    assert "plan changed" not in page
    assert {row["plan"] for row in metrics(workspace)} == {plan.name}
    before = (folder / "metrics.json").read_bytes()
    report(options)
    assert (folder / "metrics.json").read_bytes() == before
    path.write_text(path.read_text().replace("0.85", "0.80"))
    report(options)
    for name in ("metrics.json", "report.html"):
        assert "Warning: the plan changed after the first look" in (folder / name).read_text()
    assert "Warning: the plan changed after the first look" in " ".join(capsys.readouterr().out.split())
    told = f"{read_plan(path).name}; changed after the first look"
    assert {row["plan"] for row in metrics(workspace)} == {told}
    report(replace(options, plan=None))
    assert {row["plan"] for row in metrics(workspace)} == {""}


def test_a_plan_is_begun_before_there_are_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    start.bootstrap("", ["--write-plan", str(tmp_path / "plan.toml")])
    assert "fill it in before the first look" in capsys.readouterr().out
    assert read_plan(tmp_path / "plan.toml").primary["auroc"] == 0.95
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]
