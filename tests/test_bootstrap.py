"""The bootstrap and its table: against plain loops, against an exact distribution, and by simulation."""

import math
from hashlib import sha256

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from common.report.estimates import estimate_text, line_text
from common.statistics import bootstrap as module
from common.statistics.bootstrap import (
    TOO_FEW,
    bootstrap,
    jackknife_counts,
    metric_rows,
    patient_numbers,
    resample_counts,
)
from common.statistics.intervals import (
    MIN_FILMS,
    MIN_PATIENTS,
    bca_interval,
    effective_films,
    koopman_interval,
    percentile_interval,
    percentile_tail,
    wilson_interval,
)
from common.statistics.metric_catalogue import METRICS
from common.statistics.metrics import REFERENCES
from common.statistics.strata import STRATA, strata
from common.statistics.tested_films import Cases

CHEAP = tuple(name for name in METRICS if not name.startswith("calibration"))


def rows_of(systems: dict[str, Cases], replicates: int, seed: int = 0, **options) -> list[dict]:
    kept = {key: options.pop(key) for key in ("metrics",) if key in options}
    found = {r: bootstrap(systems, r, replicates, seed, **options, **kept) for r in REFERENCES}
    return metric_rows(found, **options)


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
        "area_fraction": np.where(stage_1 | has_mask, rng.uniform(0, 0.1, n), np.nan),
        "sex": rng.choice(["F", "M"], n),
        "chest_tube": np.zeros(n),
    }
    return Cases(**{name: column[order] for name, column in columns.items()})


def plainly(cases: Cases, reference: str, decision: str, stratum: str) -> dict[str, float]:
    """The metrics of these films as anyone would write them, with scikit-learn."""
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


PLAIN = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "dice_segmentation", "dice_positives",
         "dice_true_positives", "tp", "fp", "fn", "tn")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("reference", REFERENCES)
def test_replicates_equal_a_plain_loop_with_sklearn(reference):
    systems = {"eff": simulated(1), "vit": simulated(1)}
    systems["vit"].probability[:] = np.round(systems["vit"].probability ** 2, 2)
    replicates = 4
    found = bootstrap(systems, reference, replicates, seed=5, metrics=PLAIN)
    cases = systems["eff"]
    drawn = np.concatenate(
        list(resample_counts(cases.patient, cases.positive(reference), replicates, 5))
    ).astype(int)
    for i, weights in enumerate(drawn):
        rows = np.repeat(np.arange(len(cases)), weights)
        for system, results in systems.items():
            resample = results.taken(rows)
            for decision in ("two_stage", "stage_1"):
                for stratum in STRATA:
                    for metric, value in plainly(resample, reference, decision, stratum).items():
                        bootstrapped = found[system, decision, stratum, metric]
                        if not len(bootstrapped.replicates):  # no interval is made from them
                            assert bootstrapped.too_few, (stratum, metric)
                            continue
                        got = bootstrapped.replicates[i]
                        assert got == pytest.approx(value, abs=1e-10, nan_ok=True), (stratum, metric)
    for (system, decision, stratum, metric), bootstrapped in found.items():
        if stratum not in STRATA:
            continue
        expected = plainly(systems[system], reference, decision, stratum)[metric]
        assert bootstrapped.estimate == pytest.approx(expected, abs=1e-10, nan_ok=True)


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


@pytest.mark.slow
@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_duplicating_every_film_within_its_patient_changes_no_interval(interval):
    """No information is added."""
    once = simulated(4, films_a_patient=1)
    twice = once.taken(np.tile(np.arange(len(once)), 2))
    twice.case[:] = [f"c{i}" for i in range(len(twice))]

    def found(cases):
        return bootstrap({"eff": cases}, "mask", 400, 0, interval, 0.05)

    compared = 0
    for (key, bootstrapped), doubled in zip(found(once).items(), found(twice).values(), strict=True):
        if METRICS[key[3]].kind == "count" or np.isnan(bootstrapped.estimate) or bootstrapped.too_few:
            continue
        tolerance = 1e-6 if key[3].startswith("calibration") else 1e-9
        assert doubled.n == 2 * bootstrapped.n
        assert doubled.estimate == pytest.approx(bootstrapped.estimate, rel=tolerance)
        ends = [_ends(each, interval) for each in (bootstrapped, doubled)]
        if ends[0] is None:
            continue
        assert ends[1] == pytest.approx(ends[0], rel=tolerance, abs=1e-9), key
        compared += 1
    assert compared > 200


