"""The figures against numbers worked out by hand, and against scikit-learn."""

from fractions import Fraction as F

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from common.evaluation.cases import Cases
from common.evaluation.metrics import (
    CONFUSION,
    DECISIONS,
    METRICS,
    REFERENCES,
    STRATA,
    RankedNegatives,
    figures,
    mean_over,
    rates,
    strata,
)

NAN = float("nan")
RATES = ("sensitivity", "specificity", "ppv", "npv")

# case, patient, mask, report, lesion area, probability, stage 1, two-stage, Dice of the map
FILMS = [
    ("a", "p1", 1, 1, 0.010, 0.90, 1, 1, 0.6),
    ("b", "p1", 1, 1, 0.031, 0.40, 0, 0, 0.5),  # missed by stage 1; ties with i
    ("c", "p2", 1, 1, 0.032, 0.70, 1, 0, 0.2),  # missed by the area rule; on the edge; ties with g
    ("d", "p3", 1, 0, 0.079, 0.80, 1, 1, 0.7),  # a lesion that the report denies
    ("e", "p4", 1, 1, 0.080, 0.95, 1, 1, 0.9),  # on the edge
    ("f", "p5", 0, 1, NAN, 0.55, 1, 0, NAN),  # positive by report, no mask
    ("g", "p6", 0, 0, NAN, 0.70, 1, 1, NAN),
    ("h", "p6", 0, 0, NAN, 0.60, 1, 0, NAN),
    ("i", "p7", 0, 0, NAN, 0.40, 0, 0, NAN),
    ("j", "p8", 0, 0, NAN, 0.30, 0, 0, NAN),
    ("k", "p9", 0, 0, NAN, 0.20, 0, 0, NAN),
    ("l", "p10", 0, 0, NAN, 0.10, 0, 0, NAN),
]

# (reference, stratum): AUROC = wins over pairs, AUPRC = mean precision at the positives' scores
AREAS = {
    ("mask", "all"): (F("31") / 35, (1 + 1 + 1 + F(4, 5) + F(5, 9)) / 5),
    ("mask", "small"): (F("10.5") / 14, (1 + F(2, 6)) / 2),
    ("mask", "medium"): (F("13.5") / 14, (1 + F(2, 3)) / 2),
    ("mask", "large"): (F(1), F(1)),
    ("report", "all"): (F(27, 35), (1 + 1 + F(3, 5) + F(4, 7) + F(5, 9)) / 5),
    ("report", "small"): (F("10.5") / 14, (1 + F(2, 6)) / 2),
    ("report", "medium"): (F("5.5") / 7, F(1, 3)),
    ("report", "large"): (F(1), F(1)),
}
# (reference, decision, stratum): TP, FP, FN, TN
CELLS = {
    ("mask", "two_stage", "all"): (3, 1, 2, 6),
    ("mask", "two_stage", "small"): (1, 1, 1, 6),
    ("mask", "two_stage", "medium"): (1, 1, 1, 6),
    ("mask", "two_stage", "large"): (1, 1, 0, 6),
    ("mask", "stage_1", "all"): (4, 3, 1, 4),
    ("mask", "stage_1", "small"): (1, 3, 1, 4),
    ("mask", "stage_1", "medium"): (2, 3, 0, 4),
    ("mask", "stage_1", "large"): (1, 3, 0, 4),
    ("report", "two_stage", "all"): (2, 2, 3, 5),
    ("report", "two_stage", "small"): (1, 2, 1, 5),
    ("report", "two_stage", "medium"): (0, 2, 1, 5),
    ("report", "two_stage", "large"): (1, 2, 0, 5),
    ("report", "stage_1", "all"): (4, 3, 1, 4),
    ("report", "stage_1", "small"): (1, 3, 1, 4),
    ("report", "stage_1", "medium"): (1, 3, 0, 4),
    ("report", "stage_1", "large"): (1, 3, 0, 4),
}
# (reference, decision, stratum): n and value of segmentation, positives, true positives
DICE = {
    ("mask", "two_stage", "all"): ((5, 0.58), (5, 0.44), (3, 2.2 / 3)),
    ("mask", "two_stage", "small"): ((2, 0.55), (2, 0.30), (1, 0.6)),
    ("mask", "two_stage", "medium"): ((2, 0.45), (2, 0.35), (1, 0.7)),
    ("mask", "two_stage", "large"): ((1, 0.9), (1, 0.9), (1, 0.9)),
    ("mask", "stage_1", "all"): ((5, 0.58), (5, 0.48), (4, 0.6)),
    ("mask", "stage_1", "small"): ((2, 0.55), (2, 0.30), (1, 0.6)),
    ("mask", "stage_1", "medium"): ((2, 0.45), (2, 0.45), (2, 0.45)),
    ("mask", "stage_1", "large"): ((1, 0.9), (1, 0.9), (1, 0.9)),
    ("report", "two_stage", "all"): ((4, 0.55), (4, 0.375), (2, 0.75)),
    ("report", "two_stage", "small"): ((2, 0.55), (2, 0.30), (1, 0.6)),
    ("report", "two_stage", "medium"): ((1, 0.2), (1, 0.0), (0, NAN)),
    ("report", "two_stage", "large"): ((1, 0.9), (1, 0.9), (1, 0.9)),
    ("report", "stage_1", "all"): ((4, 0.55), (4, 0.425), (3, 1.7 / 3)),
    ("report", "stage_1", "small"): ((2, 0.55), (2, 0.30), (1, 0.6)),
    ("report", "stage_1", "medium"): ((1, 0.2), (1, 0.2), (1, 0.2)),
    ("report", "stage_1", "large"): ((1, 0.9), (1, 0.9), (1, 0.9)),
}


