"""The two systems against each other: differences and tests, against plain loops and other libraries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest, false_discovery_control, norm
from sklearn.metrics import roc_auc_score

from common.statistics import compare_systems
from common.statistics.bootstrap import bootstrap
from common.statistics.compare_systems import bootstrap_p, comparison_rows, delong, holm, mcnemar, pair_rows
from common.statistics.intervals import (
    effective_films,
    percentile_interval,
    percentile_p,
    percentile_tail,
    tango_interval,
)
from common.statistics.metric_catalogue import METRICS
from common.statistics.tested_films import Cases


def simulated(seed: int, n: int = 120, patients: int | None = None) -> Cases:
    """Films with tied scores of one system; the truth depends on n alone."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    has_mask = truth.random(n) < 0.35
    probability = np.round(np.clip(rng.normal(0.35 + 0.25 * has_mask, 0.2), 0, 1), 1)
    return Cases(
        case=np.array([f"c{i}" for i in range(n)]),
        patient=np.array([f"p{i % (patients or n)}" for i in range(n)]),
        has_mask=has_mask,
        report=has_mask ^ (truth.random(n) < 0.1),
        mask_area_fraction=np.where(has_mask, truth.uniform(0.001, 0.12, n), np.nan),
        probability=probability,
        stage_1=probability >= 0.5,
        two_stage=(probability >= 0.5) & (rng.random(n) < 0.8),
        dice_segmentation=np.where(has_mask, rng.random(n), np.nan),
    )


def compared(systems: dict[str, Cases], reference: str = "mask") -> dict[tuple[str, str, str], dict]:
    """The rows of the pair by (decision, stratum, metric), from 200 replicates."""
    rows = comparison_rows(systems, bootstrap(systems, reference, 200, seed=3), reference)
    return {(row["decision"], row["stratum"], row["metric"]): row for row in rows}


# --- tests -----------------------------------------------------------------------------------------


def placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's components as the paper defines them: each positive against each negative."""
    wins = np.array([[(x > y) + (x == y) / 2 for y in scores[~positive]] for x in scores[positive]])
    return wins.mean(axis=1), wins.mean(axis=0)


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(4))
def test_delong_equals_placement_values(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(90) < 0.3
    common = rng.normal(size=90) + positive
    first, second = (np.round(common + rng.normal(0, spread, 90), decimals) for spread in (0.5, 1.5))
    (v10, v01), (w10, w01) = placements(first, positive), placements(second, positive)
    covariance = np.cov(v10, w10) / positive.sum() + np.cov(v01, w01) / (~positive).sum()
    contrast = np.array([1, -1])
    standard_error = math.sqrt(contrast @ covariance @ contrast)
    difference = roc_auc_score(positive, first) - roc_auc_score(positive, second)
    expected = (difference, standard_error, 2 * norm.sf(abs(difference) / standard_error))
    np.testing.assert_allclose(delong(first, second, positive), expected, rtol=0, atol=1e-12)
    swapped = delong(second, first, positive)
    assert swapped.difference == pytest.approx(-difference, abs=1e-12)
    assert swapped.p == pytest.approx(expected[2], abs=1e-12)


def test_delong_depends_on_ranks_only() -> None:
    rng = np.random.default_rng(1)
    positive, first, second = rng.random(60) < 0.5, rng.random(60), rng.random(60)
    assert delong(np.exp(9 * first), second**3, positive) == delong(first, second, positive)


def test_delong_where_nothing_varies() -> None:
    rng = np.random.default_rng(2)
    scores, positive = rng.random(40), rng.random(40) < 0.4
    assert delong(scores, scores, positive) == (0, 0, 1)
    assert delong(scores, scores / 7, positive) == (0, 0, 1)  # other scores, the same order
    apart = positive.astype(float)
    assert delong(apart, 1 - apart, positive)[:2] == (1, 0)
    assert math.isnan(delong(apart, 1 - apart, positive).p)
    for few in (np.zeros(40, bool), np.ones(40, bool), np.arange(40) < 1):
        assert all(map(math.isnan, delong(scores, 1 - scores, few)))


def mid_p(first: int, second: int) -> float:
    """By SciPy: the exact p-value less the probability of the split itself."""
    n = first + second
    return min(1.0, binomtest(first, n, 0.5).pvalue - binom.pmf(first, n, 0.5))


def test_mcnemar_by_hand_and_against_the_binomial_test() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == 0.03125
    assert mcnemar(1, 7) == (2 * (1 + 8) - 8) / 2**8
    for first in range(12):
        assert mcnemar(first, first) == 1
        for second in range(first + 1, 30):
            expected = pytest.approx(mid_p(first, second), rel=1e-12)
            assert mcnemar(first, second) == mcnemar(second, first) == expected
    assert mcnemar(400, 700) == pytest.approx(mid_p(400, 700), rel=1e-9)


def test_paired_proportions_have_tangos_interval_and_a_test_that_agrees() -> None:
    """Films of one patient each, or of few: by the numbers of films that only one of two called right."""
    for patients in (None, 40):
        systems = {"eff": simulated(1, patients=patients), "vit": simulated(2, patients=patients)}
        eff, vit = systems.values()
        positive = eff.has_mask
        calls = eff.two_stage, vit.two_stage
        first, second = (int((positive & a & ~b).sum()) for a, b in (calls, calls[::-1]))
        n = int(positive.sum())
        row = compared(systems)["two_stage", "all", "sensitivity"]
        weight = 1.0
        if patients:
            difference = eff.two_stage[positive].astype(float) - vit.two_stage[positive]
            number = np.array([int(name[1:]) for name in eff.patient[positive]])
            weight = effective_films(difference, number) / n
            assert weight < 1
            z = (first - second) / math.sqrt(first + second) * math.sqrt(weight)
            assert row["p_value"] == pytest.approx(2 * norm.sf(abs(z)))
            assert row["test"] == "McNemar, effective n"
        expected = tango_interval(first * weight, second * weight, n * weight)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected)
        assert row["interval"] == ("tango, effective n" if patients else "tango")
        assert (row["p_value"] < 0.05) == (not expected[0] <= 0 <= expected[1])


