"""Intervals of AUROCs, against plain sums over pairs and the equations that define them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, t

from common.statistics.auroc import (
    Ranked,
    auroc,
    auroc_difference_interval,
    auroc_interval,
    newcombe_interval,
)
from common.statistics.bootstrap import bootstrap, metric_rows
from common.statistics.compare_systems import comparison_rows
from common.statistics.tested_films import Cases

Z = norm.ppf(0.975)


def drawn(seed: int, films: int = 90, patients: int = 90, distance: float = 1.0) -> Ranked:
    """Scores with ties; patients may have films of both classes."""
    rng = np.random.default_rng(seed)
    positive = np.arange(films) % 3 == 0
    return Ranked(np.round(rng.normal(distance * positive), 1), positive, rng.permutation(films) % patients)


def by_pairs(films: Ranked) -> tuple[float, np.ndarray]:
    """The AUROC, and each film's share of pairs won less it, from every pair."""
    positive, negative = films.scores[films.positive], films.scores[~films.positive]
    wins = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
    deviations = np.empty(len(films.scores))
    deviations[films.positive], deviations[~films.positive] = wins.mean(axis=1), wins.mean(axis=0)
    return wins.mean(), deviations - wins.mean()


def variance(deviations: np.ndarray, films: Ranked) -> float:
    """By patients, one after the other (Obuchowski's; each class has its own small-sample factor)."""
    total = 0.0
    for patient in set(films.patient.tolist()):
        sums = 0.0
        for each in (films.positive, ~films.positive):
            patients = len(set(films.patient[each].tolist()))
            own = deviations[each & (films.patient == patient)].sum()
            sums += math.sqrt(patients / (patients - 1)) * own / each.sum()
        total += sums**2
    return total


@pytest.mark.parametrize("patients", [90, 30, 7])
def test_delongs_and_towards_one_half_newcombes_if_farther(patients: int) -> None:
    farther = set()
    for seed in range(8):
        films = drawn(seed, patients=patients, distance=seed / 2 - 0.7)
        estimate, deviations = by_pairs(films)
        found = variance(deviations, films)
        half = Z * math.sqrt(found) / (estimate * (1 - estimate))
        delong = expit([logit(estimate) - half, logit(estimate) + half])
        classes = (films.positive, ~films.positive)
        independent = sum((deviations[each] ** 2).sum() / each.sum() ** 2 for each in classes)
        alike = [np.bincount(films.patient[each]) for each in classes]
        largest = max((m**2).sum() / m.sum() for m in alike)
        effect = min(max(found / independent, 1), largest)
        newcombe = newcombe_interval(estimate, *(each.sum() / effect for each in classes))
        low, high = auroc_interval(films)
        if estimate >= 0.5:
            expected = min(delong[0], newcombe[0]), delong[1]
        else:
            expected = delong[0], max(delong[1], newcombe[1])
        assert (low, high) == pytest.approx(expected, abs=1e-12)
        farther.add((estimate >= 0.5, tuple(delong) == pytest.approx(expected)))
    assert {(True, False), (True, patients == 90)} <= farther
    assert any(not above for above, _ in farther)


def test_films_of_one_patient_that_say_the_same_tell_no_more() -> None:
    once = drawn(1)
    twice = Ranked(*(np.tile(each, 2) for each in once))
    assert auroc_interval(twice) == pytest.approx(auroc_interval(once), rel=1e-9)
    independent = twice._replace(patient=np.arange(180))
    narrow, wide = (np.ptp(auroc_interval(each)) for each in (independent, twice))
    assert narrow < 0.8 * wide


@pytest.mark.parametrize(
    ("estimate", "positives", "negatives"), [(0.7, 20, 400), (0.95, 9.5, 61), (0.5, 3, 3)]
)
def test_newcombe_ends_where_hanley_and_mcneil_say(
    estimate: float, positives: float, negatives: float
) -> None:
    mean = (positives + negatives) / 2 - 1
    for end, sign in zip(newcombe_interval(estimate, positives, negatives), (1, -1), strict=True):
        first, second = end / (2 - end), 2 * end**2 / (1 + end)
        spread = end * (1 - end) + mean * (first - end**2) + mean * (second - end**2)
        error = math.sqrt(spread / positives / negatives)
        assert (estimate - end) / error == pytest.approx(sign * Z, abs=1e-6)