def table(films=FILMS) -> Cases:
    columns = [np.array(column) for column in zip(*films, strict=True)]
    case, patient, mask, report, area, probability, stage_1, two_stage, dice = columns
    flags = (flag.astype(bool) for flag in (mask, report))
    return Cases(case, patient, *flags, area, probability, stage_1.astype(bool), two_stage.astype(bool), dice)


def on_full_sample(cases: Cases, reference: str) -> dict:
    found = figures(cases, reference, np.ones((1, len(cases))))
    return {key: (int(figure.n[0]), float(figure.value[0])) for key, figure in found.items()}


def quotient(part: int, whole: int) -> float:
    return part / whole if whole else NAN


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_number_of_the_hand_made_table(reference):
    found = on_full_sample(table(), reference)
    assert list(found) == [(d, s, m) for d in DECISIONS for s in STRATA for m in METRICS]
    for decision in DECISIONS:
        for stratum in STRATA:
            tp, fp, fn, tn = CELLS[reference, decision, stratum]
            n = tp + fp + fn + tn
            auroc, auprc = AREAS[reference, stratum]
            expected = {
                "auroc": (n, float(auroc)),
                "auprc": (n, float(auprc)),
                "sensitivity": (tp + fn, quotient(tp, tp + fn)),
                "specificity": (tn + fp, quotient(tn, tn + fp)),
                "ppv": (tp + fp, quotient(tp, tp + fp)),
                "npv": (tn + fn, quotient(tn, tn + fn)),
                "tp": (n, tp),
                "fp": (n, fp),
                "fn": (n, fn),
                "tn": (n, tn),
            }
            names = ("dice_segmentation", "dice_positives", "dice_true_positives")
            expected |= dict(zip(names, DICE[reference, decision, stratum], strict=True))
            for metric in METRICS:
                got = found[decision, stratum, metric]
                assert got == pytest.approx(expected[metric], nan_ok=True, abs=1e-15), (stratum, metric)


def test_sizes_start_at_their_edges():
    members = {name: "".join(table().case[m]) for name, m in strata(table(), "mask").items()}
    assert members == {"all": "abcde", "small": "ab", "medium": "cd", "large": "e"}
    members = {name: "".join(table().case[m]) for name, m in strata(table(), "report").items()}
    assert members == {"all": "abcef", "small": "ab", "medium": "c", "large": "e"}


def test_the_order_of_the_films_changes_no_bit():
    rng = np.random.default_rng(3)
    films = [(f"c{i}", f"p{i}", m, m, 0.05 if m else NAN, s, 1, 1, d if m else NAN)
             for i, (m, s, d) in enumerate(zip(rng.integers(0, 2, 300), rng.random(300), rng.random(300),
                                               strict=True))]  # fmt: skip
    shuffled = [films[i] for i in rng.permutation(300)]
    assert str(on_full_sample(table(films), "mask")) == str(on_full_sample(table(shuffled), "mask"))