def _ends(bootstrapped, interval):
    if bootstrapped.by_patients:  # made without replicates
        return bootstrapped.by_patients
    if interval == "bca":
        return bca_interval(bootstrapped.estimate, bootstrapped.replicates, bootstrapped.acceleration)
    return percentile_interval(bootstrapped.replicates, bootstrapped.patients)


def test_a_metric_of_both_classes_counts_the_patients_of_the_rarer():
    cases = simulated(3)
    found = bootstrap({"eff": cases}, "mask", 2, 0)
    positives, negatives = (set(cases.patient[films]) for films in (cases.has_mask, ~cases.has_mask))
    assert len(positives) < len(negatives)

    def patients(metric):
        return found["eff", "two_stage", "all", metric].patients

    assert patients("auroc") == patients("sensitivity") == patients("dice_positives") == len(positives)
    assert patients("specificity") == patients("false_positive_area") == len(negatives)


@pytest.mark.slow
def test_resampling_films_would_narrow_the_interval_of_duplicates_by_the_root_of_2():
    once = simulated(4, n=400, films_a_patient=1)
    twice = once.taken(np.tile(np.arange(len(once)), 2))
    twice.case[:] = [f"c{i}" for i in range(len(twice))]
    wrongly = Cases(**{**vars(twice), "patient": twice.case})
    names = ("auroc", "sensitivity", "specificity", "dice_segmentation", "brier", "lr_positive", "area_bias")

    def widths(cases):
        found = bootstrap({"eff": cases}, "mask", 4000, 0, metrics=names)
        estimates = [found["eff", "two_stage", "all", name] for name in names]
        ends = [percentile_interval(each.replicates, 400) for each in estimates]
        return np.array([high - low for low, high in ends])

    np.testing.assert_allclose(widths(twice) / widths(wrongly), np.sqrt(2), rtol=0.1)


def test_sensitivity_interval_equals_its_exact_distribution():
    """With one film a patient, 40 positives and 30 found, a replicate's TP is binomial(40, 30/40)."""
    n, found = 40, 30
    positive = np.arange(n + 60) < n
    called = np.arange(n + 60) < found
    empty = np.where(positive, 0.05, np.nan)
    name = np.arange(n + 60).astype(str)
    cases = Cases(name, name, positive, positive, empty, called.astype(float), called, called, empty)
    key = ("eff", "two_stage", "all", "sensitivity")
    replicates = bootstrap({"eff": cases}, "mask", 20_000, 0, metrics=("sensitivity",))[key]
    tail = percentile_tail(n)
    expected = binom.ppf([tail, 1 - tail], n, found / n) / n
    assert percentile_interval(replicates.replicates, n) == pytest.approx(tuple(expected), abs=1e-12)


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
        low, high = percentile_interval(draws[:, called].sum(axis=1) / draws.sum(axis=1), patients)
        covered += low <= truth <= high
    assert 0.89 <= covered / sets <= 0.985


def test_estimate_is_the_full_sample_not_the_mean_of_the_replicates():
    cases = simulated(0, n=60)
    found = bootstrap({"eff": cases}, "mask", 4000, 0, metrics=("auprc",))["eff", "two_stage", "all", "auprc"]
    assert found.estimate == pytest.approx(
        average_precision_score(cases.has_mask, cases.probability), abs=1e-12
    )
    noise = found.replicates.std() / np.sqrt(4000)
    assert abs(found.replicates.mean() - found.estimate) > 5 * noise  # so the two can be told apart
    row = next(
        r
        for r in rows_of({"eff": cases}, 100)
        if (r["reference"], r["stratum"], r["metric"]) == ("mask", "all", "auprc")
    )
    assert row["estimate"] == found.estimate


def test_systems_are_paired():
    """The same results under two names have the same replicates: their differences are exactly 0."""
    cases = simulated(7)
    found = bootstrap({"eff": cases, "vit": cases}, "report", 100, 0)
    for (system, *key), bootstrapped in found.items():
        np.testing.assert_array_equal(
            bootstrapped.replicates, found[("vit" if system == "eff" else "eff", *key)].replicates
        )
    alone = bootstrap({"vit": cases}, "report", 100, 0)
    key = ("vit", "two_stage", "all", "auroc")
    np.testing.assert_array_equal(alone[key].replicates, found[key].replicates)


