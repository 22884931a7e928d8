"""The mean of several readers: against a published study, plain loops, and where there is no variance."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score
from test_human_readers import simulated, table
from van_dyke import WITH, WITHOUT, ratings

from common.report.imrmc_file import imrmc_text
from common.statistics.auroc import Ranked, auroc_by_patient
from common.statistics.compare_systems import holm
from common.statistics.human_readers import Reading, read_readers
from common.statistics.intervals import mean_by_patient, wilson_interval
from common.statistics.reader_means import (
    Value,
    difference_interval,
    difference_p,
    mean_interval,
    mean_rows,
    spread_of_mean,
)
from common.statistics.tested_films import Cases

TRUTH = np.arange(WITHOUT + WITH) >= WITHOUT
PATIENT = np.arange(WITHOUT + WITH)


def jackknifed(scores: np.ndarray) -> tuple[float, np.ndarray]:
    """AUROC, and by how much each patient changes it, scaled as the covariance of the jackknife."""
    n = len(scores)
    without = np.array([roc_auc_score(np.delete(TRUTH, i), np.delete(scores, i)) for i in range(n)])
    return roc_auc_score(TRUTH, scores), np.sqrt((n - 1) / n) * (without.mean() - without)


def delonged(scores: np.ndarray) -> tuple[float, np.ndarray]:
    return auroc_by_patient(Ranked(scores.astype(float), TRUTH, PATIENT), len(scores))


# --- the method ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [pytest.param(jackknifed, 2e-5, marks=pytest.mark.slow), (delonged, 4e-3)],
    ids=["jackknife", "DeLong"],
)
def test_a_published_study_is_found_again(values, tolerance: float) -> None:
    """OR-DBM MRMC 2.51 of the University of Iowa, on these ratings, with covariances of the jackknife."""
    read = [[values(of_reader[:, modality]) for modality in (0, 1)] for of_reader in ratings()]
    aurocs = np.array([[value for value, _ in of_reader] for of_reader in read])
    assert aurocs.mean(axis=0) == pytest.approx([0.89703704, 0.94083736], abs=1e-8)
    for modality, error, degrees in ((0, 0.03317360, 12.74), (1, 0.02156637, 12.71)):
        spread = spread_of_mean(aurocs[:, modality], np.stack([r[modality][1] for r in read]))
        assert np.sqrt(spread.variance) == pytest.approx(error, rel=tolerance)
        assert spread.degrees == pytest.approx(degrees, rel=max(4 * tolerance, 5e-4))
    difference = aurocs[:, 0] - aurocs[:, 1]
    spread = spread_of_mean(difference, np.stack([first[1] - second[1] for first, second in read]))
    error = np.sqrt(spread.variance)
    assert error == pytest.approx(0.02075, rel=tolerance, abs=5e-6)
    half = spread.quantile(0.95) * error
    assert (difference.mean() - half, difference.mean() + half) == pytest.approx(
        (-0.08796, 0.00036), abs=1e-5 if tolerance < 1e-3 else 2e-4
    )
    p = 2 * t.sf(abs(difference.mean()) / error, spread.degrees)
    assert p == pytest.approx(0.0517, abs=5e-5 if tolerance < 1e-3 else 6e-4)


def test_the_covariance_of_two_aurocs_is_that_of_their_placements() -> None:
    """DeLong's, by a loop over the pairs of a positive and a negative."""
    one, other = ratings()[0][:, 0], ratings()[3][:, 1]

    def placed(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wins = np.array([[(p > n) + (p == n) / 2 for n in scores[~TRUTH]] for p in scores[TRUTH]])
        return wins.mean(axis=1), wins.mean(axis=0)

    (by_positive, by_negative), (other_positive, other_negative) = placed(one), placed(other)
    expected = (
        np.cov(by_positive, other_positive)[0, 1] / WITH + np.cov(by_negative, other_negative)[0, 1] / WITHOUT
    )
    assert delonged(one)[1] @ delonged(other)[1] == pytest.approx(expected, rel=1e-12)


def test_films_of_a_patient_count_together() -> None:
    """The variance of a mean of patients' sums, by hand: two patients with films that agree."""
    values, patient = np.array([1.0, 1, 1, 0, 0, 0]), np.array([0, 0, 0, 2, 2, 2])
    deviations = mean_by_patient(values - 0.5, patient, 4)
    assert deviations.tolist() == pytest.approx([2**0.5 / 4, 0, -(2**0.5) / 4, 0])
    assert deviations @ deviations == pytest.approx(0.25)  # two patients of 1 and 0: 0.5 / 2


def share(right: list[int]) -> Value:
    """A sensitivity over as many positives as there are digits, each of a patient of its own."""
    values = np.array(right, dtype=float)
    patients = np.arange(len(right))
    deviations = mean_by_patient(values - values.mean(), patients, len(right))
    return Value(float(values.mean()), deviations, [np.ones(len(right), dtype=bool)])


def test_readers_who_are_always_right_get_one_readers_interval() -> None:
    """Nothing tells how much another reader would tell: all readings of a patient may be alike."""
    always, patient = [share([1] * 20)] * 5, np.arange(20)
    assert mean_interval("sensitivity", always, patient) == pytest.approx(wilson_interval(20, 20))
    low, high = difference_interval("sensitivity", always, always, patient)
    assert low < -0.1
    assert high > 0.1
    assert difference_p("sensitivity", always, always, patient) == 1.0
    positive = np.arange(20) < 8
    perfect = Value(1.0, np.zeros(20), [positive, ~positive])
    low, high = mean_interval("auroc", [perfect, perfect], patient)
    assert low < 0.9
    assert high == 1.0


def test_readers_who_say_the_same_get_the_interval_of_one() -> None:
    """No spread of readers, and errors that are all shared."""
    same, patient = [share([1] * 16 + [0] * 4)] * 4, np.arange(20)
    # The variance estimates the one of 19 films: n - 1 in its divisor.
    assert mean_interval("sensitivity", same, patient) == pytest.approx(wilson_interval(0.8 * 19, 19))


def test_independent_readings_are_not_more_than_they_are() -> None:
    """Errors that fall on different patients would have a negative covariance; 40 readings stay 40."""
    one, other = share([0, 0] + [1] * 18), share([1] * 18 + [0, 0])
    assert one.deviations @ other.deviations < 0
    low, high = mean_interval("sensitivity", [one, other], np.arange(20))
    assert (low, high) == pytest.approx(wilson_interval(36, 40))
    # A hair's breadth between two readers is not one degree of freedom for all of it.
    low, high = mean_interval("sensitivity", [one, share([1] * 17 + [0, 0, 0])], np.arange(20))
    degrees = (2 * 0.875 * 0.125 / 40 / np.var([0.9, 0.85], ddof=1)) ** 2
    n = 40 * (norm.ppf(0.975) / t.ppf(0.975, degrees)) ** 2
    assert (low, high) == pytest.approx(wilson_interval(0.875 * n, n))


def test_the_interval_of_a_difference_ends_at_0_where_its_p_value_says() -> None:
    rng = np.random.default_rng(3)
    first = [share((rng.random(60) < 0.9).astype(int).tolist()) for _ in range(4)]
    second = [share((rng.random(60) < 0.75).astype(int).tolist()) for _ in range(4)]
    p = difference_p("sensitivity", first, second, np.arange(60))
    assert 1e-6 < p < 0.2
    low, high = difference_interval("sensitivity", first, second, np.arange(60), 1 - p)
    assert low == pytest.approx(0, abs=1e-6)
    assert high > 0
    assert difference_p("sensitivity", second, first, np.arange(60)) == pytest.approx(p)


def test_with_many_patients_the_joined_interval_is_the_symmetric_one() -> None:
    rng, n = np.random.default_rng(3), 3000
    hard = rng.random(n)  # shared by the readers
    first = [share((hard + rng.normal(0, 0.1, n) < 0.7).astype(int).tolist()) for _ in range(6)]
    second = [share((hard + rng.normal(0, 0.1, n) < 0.6).astype(int).tolist()) for _ in range(6)]
    spread = spread_of_mean(
        np.array([a.estimate - b.estimate for a, b in zip(first, second, strict=True)]),
        np.stack([a.deviations - b.deviations for a, b in zip(first, second, strict=True)]),
    )
    low, high = difference_interval("sensitivity", first, second, np.arange(n))
    assert high - low == pytest.approx(2 * spread.quantile(0.95) * np.sqrt(spread.variance), rel=0.1)


def test_an_aurocs_interval_is_symmetric_on_the_logit_scale() -> None:
    read = [Value(*delonged(of_reader[:, 0]), [TRUTH, ~TRUTH]) for of_reader in ratings()]
    low, high = mean_interval("auroc", read, PATIENT)
    middle = np.mean([value.estimate for value in read])
    logits = [np.log(x / (1 - x)) for x in (low, middle, high)]
    assert logits[1] - logits[0] == pytest.approx(logits[2] - logits[1])
    spread = spread_of_mean(np.array([v.estimate for v in read]), np.stack([v.deviations for v in read]))
    half = t.ppf(0.975, spread.degrees) * np.sqrt(spread.variance) / (middle * (1 - middle))
    assert logits[2] - logits[1] == pytest.approx(half)
    assert spread.quantile(0.95) > norm.ppf(0.975)


def test_few_positives_are_few_degrees_of_freedom() -> None:
    """Readers who do not differ tell nothing of the spread of 4 positives."""
    positive, patient = np.arange(40) < 4, np.arange(40)
    scores = np.random.default_rng(0).normal(positive * 1.0, 1.0)
    estimate, deviations = auroc_by_patient(Ranked(scores, positive, patient), 40)
    classes = [positive, ~positive]
    first, second = Value(estimate, deviations, classes), Value(estimate - 0.1, deviations / 2, classes)
    _, high = difference_interval("auroc", [first] * 3, [second] * 3, patient)
    assert high - 0.1 == pytest.approx(t.ppf(0.975, 3) * np.sqrt(deviations @ deviations) / 2)
    low, _ = mean_interval("auroc", [first] * 3, patient)
    half = t.ppf(0.975, 3) * np.sqrt(deviations @ deviations) / (estimate * (1 - estimate))
    assert np.log(low / (1 - low)) == pytest.approx(np.log(estimate / (1 - estimate)) - half)


# --- the rows --------------------------------------------------------------------------------------


def reading(
    eff: Cases, folder: Path, lines: list[str], header: str = "case,reader,call"
) -> dict[str, Reading]:
    return read_readers(table(folder, "\n".join([header, *lines]) + "\n"), eff)


def called(eff: Cases, seed: int, wrong: float) -> np.ndarray:
    return eff.has_mask ^ (np.random.default_rng(seed).random(len(eff)) < wrong)


def test_the_rows_of_a_mean(tmp_path: Path) -> None:
    systems = {"eff": simulated(1), "vit": simulated(2)}
    eff, said = systems["eff"], {r: called(systems["eff"], i, 0.2) for i, r in enumerate("ABC")}
    read = {"A": range(80), "B": range(60), "C": range(20, 80)}
    lines = [f"c{i},{r},{said[r][i]:d}" for r in said for i in read[r]]
    rows = mean_rows(systems, reading(eff, tmp_path, lines))
    found = {(r["system"], r["reference"], r["decision"], r["stratum"], r["metric"]): r for r in rows}
    assert len(found) == len(rows)
    assert {key[0] for key in found} == {"readers", "eff-readers", "vit-readers"}
    assert {key[4] for key in found} == {"sensitivity", "specificity"}  # no confidences, no AUROC
    for reference, positive in (("mask", eff.has_mask), ("report", eff.report)):
        own = [said[r][list(read[r])][positive[list(read[r])]].mean() for r in said]
        row = found["readers", reference, "call", "all", "sensitivity"]
        assert (row["n"], row["estimate"]) == (positive.sum(), pytest.approx(np.mean(own)))
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
        assert (
            row["note"] == f"mean of 3 readers; {sum(positive[list(read[r])].sum() for r in said)} readings"
        )
        for decision in ("two_stage", "stage_1"):
            vit = [
                systems["vit"].called(decision)[list(read[r])][positive[list(read[r])]].mean() for r in said
            ]
            row = found["vit-readers", reference, decision, "all", "sensitivity"]
            assert row["estimate"] == pytest.approx(np.mean(np.array(vit) - own))
            assert (row["p_value"] < 0.05) == (row["ci_low"] > 0 or row["ci_high"] < 0)
    keys = [
        (f"{s}-readers", "mask", "two_stage", "all", m)
        for s in systems
        for m in ("sensitivity", "specificity")
    ]
    assert [found[key]["p_holm"] for key in keys] == holm([found[key]["p_value"] for key in keys])
    assert {key for key, row in found.items() if row["p_holm"] is not None} == set(keys)
    small = found["readers", "mask", "call", "small", "sensitivity"]
    assert small["n"] == (eff.has_mask & (eff.mask_area_fraction < 0.032)).sum()


def test_with_aid_less_without_is_over_films_read_both_ways(tmp_path: Path) -> None:
    eff = simulated(1)
    lines = []
    sets = {
        ("A", 0): range(70),
        ("A", 1): range(10, 80),
        ("B", 0): range(80),
        ("B", 1): range(80),
        ("C", 0): range(80),
    }
    said = {who: called(eff, i, 0.35 - 0.25 * who[1]) for i, who in enumerate(sets)}
    sure = {who: np.random.default_rng(i).integers(0, 101, 80) for i, who in enumerate(sets)}
    for (who, aid), films in sets.items():
        lines += [f"c{i},{who},{said[who, aid][i]:d},{sure[who, aid][i]},{aid}" for i in films]
    readers = reading(eff, tmp_path, lines, "case,reader,call,confidence,aid")
    rows = mean_rows({"eff": eff}, readers)
    found = {(r["system"], r["reference"], r["decision"], r["stratum"], r["metric"]): r for r in rows}
    row = found["readers aided-readers", "mask", "aid", "all", "sensitivity"]
    gains = []
    for who, films in (("A", range(10, 70)), ("B", range(80))):
        positive = np.array([i for i in films if eff.has_mask[i]])
        gains.append(said[who, 1][positive].mean() - said[who, 0][positive].mean())
    assert row["estimate"] == pytest.approx(np.mean(gains))
    assert row["note"].startswith("mean of 2 readers; ")
    aurocs = [
        roc_auc_score(eff.has_mask[list(films)], sure[who, 1][list(films)])
        - roc_auc_score(eff.has_mask[list(films)], sure[who, 0][list(films)])
        for who, films in (("A", range(10, 70)), ("B", range(80)))
    ]
    assert found["readers aided-readers", "mask", "aid", "all", "auroc"]["estimate"] == pytest.approx(
        np.mean(aurocs)
    )
    assert found["readers aided", "mask", "call", "all", "sensitivity"]["note"].startswith(
        "mean of 2 readers; "
    )
    assert found["eff-readers", "mask", "two_stage", "all", "sensitivity"]["note"].startswith(
        "mean of 3 readers; "
    )
    family = [
        found["readers aided-readers", "mask", "aid", "all", m]
        for m in ("auroc", "sensitivity", "specificity")
    ]
    assert [row["p_holm"] for row in family] == holm([row["p_value"] for row in family])


def test_one_reader_has_no_mean_and_few_films_no_interval(tmp_path: Path) -> None:
    eff = simulated(1)
    assert mean_rows({"eff": eff}, reading(eff, tmp_path, [f"c{i},A,1" for i in range(80)])) == []
    rows = mean_rows({"eff": eff}, reading(eff, tmp_path, [f"c{i},{r},1" for r in "AB" for i in range(12)]))
    all_films = [row for row in rows if row["stratum"] == "all" and row["reference"] == "mask"]
    assert {row["interval"] for row in all_films} == {"none"}
    assert all("too few films for an interval" in row["note"] for row in all_films)
    rows = mean_rows({"eff": eff}, reading(eff, tmp_path, ["c0,A,1", "c1,A,1", "c0,B,1", "c1,B,1"]))
    assert any("mean of 0 readers of 2; not estimable" in row["note"] for row in rows)
    assert all(row["estimate"] is None or row["interval"] == "none" for row in rows)


def test_no_result_depends_on_the_order_of_readers(tmp_path: Path) -> None:
    eff = simulated(1, patients=50)
    lines = [f"c{i},{r},{called(eff, j, 0.2)[i]:d}" for j, r in enumerate("ABC") for i in range(80)]
    one, other = (mean_rows({"eff": eff}, reading(eff, tmp_path, text)) for text in (lines, lines[::-1]))
    for row, same in zip(one, other, strict=True):
        for column in ("estimate", "ci_low", "ci_high", "p_value"):
            assert row[column] == (same[column] if same[column] is None else pytest.approx(same[column]))


# --- the file for iMRMC ----------------------------------------------------------------------------


def read_as_imrmc(text: str) -> tuple[dict[str, int], dict[str, int], dict[tuple[str, str, str], float]]:
    """Sizes, truth and scores, by the rules of the manual: anything else is an error."""
    lines = text.splitlines()
    begin = lines.index("BEGIN DATA:")
    sizes = {}
    for name, line in itertools.product(("N0", "N1", "NR", "NM"), lines[:begin]):
        if f"{name}:" in line.upper():
            assert name not in sizes
            sizes[name] = int(line[3:].strip())
    truth: dict[str, int] = {}
    scores: dict[tuple[str, str, str], float] = {}
    for line in lines[begin + 1 :]:
        reader, case, modality, score = line.split(",")
        assert " " not in line
        if reader == "-1":
            assert case not in truth
            assert score in ("0", "1")
            truth[case] = int(score)
        else:
            assert (reader, case, modality) not in scores
            scores[reader, case, modality] = float(score)
    assert {case for _, case, _ in scores} == set(truth)
    return sizes, truth, scores


def test_the_file_for_imrmc_holds_every_call_by_pseudonym(tmp_path: Path) -> None:
    eff = simulated(1)
    lines = ["c3,Dr Who,1,33.3,0", "c1,Dr Who,0,0,0", "c3,Dr Who,1,100,1", '"c7","a,b",1,7,0']
    text = imrmc_text(eff, reading(eff, tmp_path, lines, "case,reader,call,confidence,aid"))
    assert "Who" not in text
    sizes, truth, scores = read_as_imrmc(text)
    assert truth == {case: int(eff.has_mask[int(case[1:])]) for case in ("c1", "c3", "c7")}
    positive = sum(truth.values())
    assert sizes == {"N0": 3 - positive, "N1": positive, "NR": 2, "NM": 2}
    assert scores == {
        ("reader1", "c3", "unaided"): 33.3,
        ("reader1", "c1", "unaided"): 0,
        ("reader1", "c3", "aided"): 100,
        ("reader2", "c7", "unaided"): 7,
    }


def test_without_confidences_imrmc_gets_the_calls_and_kept_identifiers_break_no_row(tmp_path: Path) -> None:
    eff = simulated(1)
    eff = replace(eff, case=np.array(["Müller, 3", *eff.case[1:]]))
    readers = reading(eff, tmp_path, ['"Müller, 3",A,1', "c1,A,0"])
    text = imrmc_text(eff, readers)
    assert text.isascii()
    _, truth, scores = read_as_imrmc(text)
    assert list(scores.values()) == [1, 0]
    assert len(truth) == 2
