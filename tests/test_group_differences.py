"""Groups of films against the largest of their kind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.statistics.bootstrap import TOO_FEW, Bootstrapped, bootstrap
from common.statistics.compare_systems import bootstrap_p, holm
from common.statistics.group_differences import COMPARED, group_difference_rows, joined
from common.statistics.intervals import percentile_interval
from common.statistics.tested_films import Cases


def films(worse: float) -> Cases:
    """300 films of 200 patients, 90 positive; of sex F, this share of the positives is missed."""
    draw, n = np.random.default_rng(0), 300
    mask, female = np.arange(n) < 90, draw.random(n) < 0.4
    found = np.where(mask, draw.random(n) > np.where(female, worse, 0.1), draw.random(n) < 0.1)
    return Cases(
        case=np.array([f"c{i}" for i in range(n)]),
        patient=np.array([f"p{i % 200}" for i in range(n)]),
        has_mask=mask,
        report=mask,
        mask_area_fraction=np.where(mask, 0.05, np.nan),
        probability=np.clip(0.5 * found + draw.uniform(0, 0.5, n), 0, 1),
        stage_1=found,
        two_stage=found,
        dice_segmentation=np.where(mask, draw.uniform(0.3, 0.9, n), np.nan),
        sex=np.where(female, "F", "M"),
        view=np.where(np.arange(n) % 100 == 0, "PA", "AP"),
        manufacturer=np.where(np.arange(n) < 200, "Acme", ""),
    )


def test_differences_are_of_the_same_resamples() -> None:
    cases = films(0.6)
    found = bootstrap({"eff": cases}, "mask", 500, 0, metrics=COMPARED)
    rows = {(row["stratum"], row["metric"]): row for row in group_difference_rows(found, "mask")}
    assert {stratum for stratum, _ in rows} == {"sex F minus sex M", "view PA minus view AP"}
    row = rows["sex F minus sex M", "sensitivity"]
    one, other = (found["eff", "two_stage", group, "sensitivity"] for group in ("sex F", "sex M"))
    women = cases.has_mask & (cases.sex == "F")
    men = cases.has_mask & (cases.sex == "M")
    assert row["estimate"] == pytest.approx(cases.two_stage[women].mean() - cases.two_stage[men].mean())
    assert row["n"] == women.sum() + men.sum()
    differences, patients = one.replicates - other.replicates, min(one.patients, other.patients)
    assert row["p_value"] == bootstrap_p(differences, patients)
    assert row["ci_high"] < 0
    assert rows["sex F minus sex M", "auroc"]["positives"] == 90
    row = rows["sex F minus sex M", "dice_positives"]
    one, other = (found["eff", "two_stage", group, "dice_positives"] for group in ("sex F", "sex M"))
    differences, patients = one.replicates - other.replicates, min(one.patients, other.patients)
    assert (row["ci_low"], row["ci_high"]) == percentile_interval(differences, patients)


def test_two_groups_without_an_error_have_an_interval_with_width() -> None:
    """10 of 10 against 20 of 20, from Wilson's 0.7225-1 and 0.8389-1."""
    groups = [Bootstrapped(n, 1.0, np.ones(50), n, independent=True, effective=float(n)) for n in (10, 20)]
    assert joined("sensitivity", *groups) == pytest.approx((-0.2775, 0.1611), abs=1e-4)
    groups = [
        Bootstrapped(10, share, np.ones(50), 10, independent=True, effective=10.0) for share in (0.8, 0.5)
    ]
    low, high = 0.3 - np.hypot(0.8 - 0.4902, 0.7634 - 0.5), 0.3 + np.hypot(0.9433 - 0.8, 0.5 - 0.2366)
    assert joined("sensitivity", *groups) == pytest.approx((low, high), abs=1e-3)


def test_all_comparisons_of_a_system_are_one_family() -> None:
    found = bootstrap({"eff": films(0.6), "vit": films(0.1)}, "mask", 300, 0, metrics=COMPARED)
    rows = group_difference_rows(found, "mask")
    for system, women_are_worse in (("eff", True), ("vit", False)):
        tested = [row for row in rows if row["system"] == system and row["p_value"] is not None]
        assert [row["p_holm"] for row in tested] == holm([row["p_value"] for row in tested])
        assert {row["note"] for row in tested} == {f"exploratory: one of {len(tested)} comparisons of groups"}
        sensitivity = next(row for row in tested if row["metric"] == "sensitivity")
        assert (sensitivity["p_holm"] < 0.05) == women_are_worse


def test_a_group_of_few_films_gets_neither_interval_nor_test() -> None:
    found = bootstrap({"eff": films(0.1)}, "mask", 50, 0, metrics=COMPARED)
    few = [row for row in group_difference_rows(found, "mask") if row["stratum"].startswith("view")]
    assert len(few) == len(COMPARED)
    for row in few:
        assert (row["ci_low"], row["p_value"], row["interval"]) == (None, None, "none")
        assert row["note"] == "too few films for an interval"


def test_the_largest_group_may_have_few_positives_too() -> None:
    cases = films(0.1)
    view = np.where(cases.has_mask & (np.arange(300) >= 3), "PA", "AP")  # AP: 213 films, 3 of them positive
    found = bootstrap({"eff": dataclasses.replace(cases, view=view)}, "mask", 200, 0, metrics=COMPARED)
    rows = {(row["stratum"], row["metric"]): row for row in group_difference_rows(found, "mask")}
    row = rows["view PA minus view AP", "sensitivity"]
    assert row["note"] == TOO_FEW
    assert row["ci_low"] is None
    assert row["p_value"] is None


def test_columns_are_those_of_the_other_rows() -> None:
    found = bootstrap({"eff": films(0.1)}, "mask", 50, 0, metrics=COMPARED)
    expected = {"system", "reference", "decision", "stratum", "metric", "n", "positives", "estimate"}
    expected |= {"ci_low", "ci_high", "interval", "note", "p_value", "p_holm", "test"}
    assert all(row.keys() == expected for row in group_difference_rows(found, "mask"))
    one_sex = dataclasses.replace(films(0.1), sex=np.full(300, "F"), view=np.full(300, "AP"))
    assert not group_difference_rows(bootstrap({"eff": one_sex}, "mask", 20, 0, metrics=COMPARED), "mask")
