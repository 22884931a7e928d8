"""The intervals: against plain loops, against an exact distribution, and by simulation."""

from hashlib import sha256

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

import common.evaluation.bootstrap as module
from common.evaluation.bootstrap import (
    bootstrap,
    metric_rows,
    patient_numbers,
    percentile_interval,
    resample_counts,
)
from common.evaluation.cases import Cases
from common.evaluation.metrics import CONFUSION, REFERENCES, STRATA


def simulated(seed: int, n: int = 150, films_a_patient: int = 3) -> Cases:
    """Films with tied scores, patients of 1 to `films_a_patient` films, both references, every size."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), rng.integers(1, films_a_patient + 1, n))[:n]
    has_mask = rng.random(n) < 0.3
    report = np.where(rng.random(n) < 0.1, ~has_mask, has_mask)
    probability = np.round(np.clip(rng.normal(0.35 + 0.3 * has_mask, 0.2), 0, 1), 2)
    stage_1 = probability >= 0.5
    order = rng.permutation(n)  # a patient's films do not stand together
    columns = {
        "case": np.array([f"c{i}" for i in range(n)]),
        "patient": np.array([f"p{i}" for i in patient]),
        "has_mask": has_mask,
        "report": report,
        "mask_area_fraction": np.where(has_mask, rng.uniform(0.001, 0.12, n), np.nan),
        "probability": probability,
        "stage_1": stage_1,
        "two_stage": stage_1 & (rng.random(n) < 0.8),
        "dice_segmentation": np.where(has_mask, rng.random(n), np.nan),
    }
    return Cases(**{name: column[order] for name, column in columns.items()})


def plainly(cases: Cases, reference: str, decision: str, stratum: str) -> dict[str, float]:
    """The figures of these films as anyone would write them, with scikit-learn."""
    positive = cases.has_mask if reference == "mask" else cases.report
    area = cases.mask_area_fraction
    in_stratum = {
        "all": np.ones(len(cases), dtype=bool),
        "small": area < 0.032,
        "medium": (area >= 0.032) & (area < 0.080),
        "large": area >= 0.080,
    }[stratum]
    kept = ~positive | (positive & in_stratum)
    truth, score = positive[kept], cases.probability[kept]
    called = cases.two_stage if decision == "two_stage" else cases.stage_1
    tn, fp, fn, tp = confusion_matrix(truth, called[kept], labels=[False, True]).ravel()
    masked = positive & in_stratum & cases.has_mask
    dice = cases.dice_segmentation
    both = truth.any() and not truth.all()

    def mean(values):
        return values.mean() if len(values) else np.nan

    return {
        "auroc": roc_auc_score(truth, score) if both else np.nan,
        "auprc": average_precision_score(truth, score) if both else np.nan,
        "sensitivity": tp / (tp + fn) if tp + fn else np.nan,
        "specificity": tn / (tn + fp) if tn + fp else np.nan,
        "ppv": tp / (tp + fp) if tp + fp else np.nan,
        "npv": tn / (tn + fn) if tn + fn else np.nan,
        "dice_segmentation": mean(dice[masked]),
        "dice_positives": mean(np.where(called, dice, 0)[masked]),
        "dice_true_positives": mean(dice[masked & called]),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }


@pytest.mark.parametrize("reference", REFERENCES)
def test_replicates_equal_a_plain_loop_with_sklearn(reference):
    systems = {"eff": simulated(1), "vit": simulated(1)}
    systems["vit"].probability[:] = np.round(systems["vit"].probability ** 2, 2)
    replicates = 25
    found = bootstrap(systems, reference, replicates, seed=5)
    cases = systems["eff"]
    drawn = np.concatenate(
        list(resample_counts(cases.patient, cases.positive(reference), replicates, 5))
    ).astype(int)
    for i, weights in enumerate(drawn):
        rows = np.repeat(np.arange(len(cases)), weights)
        for system, results in systems.items():
            resample = Cases(**{name: column[rows] for name, column in vars(results).items()})
            for decision in ("two_stage", "stage_1"):
                for stratum in STRATA:
                    for metric, value in plainly(resample, reference, decision, stratum).items():
                        got = found[system, decision, stratum, metric].replicates[i]
                        assert got == pytest.approx(value, abs=1e-12, nan_ok=True), (stratum, metric)
    for (system, decision, stratum, metric), figure in found.items():
        expected = plainly(systems[system], reference, decision, stratum)[metric]
        assert figure.estimate == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_patients_are_drawn_whole_and_in_two_groups():
    cases = simulated(2)
    number = patient_numbers(cases.patient)
    with_positive = {p for p, m in zip(cases.patient, cases.has_mask, strict=True) if m}
    first = np.array([p in with_positive for p in cases.patient])
    assert len(set(cases.patient)) < len(cases)
    for counts in resample_counts(cases.patient, cases.has_mask, 50, 0):
        for row in counts:
            times = {}
            for patient, count in zip(number, row, strict=True):
                assert times.setdefault(patient, count) == count
            in_first = sum(times[p] for p in set(number[first]))
            assert in_first == len(with_positive)
            assert sum(times.values()) == len(set(cases.patient))


def test_draws_do_not_depend_on_block_or_number_of_replicates(monkeypatch):
    cases = simulated(3)

    def draws(replicates):
        return np.concatenate(list(resample_counts(cases.patient, cases.has_mask, replicates, 9)))

    whole = draws(60)
    np.testing.assert_array_equal(draws(17), whole[:17])
    monkeypatch.setattr(module, "_BLOCK", 7 * len(cases))
    np.testing.assert_array_equal(draws(60), whole)
    assert not np.array_equal(whole[0], whole[7])


def test_every_patient_is_drawn_equally_often():
    patient = np.array([f"p{i}" for i in range(40)])
    positive = np.arange(40) < 10
    mean = np.concatenate(list(resample_counts(patient, positive, 20_000, 1))).mean(axis=0)
    np.testing.assert_allclose(mean, 1, atol=5 * np.sqrt(1 / 20_000))


def test_films_of_one_patient_do_not_count_as_independent():
    """Every film twice, under its patient: no information is added, so no interval may shrink."""
    cases = simulated(4, films_a_patient=1)
    twice = Cases(**{name: np.tile(column, 2) for name, column in vars(cases).items()})
    twice.case[:] = [f"c{i}" for i in range(len(twice))]
    once_rows, twice_rows = metric_rows({"eff": cases}, 500, 0), metric_rows({"eff": twice}, 500, 0)
    compared = 0
    for once, doubled in zip(once_rows, twice_rows, strict=True):
        if once["metric"] in CONFUSION:
            continue
        assert doubled["n"] == 2 * once["n"]
        for key in ("estimate", "ci_low", "ci_high"):
            assert doubled[key] == pytest.approx(once[key], abs=1e-12)
        compared += once["ci_low"] is not None
    assert compared > 100


def test_sensitivity_interval_equals_its_exact_distribution():
    """With one film a patient, 40 positives and 30 found, a replicate's TP is binomial(40, 30/40)."""
    n, found = 40, 30
    positive = np.arange(n + 60) < n
    called = np.arange(n + 60) < found
    empty = np.where(positive, 0.05, np.nan)
    name = np.arange(n + 60).astype(str)
    cases = Cases(name, name, positive, positive, empty, called.astype(float), called, called, empty)
    replicates = bootstrap({"eff": cases}, "mask", 20_000, 0)["eff", "two_stage", "all", "sensitivity"]
    expected = binom.ppf([0.025, 0.975], n, found / n) / n
    assert percentile_interval(replicates.replicates) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize("films_a_patient", [1, 4])