def test_systems_with_other_films_are_an_error():
    cases = simulated(8)
    reverse = cases.taken(np.arange(len(cases))[::-1])
    with pytest.raises(ValueError, match="order"):
        bootstrap({"eff": cases, "vit": reverse}, "mask", 10, 0)


def test_names_of_patients_change_nothing():
    """Pseudonyms differ between machines; the metrics must not."""
    cases = simulated(9)
    columns = dict(vars(cases))
    for name in ("case", "patient"):
        columns[name] = np.array([sha256(value.encode()).hexdigest() for value in columns[name].tolist()])
    assert rows_of({"eff": Cases(**columns)}, 100) == rows_of({"eff": cases}, 100)


def test_row_order_moves_no_estimate_and_intervals_only_by_chance():
    cases = simulated(10)
    shuffled = cases.taken(np.random.default_rng(0).permutation(len(cases)))
    for one, other in zip(rows_of({"eff": cases}, 800), rows_of({"eff": shuffled}, 800), strict=True):
        assert (one["n"], one["estimate"]) == (other["n"], other["estimate"])
        if one["metric"] == "auroc" and one["stratum"] == "all":
            assert other["ci_low"] == pytest.approx(one["ci_low"], abs=0.03)
            assert other["ci_high"] == pytest.approx(one["ci_high"], abs=0.03)


# --- the table -------------------------------------------------------------------------------------


def test_which_interval_and_note_an_estimate_gets():
    """With one film a patient; every row is the interval that its name says, or says why there is none."""
    cases = simulated(11, films_a_patient=1)
    found = {"mask": bootstrap({"eff": cases}, "mask", 300, 0, "bca", 0.05)}
    seen = set()
    for row, (key, bootstrapped) in zip(metric_rows(found, "bca", 0.05), found["mask"].items(), strict=True):
        metric = row["metric"]
        assert tuple(row[name] for name in ("system", "decision", "stratum", "metric")) == key
        seen.add((row["interval"], row["note"]))
        ends = (row["ci_low"], row["ci_high"])
        assert (ends == (None, None)) == (row["interval"] == "none")
        assert ("conditional on the case mix" in row["note"]) == METRICS[metric].case_mix
        assert ("at prevalence 0.05" in row["note"]) == METRICS[metric].at_prevalence
        if row["interval"] == "koopman":
            assert METRICS[metric].interval is not None
            assert row["estimate"] is None or ends[0] <= row["estimate"] <= (ends[1] or math.inf)
            assert ("no upper end" in row["note"]) == (ends[1] is None)
        elif METRICS[metric].descriptive or row["estimate"] is None or bootstrapped.too_few:
            assert row["interval"] == "none"
        elif METRICS[metric].kind == "proportion":
            assert row["interval"] == "wilson"
            assert ends == wilson_interval(round(bootstrapped.n * bootstrapped.estimate), bootstrapped.n)
        elif METRICS[metric].auroc_of:
            assert row["interval"] == "delong, newcombe"
        elif METRICS[metric].by_patients:
            assert row["interval"] == "sandwich"
            assert ends[0] < row["estimate"] < ends[1]
        elif row["interval"] == "bca":
            assert ends == bca_interval(
                bootstrapped.estimate, bootstrapped.replicates, bootstrapped.acceleration
            )
        else:
            assert row["note"].endswith("interval not estimable")
    assert {kind for kind, _ in seen} == {"bca", "delong, newcombe", "wilson", "koopman", "sandwich", "none"}
    assert {
        ("none", "not estimable"),
        ("none", TOO_FEW),
        ("none", "describes the films"),
        ("none", ""),
    } <= seen