def test_two_systems_with_the_same_calls_have_an_interval_with_width() -> None:
    for patients in (None, 40):
        systems = {"eff": simulated(1, patients=patients), "vit": simulated(1, patients=patients)}
        row = compared(systems)["two_stage", "all", "sensitivity"]
        assert (row["estimate"], row["p_value"]) == (0, 1)
        assert row["ci_low"] == pytest.approx(-row["ci_high"])
        assert row["ci_high"] > 0.05


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.001]) == pytest.approx([1, 1, 0.003])
    # 0.01 is the smallest of four, 0.02 the second; the one that could not be made counts as the last
    assert holm([0.02, math.nan, 0.01, 0.9]) == pytest.approx([0.06, math.nan, 0.04, 1], nan_ok=True)
    assert holm([]) == []


def test_holm_rejects_what_stepping_down_rejects() -> None:
    """Holm's own wording: compare the k-th smallest with level / (m - k + 1), stop at the first failure."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        p = rng.random(5) ** 4
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for k, i in enumerate(np.argsort(p)):
                if p[i] > level / (5 - k):
                    break
                rejected.add(int(i))
            assert {i for i, adjusted in enumerate(holm(p.tolist())) if adjusted <= level} == rejected
        assert (np.array(holm(p.tolist())) >= false_discovery_control(p) - 1e-12).all()


def test_bootstrap_p_by_hand() -> None:
    """So many patients that nothing is expanded."""
    many = 10**9
    assert bootstrap_p(np.array([1.0] * 97 + [-1, 0, 2]), many) == pytest.approx(2 * 3 / 101)
    assert bootstrap_p(-np.array([1.0] * 97 + [-1, 0, 2]), many) == pytest.approx(2 * 3 / 101)
    assert bootstrap_p(np.ones(999), many) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.zeros(99), many) == 1
    assert bootstrap_p(np.array([1.0] * 96 + [np.nan] * 4), many) == pytest.approx(2 / 97)
    assert math.isnan(bootstrap_p(np.array([1.0] * 90 + [np.nan] * 10), many))


@pytest.mark.parametrize("patients", [5, 20, 1000])
def test_bootstrap_p_rejects_0_where_the_interval_does(patients: int) -> None:
    differences = np.random.default_rng(0).normal(2, 1, 10_000)
    p = bootstrap_p(differences, patients)
    assert percentile_interval(differences, patients, 1 - p * 1.1)[0] > 0
    assert percentile_interval(differences, patients, 1 - p / 1.1)[0] < 0


# --- rows ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["mask", "report"])
def test_rows_of_the_pair(reference: str) -> None:
    systems = {"eff": simulated(1), "vit": simulated(2)}
    found = bootstrap(systems, reference, 200, seed=3)
    rows = compared(systems, reference)
    for (decision, stratum, metric), row in rows.items():
        one, other = (found[system, decision, stratum, metric] for system in systems)
        assert row["system"] == "eff-vit"
        assert row["reference"] == reference
        assert row["n"] == min(one.n, other.n)
        if math.isnan(one.estimate):
            assert (row["estimate"], row["interval"]) == (None, "none")
            assert "not estimable" in row["note"]
            continue
        assert row["estimate"] == pytest.approx(one.estimate - other.estimate)
        if one.too_few or other.too_few:
            assert (row["ci_low"], row["ci_high"], row["interval"]) == (None, None, "none")
            assert "too few films" in row["note"]
            continue
        if not row["interval"].startswith("percentile"):
            assert row["ci_low"] <= row["estimate"] <= row["ci_high"]
            assert METRICS[metric].kind == "proportion" or row["interval"] == "delong"
            assert (row["interval"] == "delong") == (metric == "auroc")
            continue
        differences = one.replicates - other.replicates
        assert np.isnan(differences).mean() < 0.05
        tail = percentile_tail(min(one.patients, other.patients))
        low, high = np.nanquantile(differences, [tail, 1 - tail])
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
        assert row["interval"] == "percentile"
        assert ("case mix" in row["note"]) == METRICS[metric].case_mix
        assert (row["p_value"] is None) == (row["test"] is None)
        assert row["p_value"] is None or stratum == "all"
    eff, vit = systems.values()
    positive = eff.positive(reference)
    auroc = roc_auc_score(positive, eff.probability) - roc_auc_score(positive, vit.probability)
    assert rows["two_stage", "all", "auroc"]["estimate"] == pytest.approx(auroc, abs=1e-12)
    assert {metric for *_, metric in rows} == {
        *("auroc", "auprc", "brier", "sensitivity_at_specificity_90", "sensitivity_at_specificity_95"),
        *("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "false_positive_area"),
        *("dice_segmentation", "dice_positives", "dice_true_positives", "dice_all_films"),
        *("iou", "hd95_mm", "hd95_px", "nsd_mm", "nsd_px", "dice_full_size", "dice_lesser_half"),
        *("laterality", "outline_laterality", "hit", "lesions_found", "false_outlines"),
        "sensitivity_without_tube",
    }


def test_tests_of_the_pair_where_each_patient_has_one_film() -> None:
    systems = {"eff": simulated(1), "vit": simulated(2)}
    rows, (eff, vit) = compared(systems), systems.values()
    row = rows["two_stage", "all", "auroc"]
    assert (row["test"], row["note"]) == ("DeLong", "")
    assert row["p_value"] == delong(eff.probability, vit.probability, eff.has_mask).p
    for decision in ("two_stage", "stage_1"):
        calls = [system.called(decision) for system in systems.values()]
        for metric, truth in (("sensitivity", True), ("specificity", False)):
            cells = [(a, b) for a, b, t in zip(*calls, eff.has_mask, strict=True) if t == truth]
            only_eff, only_vit = cells.count((truth, not truth)), cells.count((not truth, truth))
            row = rows[decision, "all", metric]
            assert row["test"] == "McNemar, mid-p"
            assert row["p_value"] == pytest.approx(mid_p(only_eff, only_vit))
            assert row["note"] == f"right in eff only: {only_eff}, in vit only: {only_vit}"
            assert row["estimate"] == pytest.approx((only_eff - only_vit) / len(cells))
    row = rows["two_stage", "all", "dice_positives"]
    assert row["test"] == "bootstrap of patients"
    tested = {(d, m) for (d, _, m), row in rows.items() if row["test"]}
    assert len(tested) == 8


def test_films_that_a_reading_leaves_out_enter_no_test() -> None:
    systems = {"eff": simulated(1), "vit": simulated(2)}
    kept = np.flatnonzero(~(systems["eff"].report & ~systems["eff"].has_mask))
    assert len(kept) < 118
    others = {name: cases.taken(kept) for name, cases in systems.items()}
    found, expected = compared(systems, "mask_or_clear"), compared(others, "mask")
    for metric in ("auroc", "sensitivity", "specificity"):
        row, other = (each["two_stage", "all", metric] for each in (found, expected))
        for column in ("n", "positives", "estimate", "ci_low", "ci_high", "p_value", "test", "note"):
            assert row[column] == other[column]
        assert row["p_value"] is not None
        assert (row["p_holm"], row["reference"]) == (None, "mask_or_clear")


def test_holm_is_over_the_family_only() -> None:
    systems = {"eff": simulated(1), "vit": simulated(2)}
    rows = compared(systems)
    family = [rows[key[1:]] for key in compare_systems.FAMILY]
    assert [row["p_holm"] for row in family] == holm([row["p_value"] for row in family])
    assert sum(row["p_holm"] is not None for row in rows.values()) == 4
    assert all(row["p_holm"] is None for row in compared(systems, "report").values())


def test_several_films_of_a_patient_take_the_bootstrap() -> None:
    systems = {"eff": simulated(1, patients=90), "vit": simulated(2, patients=90)}
    found, rows = bootstrap(systems, "mask", 200, seed=3), compared(systems)
    row = rows["two_stage", "all", "auroc"]
    one, other = (found[system, "two_stage", "all", "auroc"].replicates for system in systems)
    below, above = sum(one <= other), sum(one >= other)
    patients = min(found[system, "two_stage", "all", "auroc"].patients for system in systems)
    p = percentile_p(min(0.5, (1 + min(below, above)) / 201), patients)
    assert row["p_value"] == pytest.approx(p)
    assert row["test"] == "bootstrap of patients"
    assert "in place of DeLong: several films of a patient" in row["note"]


def test_better_is_positive_and_the_order_of_the_systems_is_fixed() -> None:
    vit = simulated(2)
    perfect = replace(vit, probability=vit.has_mask.astype(float), two_stage=vit.has_mask)
    rows = compared({"vit": vit, "eff": perfect})
    for metric in ("auroc", "sensitivity", "specificity", "ppv", "dice_positives"):
        assert rows["two_stage", "all", metric]["system"] == "eff-vit"
        assert rows["two_stage", "all", metric]["estimate"] > 0


def test_the_same_predictions_differ_by_nothing() -> None:
    for patients in (None, 90):
        cases = simulated(1, patients=patients)
        for row in compared({"eff": cases, "vit": cases}).values():
            assert row["estimate"] in (0, None)
            if row["interval"] != "none":
                assert row["interval"].startswith(("tango", "delong"))
                assert row["ci_low"] < 0 < row["ci_high"]
            assert row["interval"] == "none" or row["ci_low"] == pytest.approx(-row["ci_high"])
            assert row["p_value"] in (1, None)
            assert row["p_holm"] in (1, None)


def test_one_system_gives_no_rows() -> None:
    systems = {"vit": simulated(1)}
    assert comparison_rows(systems, bootstrap(systems, "mask", 50, 0), "mask") == []


@pytest.mark.parametrize("everything", [True, False])
def test_films_of_one_class_only(everything: bool) -> None:
    def single(seed: int) -> Cases:
        cases = simulated(seed)
        same = np.full(len(cases), everything)
        return replace(cases, has_mask=same, mask_area_fraction=np.where(same, 0.01, np.nan))

    rows = compared({"eff": single(1), "vit": single(2)})
    absent, there = ("specificity", "sensitivity") if everything else ("sensitivity", "specificity")
    for metric in ("auroc", absent):
        row = rows["two_stage", "all", metric]
        assert (row["estimate"], row["ci_low"], row["p_value"], row["test"]) == (None,) * 4
        assert "not estimable" in row["note"]
    assert rows["two_stage", "all", there]["p_value"] <= 1


def test_a_metric_that_only_one_has_is_not_estimable() -> None:
    """A system that calls nothing positive has no PPV; n then says so."""
    eff, vit = simulated(1), simulated(2)
    nothing = np.zeros(len(vit), dtype=bool)
    row = compared({"eff": eff, "vit": replace(vit, two_stage=nothing)})["two_stage", "all", "ppv"]
    assert (row["n"], row["estimate"], row["ci_low"], row["interval"]) == (0, None, None, "none")
    assert row["note"].startswith(f"n is {eff.two_stage.sum()} for eff, 0 for vit; ")
    assert row["note"].endswith("; not estimable")


def test_too_few_films_get_neither_interval_nor_test() -> None:
    systems = {"eff": simulated(1, n=26), "vit": simulated(2, n=26)}
    assert systems["eff"].has_mask.sum() < 10
    rows = compared(systems)
    for metric in ("auroc", "sensitivity"):
        row = rows["two_stage", "all", metric]
        assert row["estimate"] is not None
        assert (row["ci_low"], row["p_value"], row["p_holm"], row["test"]) == (None,) * 4
        assert "too few films" in row["note"]
    assert rows["two_stage", "all", "specificity"]["p_value"] is not None
    # the family keeps its size: the tests that were not made still count
    p = rows["two_stage", "all", "specificity"]["p_value"]
    assert rows["two_stage", "all", "specificity"]["p_holm"] == min(1, 4 * p)


def test_any_two_can_be_compared_and_no_case_is_named() -> None:
    pair = {"eff": simulated(1), "reader A": simulated(2)}
    rows = pair_rows(pair, bootstrap(pair, "mask", 60, 0), "mask")
    assert {row["system"] for row in rows} == {"eff-reader A"}
    assert all(row["p_holm"] is None for row in rows)
    text = repr(rows)
    assert not any(repr(name) in text for name in [*pair["eff"].case, *pair["eff"].patient])