def test_coverage_of_sensitivity(films_a_patient):
    """200 simulated test sets: a 95% interval must hold the truth in about 95% of them.

    All films of a patient succeed or fail together, the worst case for resampling films: with four films a
    patient that covers about two thirds.
    """
    rng = np.random.default_rng(0)
    truth, patients, sets = 0.75, 60, 200
    covered = 0
    for seed in range(sets):
        name = np.repeat(np.arange(patients), films_a_patient)
        called = np.repeat(rng.random(patients) < truth, films_a_patient)
        positive = np.ones(len(name), dtype=bool)
        draws = np.concatenate(list(resample_counts(name, positive, 300, seed)))
        low, high = percentile_interval(draws[:, called].sum(axis=1) / draws.sum(axis=1))
        covered += low <= truth <= high
    assert 0.89 <= covered / sets <= 0.985


def test_estimate_is_the_full_sample_not_the_mean_of_the_replicates():
    cases = simulated(0, n=60)
    found = bootstrap({"eff": cases}, "mask", 4000, 0)["eff", "two_stage", "all", "auprc"]
    assert found.estimate == pytest.approx(
        average_precision_score(cases.has_mask, cases.probability), abs=1e-12
    )
    noise = found.replicates.std() / np.sqrt(4000)
    assert abs(found.replicates.mean() - found.estimate) > 5 * noise  # so the two can be told apart
    row = next(
        r
        for r in metric_rows({"eff": cases}, 100, 0)
        if (r["reference"], r["stratum"], r["metric"]) == ("mask", "all", "auprc")
    )
    assert row["estimate"] == found.estimate