def test_counts_stand_for_repeated_films():
    cases = table()
    counts = np.array([[2, 0, 1, 3, 1, 0, 2, 1, 1, 0, 4, 1]], dtype=float)
    rows = np.repeat(np.arange(12), counts[0].astype(int))
    repeated = Cases(**{name: column[rows] for name, column in vars(cases).items()})
    for reference in REFERENCES:
        weighted = figures(cases, reference, counts)
        for key, (n, value) in on_full_sample(repeated, reference).items():
            assert (int(weighted[key].n[0]), float(weighted[key].value[0])) == pytest.approx(
                (n, value), nan_ok=True, abs=1e-14
            )


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_areas_equal_sklearn_with_ties(levels):
    rng = np.random.default_rng(levels)
    positive = rng.random(200) < 0.3
    scores = rng.integers(0, levels, 200) / levels + 0.2 * positive * (levels > 2)
    counts = rng.multinomial(200, np.full(200, 1 / 200), size=20)
    ranked = RankedNegatives(scores, ~positive, counts.astype(float))
    auroc, auprc = ranked.auroc(positive).value, ranked.auprc(positive).value
    for i, weights in enumerate(counts):
        rows = np.repeat(np.arange(200), weights)
        assert auroc[i] == pytest.approx(roc_auc_score(positive[rows], scores[rows]), abs=1e-12)
        assert auprc[i] == pytest.approx(average_precision_score(positive[rows], scores[rows]), abs=1e-12)


def test_all_scores_equal():
    positive = np.array([True, False, False, True, False])
    ranked = RankedNegatives(np.full(5, 0.3), ~positive, np.ones((1, 5)))
    assert ranked.auroc(positive).value[0] == 0.5
    assert ranked.auprc(positive).value[0] == 2 / 5


def test_rates_by_hand():
    found = rates(*(np.array([float(x)]) for x in (8, 2, 4, 86)))
    assert {name: found[name].value[0] for name in RATES} == {
        "sensitivity": 8 / 12,
        "specificity": 86 / 88,
        "ppv": 8 / 10,
        "npv": 86 / 90,
    }
    assert {name: found[name].n[0] for name in (*RATES, *CONFUSION)} == {
        "sensitivity": 12, "specificity": 88, "ppv": 10, "npv": 90,
        "tp": 100, "fp": 100, "fn": 100, "tn": 100,
    }  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_what_no_film_defines_is_nan_without_a_warning():
    negatives_only = table([film for film in FILMS if not film[2]])
    found = on_full_sample(negatives_only, "mask")
    for metric in ("auroc", "auprc"):
        assert found["two_stage", "all", metric] == pytest.approx((7, NAN), nan_ok=True)
    assert found["two_stage", "all", "sensitivity"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "dice_segmentation"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "specificity"] == (7, 6 / 7)
    assert found["two_stage", "all", "ppv"] == (1, 0.0)

    positives_only = table([film for film in FILMS if film[2]])
    found = on_full_sample(positives_only, "mask")
    for metric in ("auroc", "auprc"):
        assert found["stage_1", "all", metric] == pytest.approx((5, NAN), nan_ok=True)
    assert found["stage_1", "all", "specificity"] == pytest.approx((0, NAN), nan_ok=True)

    nothing_called = table([(*film[:6], 0, 0, film[8]) for film in FILMS])
    found = on_full_sample(nothing_called, "mask")
    assert found["two_stage", "all", "ppv"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "npv"] == (12, 7 / 12)
    assert found["two_stage", "all", "dice_positives"] == (5, 0.0)
    assert found["two_stage", "all", "dice_true_positives"] == pytest.approx((0, NAN), nan_ok=True)


def test_mean_over_counts_each_film_as_often_as_drawn():
    values = np.array([0.2, NAN, 0.8])
    found = mean_over(values, np.array([True, False, True]), np.array([[1.0, 5, 3], [0, 5, 0]]))
    assert found.n.tolist() == [4, 0]
    assert found.value == pytest.approx([(0.2 + 3 * 0.8) / 4, NAN], nan_ok=True)