@pytest.mark.parametrize("false_alarms", [50, 0])
def test_ratios_and_predictive_values_at_a_prevalence(false_alarms):
    """20 of 20 positives are called, and 50 or none of 500 negatives."""
    n = 520
    mask, name = np.arange(n) < 20, np.arange(n).astype(str)
    called = np.arange(n) < 20 + false_alarms
    flags = (mask, mask, np.where(mask, 0.1, np.nan), called / 2, called, called, np.where(mask, 0.5, np.nan))
    found = {"mask": bootstrap({"eff": Cases(name, name, *flags)}, "mask", 50, 0, prevalence=0.1)}
    rows = {row["metric"]: row for row in metric_rows(found, prevalence=0.1) if row["stratum"] == "all"}

    def ends(metric):
        return rows[metric]["ci_low"], rows[metric]["ci_high"]

    negative = koopman_interval(0, 20, 500 - false_alarms, 500)
    positive = koopman_interval(20, 20, false_alarms, 500)
    assert ends("lr_negative") == negative
    high = 0.9 / (0.9 + 0.1 * negative[1])
    assert ends("npv_at_prevalence") == pytest.approx((high, 1.0))
    if false_alarms:
        assert negative == pytest.approx((0, 0.179), abs=5e-4)
        assert high == pytest.approx(0.980, abs=5e-4)
        assert ends("lr_positive") == pytest.approx(positive)
        odds = [0.1 * ratio for ratio in positive]
        assert ends("ppv_at_prevalence") == pytest.approx([each / (each + 0.9) for each in odds])
    else:
        assert rows["lr_positive"]["estimate"] is None
        assert ends("lr_positive") == (positive[0], None)
        assert "no upper end" in rows["lr_positive"]["note"]
        assert ends("ppv_at_prevalence")[1] == 1.0
        assert line_text(rows["lr_positive"]).startswith(f"at least {positive[0]:.3f} n=20+500")
        assert estimate_text(rows["lr_positive"]).startswith("at least ")
    few = 9 / positive[1] if false_alarms else 0
    assert ends("false_alarms_a_true_alarm") == pytest.approx((few, 9 / positive[0]))
    assert rows["false_alarms_a_true_alarm"]["estimate"] == pytest.approx(9 * false_alarms / 500)
    assert {rows[metric]["interval"] for metric in ("lr_positive", "npv_at_prevalence")} == {"koopman"}


def test_proportions_of_patients_with_several_films_are_of_fewer_films():
    cases = simulated(12)
    found = {"mask": bootstrap({"eff": cases}, "mask", 200, 0, metrics=CHEAP)}
    rows = {row["metric"]: row for row in metric_rows(found) if row["stratum"] == "all"}
    values = {
        "sensitivity": (cases.has_mask, cases.stage_1),
        "specificity": (~cases.has_mask, ~cases.stage_1),
    }
    for metric, (films, right) in values.items():
        n = effective_films(right[films].astype(float), patient_numbers(cases.patient[films]))
        row = rows[metric]
        assert n < films.sum()
        assert row["interval"] == "wilson, effective n"
        assert (row["ci_low"], row["ci_high"]) == wilson_interval(right[films].mean() * n, n)


def test_one_patient_with_two_films_leaves_an_interval_with_width():
    """20 of 20 positives found: the bootstrap would say 1.000 to 1.000."""
    n = 40
    mask = np.arange(n) < 20
    patient = np.arange(n).astype(str)
    patient[1] = patient[0]
    flags = (mask, mask, mask.astype(float) / 10, mask / 2 + 0.2, mask, mask, mask / 2)
    found = bootstrap({"eff": Cases(np.arange(n).astype(str), patient, *flags)}, "mask", 50, 0)
    rows = {row["metric"]: row for row in metric_rows({"mask": found}) if row["stratum"] == "all"}
    row = rows["sensitivity"]
    assert (row["estimate"], row["ci_high"]) == (1.0, 1.0)
    assert row["ci_low"] == pytest.approx(wilson_interval(20 / 1.1, 20 / 1.1)[0])
    assert row["ci_low"] < 0.84


@pytest.mark.parametrize(
    ("positives", "patients", "enough"),
    [(MIN_FILMS, MIN_FILMS, True), (MIN_FILMS - 1, MIN_FILMS - 1, False), (20, MIN_PATIENTS, True),
     (20, MIN_PATIENTS - 1, False)],
)  # fmt: skip
def test_too_few_films_or_patients_get_no_interval(positives, patients, enough):
    """Metrics of positives and of both classes suffer, metrics of the many negatives do not."""
    n = positives + 60
    rng = np.random.default_rng(0)
    positive = np.arange(n) < positives
    patient = np.where(positive, np.arange(n) % patients, 100 + np.arange(n)).astype(str)
    probability, called = np.round(rng.random(n), 1), rng.random(n) < 0.5
    area = np.where(positive, 0.05, np.nan)
    cases = Cases(np.arange(n).astype(str), patient, positive, positive, area, probability, called, called,
                  np.where(positive, probability, np.nan))  # fmt: skip
    rows = {
        row["metric"]: row
        for row in metric_rows({"mask": bootstrap({"eff": cases}, "mask", 200, 0)})
        if (row["decision"], row["stratum"]) == ("stage_1", "all")
    }
    for metric in (
        "auroc",
        "sensitivity",
        "dice_segmentation",
        "accuracy",
        "calibration_slope",
        "lr_positive",
    ):
        assert rows[metric]["estimate"] is not None
        assert (rows[metric]["ci_low"] is not None) == enough, metric
        assert (TOO_FEW in rows[metric]["note"]) != enough
    assert rows["specificity"]["ci_low"] is not None