def test_systems_are_paired():
    """The same results under two names have the same replicates: their differences are exactly 0."""
    cases = simulated(7)
    found = bootstrap({"eff": cases, "vit": cases}, "report", 100, 0)
    for (system, *key), figure in found.items():
        np.testing.assert_array_equal(
            figure.replicates, found[("vit" if system == "eff" else "eff", *key)].replicates
        )
    alone = bootstrap({"vit": cases}, "report", 100, 0)
    key = ("vit", "two_stage", "all", "auroc")
    np.testing.assert_array_equal(alone[key].replicates, found[key].replicates)


def test_systems_with_other_films_are_an_error():
    cases = simulated(8)
    reverse = Cases(**{name: column[::-1] for name, column in vars(cases).items()})
    with pytest.raises(ValueError, match="order"):
        bootstrap({"eff": cases, "vit": reverse}, "mask", 10, 0)


def test_names_of_patients_change_nothing():
    """Pseudonyms differ between machines; the figures must not."""
    cases = simulated(9)
    columns = dict(vars(cases))
    for name in ("case", "patient"):
        columns[name] = np.array([sha256(value.encode()).hexdigest() for value in columns[name].tolist()])
    assert metric_rows({"eff": Cases(**columns)}, 100, 0) == metric_rows({"eff": cases}, 100, 0)


def test_row_order_moves_no_estimate_and_intervals_only_by_chance():
    cases = simulated(10)
    order = np.random.default_rng(0).permutation(len(cases))
    shuffled = Cases(**{name: column[order] for name, column in vars(cases).items()})
    for one, other in zip(
        metric_rows({"eff": cases}, 4000, 0), metric_rows({"eff": shuffled}, 4000, 0), strict=True
    ):
        assert (one["n"], one["estimate"]) == (other["n"], other["estimate"])
        if one["ci_low"] is not None and one["stratum"] == "all":
            assert other["ci_low"] == pytest.approx(one["ci_low"], abs=0.02)
            assert other["ci_high"] == pytest.approx(one["ci_high"], abs=0.02)


def test_interval_by_hand():
    assert percentile_interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.arange(101.0), confidence=0.9) == pytest.approx((5, 95))


def test_interval_needs_95_percent_of_the_replicates():
    replicates = np.arange(100.0)
    replicates[:5] = np.nan
    assert percentile_interval(replicates) == pytest.approx(
        tuple(np.quantile(np.arange(5, 100), [0.025, 0.975]))
    )
    replicates[5] = np.nan
    assert percentile_interval(replicates) is None


@pytest.mark.filterwarnings("error")
def test_figures_that_are_not_estimable():
    """Two positives, one small and found, one large and missed: what is undefined is None, no warning."""
    n = 12
    name = np.arange(n).astype(str)
    positive = np.arange(n) < 2
    area = np.where(positive, np.where(np.arange(n) == 0, 0.01, 0.2), np.nan)
    called = np.arange(n) == 0
    cases = Cases(name, name, positive, positive, area, called.astype(float), called, called, area)
    rows = {
        (r["stratum"], r["metric"]): r
        for r in metric_rows({"eff": cases}, 400, 0)
        if (r["reference"], r["decision"]) == ("mask", "two_stage")
    }

    def shown(stratum, metric):
        return tuple(rows[stratum, metric][key] for key in ("n", "estimate", "ci_low", "ci_high"))

    assert shown("medium", "auroc") == (10, None, None, None)
    assert shown("medium", "sensitivity") == (0, None, None, None)
    assert shown("medium", "tp") == (10, 0, None, None)
    assert shown("large", "dice_true_positives") == (0, None, None, None)
    # The one small lesion is absent from a quarter of the replicates: an estimate, but no interval.
    assert shown("small", "sensitivity") == (1, 1.0, None, None)
    assert shown("all", "sensitivity") == (2, 0.5, 0.0, 1.0)
    assert shown("all", "specificity") == (10, 1.0, 1.0, 1.0)