def test_the_edges_have_width() -> None:
    apart = drawn(2)
    apart = apart._replace(scores=apart.positive.astype(float))
    low, high = auroc_interval(apart)
    assert (low, high) == (pytest.approx(newcombe_interval(1.0, 30, 60)[0]), 1.0)
    assert 0.9 < low < 0.98
    backwards = auroc_interval(apart._replace(scores=-apart.scores))
    assert backwards[0] == 0
    assert 0.02 < backwards[1] < 0.1
    level = auroc_interval(apart._replace(scores=np.zeros(90)))
    assert level[0] < 0.42 < 0.58 < level[1]
    below, above = auroc_difference_interval(apart, apart)
    assert below == pytest.approx(-above)
    assert 0.02 < above < 0.1


@pytest.mark.parametrize("patients", [90, 30])
def test_the_difference_is_delongs_by_patients(patients: int) -> None:
    first, second = drawn(3, patients=patients), drawn(3, patients=patients)
    noise = np.random.default_rng(9).normal(size=90)
    second = second._replace(scores=np.round(second.scores + noise, 1))
    (one, of_one), (other, of_other) = by_pairs(first), by_pairs(second)
    assert one == pytest.approx(auroc(first.positive, first.scores))
    fewest = len(set(first.patient[first.positive].tolist()))
    half = t.ppf(0.975, fewest - 1) * math.sqrt(variance(of_one - of_other, first))
    expected = (one - other - half, one - other + half)
    assert auroc_difference_interval(first, second) == pytest.approx(expected, abs=1e-12)
    mirrored = auroc_difference_interval(second, first)
    assert mirrored == pytest.approx((-expected[1], -expected[0]), abs=1e-12)


def test_ends_stay_where_aurocs_are() -> None:
    few = Ranked(np.array([0.9, 0.1, 0.2, 0.8]), np.array([True, True, False, False]), np.arange(4))
    better = few._replace(scores=np.array([0.9, 0.95, 0.2, 0.1]))
    assert auroc_difference_interval(better, few)[1] == 1.0
    assert auroc_difference_interval(few, better)[0] == -1.0


def test_the_tables_have_them() -> None:
    rng = np.random.default_rng(4)
    mask = np.arange(120) < 40
    cases = Cases(
        case=np.arange(120).astype(str),
        patient=np.repeat([f"p{i}" for i in range(60)], 2),
        has_mask=mask,
        report=mask,
        mask_area_fraction=np.where(mask, 0.1, np.nan),
        probability=rng.random(120) * 0.8 + 0.2 * mask,
        stage_1=mask,
        two_stage=mask,
        dice_segmentation=np.where(mask, 0.5, np.nan),
        further={"thumbnail_probability": rng.random(120)},
    )
    systems = {"eff": cases, "vit": replace(cases, probability=rng.random(120))}
    number = np.repeat(np.arange(60), 2)
    eff, vit, thumbnail = (
        Ranked(scores, mask, number)
        for scores in (cases.probability, systems["vit"].probability, cases.column("thumbnail_probability"))
    )
    for interval in ("percentile", "bca"):
        found = bootstrap(systems, "mask", 20, 0, interval)
        rows = metric_rows({"mask": found}, interval) + comparison_rows(systems, found, "mask")
        of_all = {
            (row["system"], row["metric"]): (row["interval"], (row["ci_low"], row["ci_high"]))
            for row in rows
            if (row["stratum"], row["decision"]) == ("all", "two_stage")
        }
        assert of_all["eff", "auroc"] == ("delong, newcombe", auroc_interval(eff))
        assert of_all["eff", "auroc_thumbnail"] == ("delong, newcombe", auroc_interval(thumbnail))
        gain = auroc_difference_interval(eff, thumbnail)
        assert of_all["eff", "auroc_over_thumbnail"] == ("delong", gain)
        assert of_all["eff", "auroc_header"] == ("none", (None, None))
        assert of_all["eff-vit", "auroc"] == ("delong", auroc_difference_interval(eff, vit))
