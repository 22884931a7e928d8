"""What a threshold that was chosen on single folds does where their mean decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_bootstrap_script import case_rows, enough_films, write_result

from common.inference.result_files import read_results
from common.report.thresholds_kept import threshold_sentences
from common.stages import N_FOLDS
from common.statistics.bootstrap import bootstrap, metric_rows


def rows_of(folder: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, split: int = 10) -> list[dict]:
    """Metric rows of films of which some split the folds: of 20 positives, with one at 0 and four at 0.9."""
    monkeypatch.setenv("PTX_WORKSPACE", str(folder))
    rows = case_rows(enough_films())
    for row in rows[:split]:
        row |= {"fold_0": 0.0, "probability": 0.72} | {f"fold_{fold}": 0.9 for fold in range(1, N_FOLDS)}
    for row in rows:
        row["stage_1"] = int(row["probability"] >= threshold)
        row["two_stage"] = row["stage_1"]
        row["rule"] = "positive" if row["stage_1"] else "negative: probability"
        row["dice_positives"] = 0.5 * row["two_stage"] if row["has_mask"] else ""
        if not row["has_mask"] and not row["stage_1"]:
            row |= dict.fromkeys(("area_pixels", "area_fraction", "area_cm2", "false_outlines"), "")
            row["false_scores"] = ""
    write_result(folder, "eff", rows, cls_threshold=threshold)
    cases = read_results(("eff",))["eff"].cases
    expected = [np.mean([row[f"fold_{fold}"] >= threshold for fold in range(N_FOLDS)]) for row in rows]
    assert cases.column("fold_votes") == pytest.approx(expected)
    return metric_rows({"mask": bootstrap({"eff": cases}, "mask", 60, 0)})


def test_the_mean_is_stricter_than_single_folds_at_a_high_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(tmp_path, monkeypatch, 0.9)
    found = {row["metric"]: row for row in rows if (row["decision"], row["stratum"]) == ("stage_1", "all")}
    values = {name: found[name]["estimate"] for name in found if name.startswith(("sens", "spec"))}
    assert values["sensitivity"] == 0.5
    assert values["sensitivity_single_folds"] == pytest.approx(0.9)
    assert values["sensitivity_majority"] == 1.0
    assert values["specificity"] == values["specificity_single_folds"] == values["specificity_majority"]
    said = " ".join(threshold_sentences(rows, "eff", 0.9, {"tpr": 0.95, "fpr": 0.15}))
    assert "the mean of the folds, which decides, 0.500 (" in said
    assert "single folds, 0.900 (" in said
    assert "a majority of the folds, 1.000 (" in said
    assert "n=20" in said
    assert "Out of fold, on the training films, they were 0.950 and 0.850." in said
    assert "Warning: averaging the folds moves sensitivity by -0.400" in said
    assert "Warning: sensitivity is -0.450 from what it was out of fold." in said
    assert "specificity by" not in said
    assert "extreme" not in said


def test_no_warning_where_averaging_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(tmp_path, monkeypatch, 0.6, split=0)
    (said,) = threshold_sentences(rows, "eff", 0.6, None)
    assert said.startswith("Stage 1 at the threshold 0.6, sensitivity and specificity: ")
    calm, warning = threshold_sentences(rows, "eff", 0.97, None)
    assert calm.replace("0.97", "0.6") == said
    assert warning.startswith("Warning: cls_threshold 0.97 is extreme")


def test_results_without_folds_say_nothing() -> None:
    row = {"system": "eff", "reference": "mask", "decision": "stage_1", "stratum": "all", "n": 0}
    assert threshold_sentences([row | {"metric": "sensitivity", "estimate": None}], "eff", 0.5, None) == []