@pytest.mark.filterwarnings("error")
def test_metrics_that_are_not_estimable():
    """Two positives, one small and found, one large and missed: what is undefined is None, no warning."""
    n = 12
    name = np.arange(n).astype(str)
    positive = np.arange(n) < 2
    area = np.where(positive, np.where(np.arange(n) == 0, 0.01, 0.2), np.nan)
    called = np.arange(n) == 0
    cases = Cases(name, name, positive, positive, area, called.astype(float), called, called, area)
    for interval in ("percentile", "bca"):
        rows = {
            (r["stratum"], r["metric"]): r
            for r in rows_of({"eff": cases}, 400, interval=interval)
            if (r["reference"], r["decision"]) == ("mask", "two_stage")
        }

        def shown(stratum, metric, rows=rows):
            return tuple(rows[stratum, metric][key] for key in ("n", "estimate", "ci_low", "ci_high"))

        assert shown("medium", "auroc") == (10, None, None, None)
        assert shown("medium", "sensitivity") == (0, None, None, None)
        assert shown("medium", "tp") == (10, 0, None, None)
        assert shown("large", "dice_true_positives") == (0, None, None, None)
        assert shown("small", "sensitivity") == (1, 1.0, None, None)
        assert shown("all", "sensitivity") == (2, 0.5, None, None)
        assert shown("all", "specificity") == (10, 1.0, *wilson_interval(10, 10))
        assert shown("all", "calibration_slope") == (12, None, None, None)
        # no film has a thumbnail's score: of no film are two positive
        assert shown("all", "auroc_thumbnail") == (0, None, None, None)
        assert [rows["all", name]["positives"] for name in ("auroc", "auroc_thumbnail")] == [2, 0]


def test_the_jackknife_leaves_out_one_patient_of_a_group_at_a_time():
    cases = simulated(13, n=40)
    number = patient_numbers(cases.patient)
    weights = np.concatenate(list(jackknife_counts(cases.patient, cases.has_mask)))
    with_positive = set(number[cases.has_mask].tolist())
    assert len(weights) == number.max() + 1
    for left_out, row in enumerate(weights):
        group = [p for p in range(len(weights)) if (p in with_positive) == (left_out in with_positive)]
        for patient, weight in zip(number, row, strict=True):
            if patient == left_out:
                assert weight == 0
            elif patient in group:
                assert weight == pytest.approx(len(group) / (len(group) - 1))
            else:
                assert weight == 1


def test_bca_of_a_mean_equals_the_textbook():
    """Dice over positives is a mean of one group: a = skewness / (6 sqrt(n))."""
    cases = simulated(14, films_a_patient=1)
    found = bootstrap({"eff": cases}, "mask", 500, 0, "bca", metrics=("dice_segmentation",))
    bootstrapped = found["eff", "two_stage", "all", "dice_segmentation"]
    dice = cases.dice_segmentation[cases.has_mask]
    centred = dice - dice.mean()
    expected = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    assert bootstrapped.acceleration == pytest.approx(expected, abs=1e-9)


def test_groups_are_over_their_own_films():
    cases = simulated(15)
    found = bootstrap({"eff": cases}, "report", 50, 0, metrics=("auroc", "specificity"))
    for sex in ("F", "M"):
        own = cases.taken(np.flatnonzero(cases.sex == sex))
        alone = bootstrap({"eff": own}, "report", 50, 0, metrics=("auroc", "specificity"))
        for metric in ("auroc", "specificity"):
            group = found["eff", "stage_1", f"sex {sex}", metric]
            whole = alone["eff", "stage_1", "all", metric]
            assert (group.n, group.estimate) == (whole.n, whole.estimate)
    assert set(strata(cases, "report")) == {*STRATA, "sex F", "sex M"}
