"""The metrics against numbers worked out by hand, and against scikit-learn, SciPy and plain loops."""

from fractions import Fraction as F

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    roc_auc_score,
    roc_curve,
)

from common.statistics.intervals import too_few
from common.statistics.metric_catalogue import METRICS
from common.statistics.metrics import DECISIONS, REFERENCES, MetricValues, Ranks, Sums
from common.statistics.strata import STRATA, groups, strata
from common.statistics.tested_films import Cases

NAN = float("nan")

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


def on_full_sample(cases: Cases, reference: str, **options) -> dict:
    metric_values = MetricValues(cases, reference, **options)
    values = metric_values.values(np.ones((1, len(cases))))
    assert list(values) == metric_values.keys
    return {key: (int(metric_values.films(*key).sum()), float(value[0])) for key, value in values.items()}


def repeated(cases: Cases, counts: np.ndarray) -> Cases:
    return cases.taken(np.repeat(np.arange(len(cases)), counts.astype(int)))


def quotient(part: float, whole: float) -> float:
    return part / whole if whole else NAN


# --- by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_number_of_the_hand_made_table(reference):
    found = on_full_sample(table(), reference)
    for decision in DECISIONS:
        for stratum in STRATA:
            tp, fp, fn, tn = CELLS[reference, decision, stratum]
            n = tp + fp + fn + tn
            auroc, auprc = AREAS[reference, stratum]
            sensitivity, specificity = quotient(tp, tp + fn), quotient(tn, tn + fp)
            expected = {
                "auroc": (n, float(auroc)),
                "auprc": (n, float(auprc)),
                "prevalence": (n, (tp + fn) / n),
                "sensitivity": (tp + fn, sensitivity),
                "specificity": (tn + fp, specificity),
                "ppv": (tp + fp, quotient(tp, tp + fp)),
                "npv": (tn + fn, quotient(tn, tn + fn)),
                "lr_positive": (n, quotient(sensitivity, 1 - specificity)),
                "lr_negative": (n, quotient(1 - sensitivity, specificity)),
                "f1": (n, quotient(2 * tp, 2 * tp + fp + fn)),
                "accuracy": (n, (tp + tn) / n),
                "tp": (n, tp),
                "fp": (n, fp),
                "fn": (n, fn),
                "tn": (n, tn),
            }
            names = ("dice_segmentation", "dice_positives", "dice_true_positives")
            expected |= dict(zip(names, DICE[reference, decision, stratum], strict=True))
            for metric, value in expected.items():
                got = found[decision, stratum, metric]
                assert got == pytest.approx(value, nan_ok=True, abs=1e-10), (stratum, metric)


def test_what_is_shown_by_hand():
    """Films a (found), b (missed), c (called, empty map); d (false, 2% shown), e, f (true negatives)."""
    called = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    has_mask = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    name = np.array(list("abcdef"))
    cases = Cases(
        name,
        name,
        has_mask,
        has_mask,
        np.array([0.05, 0.01, 0.02, NAN, NAN, NAN]),
        np.array([0.9, 0.1, 0.8, 0.7, 0.2, 0.3]),
        called,
        called,
        np.array([0.8, 0.5, 0.0, NAN, NAN, NAN]),
        area_fraction=np.array([0.04, 0.01, 0.0, 0.02, NAN, NAN]),
        iou=np.array([2 / 3, 1 / 3, 0, NAN, NAN, NAN]),
        hd95=np.array([10.0, 20, 724, NAN, NAN, NAN]),
        nsd=np.array([0.9, 0.6, 0, NAN, NAN, NAN]),
        in_mm=np.array([True, True, False, False, False, False]),
    )
    found = on_full_sample(cases, "mask", prevalence=0.01)
    differences = np.array([-1.0, -1.0, -2.0])  # % of the film: 4 - 5, 0 - 1, 0 - 2
    expected = {
        "iou": (3, 1 / 3),
        "hd95_mm": (2, 15),
        "hd95_px": (1, 724),
        "nsd_mm": (2, 0.75),
        "nsd_px": (1, 0),
        "dice_positives": (3, 0.8 / 3),
        "dice_all_films": (6, (0.8 + 0 + 0 + 0 + 1 + 1) / 6),
        "dice_always_empty": (6, 0.5),
        "false_positive_area": (3, 2 / 3),
        "area_bias": (3, differences.mean()),
        "area_loa_low": (3, differences.mean() - 1.96 * np.sqrt(1 / 3)),
        "area_loa_high": (3, differences.mean() + 1.96 * np.sqrt(1 / 3)),
        # sensitivity 2/3, specificity 2/3 at 1%
        "ppv_at_prevalence": (6, 2 * 0.01 / (2 * 0.01 + 0.99)),
        "npv_at_prevalence": (6, 2 * 0.99 / (2 * 0.99 + 0.01)),
        "sensitivity_at_specificity_90": (6, 2 / 3),  # above every negative: 0.9 and 0.8
    }
    for metric, value in expected.items():
        assert found["stage_1", "all", metric] == pytest.approx(value, abs=1e-9), metric


def test_a_negative_called_with_an_empty_map_shows_nothing():
    """Stage 1 calls it, no pixel is above the threshold: map and truth are both empty."""
    one = np.array([True])
    cases = Cases(one.astype(str), one.astype(str), ~one, ~one, np.array([NAN]), np.array([0.9]), one, ~one,
                  np.array([NAN]), area_fraction=np.array([0.0]))  # fmt: skip
    assert on_full_sample(cases, "mask")["stage_1", "all", "dice_all_films"] == (1, 1.0)


# --- strata ----------------------------------------------------------------------------------------


def test_sizes_start_at_their_edges():
    for reference, members in (
        ("mask", {"all": "abcde", "small": "ab", "medium": "cd", "large": "e"}),
        ("report", {"all": "abcef", "small": "ab", "medium": "c", "large": "e"}),
    ):
        cases = table()
        positive = cases.positive(reference)
        for name, films in strata(cases, reference).items():
            assert "".join(cases.case[films & positive]) == members[name]
            assert (films | positive).all()  # every negative


def with_groups(**columns) -> Cases:
    n = len(next(iter(columns.values())))
    name = np.arange(n).astype(str)
    no, unknown = np.zeros(n, dtype=bool), np.full(n, NAN)
    return Cases(name, name, no, no, unknown, np.zeros(n), no, no, unknown,
                 **{key: np.array(column) for key, column in columns.items()})  # fmt: skip


def test_groups_that_occur():
    cases = with_groups(
        sex=["F", "M", "", "F", "M", "M"],
        age=[20, 39.9, 40, 80, NAN, 19.5],
        view=["AP"] * 6,
        manufacturer=["B", "A", "A", "B", "B", ""],
        chest_tube=[0, 1, NAN, 0, 0, 0],
    )
    members = {name: "".join(cases.case[films]) for name, films in groups(cases).items()}
    assert members == {
        "sex F": "03", "sex M": "145", "sex unknown": "2",
        "age 0-19": "5", "age 20-39": "01", "age 40-59": "2", "age 80+": "3", "age unknown": "4",
        "device A": "12", "device B": "034", "device unknown": "5",
        "chest tube 0": "0345", "chest tube 1": "1", "chest tube unknown": "2",
    }  # fmt: skip
    order = list(members)
    assert order.index("sex unknown") == 2


def test_variables_of_one_value_give_no_group():
    for tube in (0.0, 1.0, NAN):
        assert groups(with_groups(sex=["F", "F"], age=[50, 51], chest_tube=[tube, tube])) == {}


@pytest.mark.parametrize("tube", [0.0, 1.0])
def test_chest_tubes_known_of_some_films(tube):
    found = groups(with_groups(chest_tube=[tube, NAN]))
    assert list(found) == [f"chest tube {tube:.0f}", "chest tube unknown"]


def test_results_without_later_columns_have_no_metrics_of_them():
    found = on_full_sample(table(), "mask")
    for metric in (
        "laterality",
        "hit",
        "lesions_found",
        "false_outlines",
        "auroc_thumbnail",
        "dice_lesser_half",
    ):
        assert found["two_stage", "all", metric] == (0, pytest.approx(NAN, nan_ok=True)), metric


def test_mask_or_clear_is_mask_without_the_films_that_only_the_report_calls_positive():
    cases = varied(3)
    unclear = cases.report & ~cases.has_mask
    assert 5 < unclear.sum() < 30
    assert np.array_equal(cases.counted("mask_or_clear"), ~unclear)
    assert cases.counted("mask").all()
    assert cases.counted("report").all()
    found = on_full_sample(cases, "mask_or_clear")
    expected = on_full_sample(cases.taken(np.flatnonzero(~unclear)), "mask")
    shared = {key: value for key, value in found.items() if key in expected}
    assert {("all", "auroc"), ("small", "specificity")} <= {key[1:] for key in shared}
    for key, value in shared.items():
        assert value == pytest.approx(expected[key], nan_ok=True), key
    assert (
        found["two_stage", "all", "specificity"]
        != on_full_sample(cases, "mask")["two_stage", "all", "specificity"]
    )


# --- against references ----------------------------------------------------------------------------


def varied(seed: int, n: int = 240) -> Cases:
    """Tied probabilities, empty maps, unknown facts, a group of positives only and one of negatives only."""
    rng = np.random.default_rng(seed)
    has_mask = rng.random(n) < 0.3
    report = np.where(rng.random(n) < 0.1, ~has_mask, has_mask)
    probability = np.round(np.clip(rng.normal(0.35 + 0.3 * has_mask, 0.25), 0, 1), 2)
    stage_1 = probability >= 0.4
    empty = rng.random(n) < 0.1
    area = np.where(stage_1 | has_mask, np.where(empty, 0.0, rng.uniform(0, 0.12, n)), NAN)
    two_stage = stage_1 & (area > 0.02)
    dice = np.where(has_mask, np.where(empty, 0.0, rng.random(n)), NAN)
    kind = np.where(has_mask & report, "only positives", np.where(has_mask | report, "", "only negatives"))
    manufacturer = np.where(rng.random(n) < 0.1, kind, rng.choice(["A", "B"], n))
    return Cases(
        case=np.array([f"c{i}" for i in range(n)]),
        patient=np.array([f"p{i // 2}" for i in range(n)]),
        has_mask=has_mask,
        report=report,
        mask_area_fraction=np.where(has_mask, rng.uniform(0.001, 0.12, n), NAN),
        probability=probability,
        stage_1=stage_1,
        two_stage=two_stage,
        dice_segmentation=dice,
        area_fraction=area,
        iou=dice / (2 - dice),
        hd95=np.where(has_mask, np.where(empty, 724.1, rng.uniform(0, 300, n)), NAN),
        nsd=np.where(has_mask, rng.random(n), NAN),
        in_mm=rng.random(n) < 0.7,
        age=np.where(rng.random(n) < 0.1, NAN, rng.uniform(20, 100, n)),
        sex=rng.choice(["F", "M"], n),
        manufacturer=manufacturer,
        chest_tube=rng.choice([0.0, 1.0, NAN], n),
        further=pointed(rng, has_mask, area),
    )


def pointed(rng: np.random.Generator, has_mask: np.ndarray, area: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of localisation and of the shortcuts."""
    n = len(has_mask)
    lesions = np.where(has_mask, rng.integers(1, 4, n), NAN)
    one_sided = has_mask & (rng.random(n) < 0.8)
    return {
        "dice_full_size": np.where(has_mask, rng.random(n), NAN),
        **twice_marked(has_mask),
        "laterality": np.where(one_sided, rng.choice([0, 0.5, 1], n), NAN),
        "outline_laterality": np.where(one_sided & (area > 0), rng.choice([0, 0.5, 1], n), NAN),
        "hit": np.where(has_mask, rng.choice([0, 0.25, 1], n), NAN),
        "lesions": lesions,
        "lesions_found": np.where(has_mask, rng.integers(0, np.nan_to_num(lesions) + 1), NAN),
        "false_outlines": np.where(np.isfinite(area), rng.integers(0, 4, n), NAN),
        "thumbnail_probability": np.round(np.clip(0.4 + 0.1 * has_mask + rng.normal(0, 0.2, n), 0, 1), 2),
        "header_probability": np.round(rng.random(n), 1),
        "fold_votes": rng.integers(0, 6, n) / 5,
        "no_answer": (rng.random(n) < 0.2).astype(float),
    }


def twice_marked(has_mask: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a second annotator, who looked at three of four films."""
    rng = np.random.default_rng(len(has_mask))
    looked = rng.random(len(has_mask)) < 0.75
    agreed = np.where(has_mask, rng.random(len(has_mask)), rng.random(len(has_mask)) < 0.9)
    return {
        "dice_annotators": np.where(looked, agreed, NAN),
        "dice_second": np.where(looked & has_mask, rng.random(len(has_mask)), NAN),
    }


def plainly(
    films: Cases,
    positive: np.ndarray,
    decision: str,
    prevalence: float,
    films_a_patient: float,
    middle_area: float,
) -> dict[str, float]:
    """The metrics of these films as anyone would write them; the last two numbers are of the full sample."""
    called, p = films.called(decision), films.probability
    tn, fp, fn, tp = confusion_matrix(positive, called, labels=[False, True]).ravel()
    sensitivity, specificity = quotient(tp, tp + fn), quotient(tn, tn + fp)
    both = positive.any() and not positive.all()
    masked = positive & films.has_mask
    dice, shown = films.dice_segmentation, np.where(called, films.area_fraction, 0.0)
    excess = 100 * (shown - films.mask_area_fraction)[masked]

    def mean(values, kept):
        return values[kept].mean() if kept.any() else NAN

    def overlap(i):  # of what is shown with the truth
        if not films.has_mask[i]:
            return float(shown[i] == 0)
        return dice[i] if called[i] else 0.0

    left = len(excess) - films_a_patient  # degrees of freedom
    deviation = np.sqrt(((excess - excess.mean()) ** 2).sum() / left) if left > 0 else NAN
    false_rate, true_rate, _ = roc_curve(positive, p, drop_intermediate=False) if both else [np.array([])] * 3
    of_both = {
        "auroc": lambda: roc_auc_score(positive, p),
        "auprc": lambda: average_precision_score(positive, p),
        "sensitivity_at_specificity_90": lambda: true_rate[false_rate <= 0.1 + 1e-12].max(),
        "sensitivity_at_specificity_95": lambda: true_rate[false_rate <= 0.05 + 1e-12].max(),
    }
    shortcut = {
        name: roc_auc_score(positive, films.column(f"{name}_probability")) if both else NAN
        for name in ("thumbnail", "header")
    }
    full, lesser = films.column("dice_full_size"), masked & (films.mask_area_fraction <= middle_area)
    one_sided = masked & np.isfinite(films.column("laterality"))
    outlined = one_sided & called & (films.area_fraction > 0)
    false = np.where(called & np.isfinite(films.area_fraction), films.column("false_outlines"), 0)
    without_tube = positive & (films.chest_tube == 0)
    annotators, second = films.column("dice_annotators"), films.column("dice_second")
    looked = np.isfinite(annotators)
    votes = films.column("fold_votes")
    declined = films.column("no_answer") == 1
    return {
        **{name: formula() if both else NAN for name, formula in of_both.items()},
        **{f"auroc_{name}": value for name, value in shortcut.items()},
        **{
            f"auroc_over_{name}": roc_auc_score(positive, p) - value if both else NAN
            for name, value in shortcut.items()
        },
        "dice_full_size": mean(full, masked),
        "dice_lesser_half": mean(full, lesser),
        "dice_annotators": mean(annotators, masked & looked),
        "dice_first": mean(full, masked & looked),
        "dice_second": mean(second, masked & looked),
        "second_only": mean(annotators == 0, ~positive & ~films.has_mask & looked),
        "laterality": mean(films.column("laterality"), one_sided),
        "outline_laterality": mean(films.column("outline_laterality"), outlined),
        "hit": mean(films.column("hit"), masked),
        "lesions_found": quotient(
            films.column("lesions_found")[masked & called].sum(), films.column("lesions")[masked].sum()
        ),
        "false_outlines": false.mean(),
        "sensitivity_without_tube": mean(called, without_tube),
        "sensitivity_single_folds": mean(votes, positive),
        "specificity_single_folds": 1 - mean(votes, ~positive),
        "sensitivity_majority": mean(votes > 0.5, positive),
        "specificity_majority": mean(votes < 0.5, ~positive),
        "no_answer": declined.mean(),
        "no_answer_positives": mean(declined, positive),
        "sensitivity_answered": mean(called, positive & ~declined),
        "specificity_answered": mean(~called, ~positive & ~declined),
        "vetoed": sum(films.stage_1 & ~called),
        "prevalence": positive.mean(),
        "brier": brier_score_loss(positive, p, pos_label=True) if both else np.mean((p - positive) ** 2),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": quotient(tp, tp + fp),
        "npv": quotient(tn, tn + fn),
        "lr_positive": quotient(sensitivity, 1 - specificity),
        "lr_negative": quotient(1 - sensitivity, specificity),
        "f1": f1_score(positive, called) if tp + fp + fn else NAN,
        "accuracy": accuracy_score(positive, called),
        "false_alarms_a_true_alarm": quotient((1 - specificity) * (1 - prevalence), sensitivity * prevalence),
        "observed_over_expected": positive.sum() / p.sum(),
        "ppv_at_prevalence": quotient(
            sensitivity * prevalence, sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
        ),
        "npv_at_prevalence": quotient(
            specificity * (1 - prevalence), specificity * (1 - prevalence) + (1 - sensitivity) * prevalence
        ),
        "dice_segmentation": mean(dice, masked),
        "dice_positives": mean(np.where(called, dice, 0), masked),
        "dice_true_positives": mean(dice, masked & called),
        "iou": mean(films.iou, masked),
        "hd95_mm": mean(films.hd95, masked & films.in_mm),
        "hd95_px": mean(films.hd95, masked & ~films.in_mm),
        "nsd_mm": mean(films.nsd, masked & films.in_mm),
        "nsd_px": mean(films.nsd, masked & ~films.in_mm),
        "dice_all_films": np.mean([overlap(i) for i in range(len(films))]),
        "dice_always_empty": 1 - films.has_mask.mean(),
        "false_positive_area": 100 * mean(shown, ~positive),
        "area_bias": excess.mean() if len(excess) else NAN,
        "area_loa_low": excess.mean() - 1.96 * deviation if len(excess) else NAN,
        "area_loa_high": excess.mean() + 1.96 * deviation if len(excess) else NAN,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reference", REFERENCES)
def test_metrics_equal_references_in_every_stratum_and_resample(reference):
    cases = varied(1)
    rng = np.random.default_rng(2)
    counts = np.concatenate([np.ones((1, 240)), rng.multinomial(240, np.full(240, 1 / 240), size=2)])
    found = MetricValues(cases, reference, prevalence=0.03).values(counts)
    kinds = set()
    for i, weights in enumerate(counts):
        for stratum, films in strata(cases, reference).items():
            resample = repeated(cases, weights * films)
            positive = resample.positive(reference)
            if not len(resample):  # a small group that was not drawn
                continue
            kinds.add((positive.any(), positive.all()))
            masked = films & cases.positive(reference) & cases.has_mask
            a_patient = masked.sum() / len(set(cases.patient[masked])) if masked.any() else 1
            middle = np.median(cases.mask_area_fraction[masked]) if masked.any() else NAN
            for decision in DECISIONS:
                expected = plainly(resample, positive, decision, 0.03, a_patient, middle)
                for metric, value in expected.items():
                    got = found[decision, stratum, metric][i]
                    same = got == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)
                    assert same, (stratum, decision, metric, got, value)
    assert kinds == {(True, False), (True, True), (False, False)}
    calibration = {"calibration_slope", "calibration_intercept"}  # see test_calibration.py
    assert expected.keys() | calibration == set(METRICS)


def test_calibration_is_of_the_stratum():
    cases = varied(3)
    found = on_full_sample(cases, "mask", metrics=("calibration_slope", "calibration_intercept"))
    for stratum in ("all", "large", "sex F"):
        films = strata(cases, "mask")[stratum]
        x = logit(np.clip(cases.probability[films], 1e-6, 1 - 1e-6))
        y = cases.has_mask[films]
        fit = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky").fit(x[:, None], y)
        intercept = brentq(lambda a, x=x, y=y: (y - expit(a + x)).sum(), -20, 20, xtol=1e-13)
        n = int(films.sum())
        assert found["stage_1", stratum, "calibration_slope"] == pytest.approx((n, fit.coef_[0, 0]), abs=1e-6)
        assert found["stage_1", stratum, "calibration_intercept"] == pytest.approx((n, intercept), abs=1e-6)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_ranks_equal_sklearn_with_ties(levels):
    rng = np.random.default_rng(levels)
    positive = rng.random(200) < 0.3
    scores = rng.integers(0, levels, 200) / levels + 0.2 * positive * (levels > 2)
    counts = rng.multinomial(200, np.full(200, 1 / 200), size=20)
    found = Ranks(scores, positive, ~positive).values(counts.astype(float))
    for i, weights in enumerate(counts):
        rows = np.repeat(np.arange(200), weights)
        truth, score = positive[rows], scores[rows]
        assert found["auroc"][i] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert found["auprc"][i] == pytest.approx(average_precision_score(truth, score), abs=1e-12)
        false_rate, true_rate, _ = roc_curve(truth, score, drop_intermediate=False)
        for level in (90, 95):
            best = true_rate[false_rate <= 1 - level / 100 + 1e-12].max()
            assert found[f"sensitivity_at_specificity_{level}"][i] == pytest.approx(best, abs=1e-12)


def test_all_scores_equal():
    positive = np.array([True, False, False, True, False])
    found = Ranks(np.full(5, 0.3), positive, ~positive).values(np.ones((1, 5)))
    assert {name: float(value[0]) for name, value in found.items()} == {
        "auroc": 0.5,
        "auprc": 2 / 5,
        "sensitivity_at_specificity_90": 0,
        "sensitivity_at_specificity_95": 0,
    }


def test_specificity_is_reached_exactly():
    """10 negatives at 1 ... 10: a specificity of 0.90 leaves one above, so positives above 9 are found."""
    scores = np.array([*range(1, 11), 9.0, 9.5, 11.0])
    positive = np.arange(13) >= 10
    found = Ranks(scores, positive, ~positive).values(np.ones((1, 13)))
    assert found["sensitivity_at_specificity_90"][0] == 2 / 3
    assert found["sensitivity_at_specificity_95"][0] == 1 / 3


# --- what holds whatever the films -----------------------------------------------------------------


def test_the_order_of_the_films_changes_no_bit():
    cases = varied(4)
    shuffled = cases.taken(np.random.default_rng(5).permutation(len(cases)))
    for reference in REFERENCES:
        assert str(on_full_sample(shuffled, reference)) == str(on_full_sample(cases, reference))


def test_the_number_of_resamples_changes_no_bit_but_of_the_calibration():
    cases = varied(6)
    counts = np.random.default_rng(0).poisson(1, (50, len(cases))).astype(float)
    metric_values = MetricValues(cases, "mask")
    together = metric_values.values(counts)
    for i in (0, 7, 49):
        for key, value in metric_values.values(counts[i : i + 1]).items():
            tolerance = 1e-9 if key[2].startswith("calibration") else 0
            np.testing.assert_allclose(value[0], together[key][i], rtol=tolerance, atol=0, err_msg=str(key))


def test_only_what_no_interval_is_made_from_is_not_resampled():
    cases = varied(6)
    counts = np.random.default_rng(0).poisson(1, (3, len(cases))).astype(float)
    metric_values = MetricValues(cases, "mask", 0.2)
    every, resampled = metric_values.values(counts), metric_values.resampled(counts)
    for key, value in resampled.items():
        rounding = 1e-7 if key[2] == "calibration_slope" else 0  # most of the way in single precision
        np.testing.assert_allclose(value, every[key], rtol=rounding, err_msg=str(key))
    for decision, stratum, metric in every.keys() - resampled.keys():
        few = any(too_few(cases.patient[films]) for films in metric_values.needed(decision, stratum, metric))
        shortcut = "thumbnail" in metric or "header" in metric
        by_patients = METRICS[metric].by_patients is not None and not METRICS[metric].compared
        assert shortcut or by_patients or (METRICS[metric].both_classes and few), (stratum, metric)
    left_out = {stratum for _, stratum, metric in every.keys() - resampled.keys() if metric == "auroc"}
    assert left_out
    assert left_out < {stratum for _, stratum, _ in every}


def test_only_the_metrics_that_are_asked_for():
    cases = varied(7)
    all_of_them = on_full_sample(cases, "report", prevalence=0.2)
    for metric in METRICS:
        alone = on_full_sample(cases, "report", prevalence=0.2, metrics=(metric,))
        assert {key[2] for key in alone} == {metric}
        assert str(alone) == str({key: all_of_them[key] for key in alone})
    without = MetricValues(cases, "report").keys
    assert [
        key for key in MetricValues(cases, "report", 0.2).keys if not METRICS[key[2]].at_prevalence
    ] == without


@pytest.mark.filterwarnings("error")
def test_what_no_film_defines_is_nan_without_a_warning():
    negatives_only = table([film for film in FILMS if not film[2]])
    found = on_full_sample(negatives_only, "mask", prevalence=0.5)
    for metric in ("auroc", "auprc", "calibration_slope", "calibration_intercept", "lr_positive",
                   "ppv_at_prevalence", "sensitivity_at_specificity_90"):  # fmt: skip
        assert found["two_stage", "all", metric] == pytest.approx((7, NAN), nan_ok=True)
    assert found["two_stage", "all", "sensitivity"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "dice_segmentation"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "area_loa_low"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "specificity"] == (7, 6 / 7)
    assert found["two_stage", "all", "ppv"] == (1, 0.0)

    positives_only = table([film for film in FILMS if film[2]])
    found = on_full_sample(positives_only, "mask")
    for metric in ("auroc", "auprc", "calibration_slope"):
        assert found["stage_1", "all", metric] == pytest.approx((5, NAN), nan_ok=True)
    assert found["stage_1", "all", "specificity"] == pytest.approx((0, NAN), nan_ok=True)

    of_one_size = table([film for film in FILMS if film[0] in "cd"])
    found = on_full_sample(of_one_size, "mask", prevalence=0.5)
    for metric in (name for name in METRICS if not METRICS[name].if_known):
        empty = 0 if METRICS[metric].kind == "count" else NAN
        assert found["stage_1", "small", metric] == pytest.approx((0, empty), nan_ok=True)

    nothing_called = table([(*film[:6], 0, 0, film[8]) for film in FILMS])
    found = on_full_sample(nothing_called, "mask")
    assert found["two_stage", "all", "ppv"] == pytest.approx((0, NAN), nan_ok=True)
    assert found["two_stage", "all", "npv"] == (12, 7 / 12)
    assert found["two_stage", "all", "lr_positive"] == pytest.approx((12, NAN), nan_ok=True)
    assert found["two_stage", "all", "dice_positives"] == (5, 0.0)
    assert found["two_stage", "all", "dice_true_positives"] == pytest.approx((0, NAN), nan_ok=True)


def test_unknown_values_leave_their_metrics_undefined():
    """Areas are unknown in this table: what is over them is, what is not over them is not."""
    found = on_full_sample(table(), "mask")
    assert found["stage_1", "all", "false_positive_area"] == pytest.approx((7, NAN), nan_ok=True)
    assert found["stage_1", "all", "area_bias"] == pytest.approx((5, NAN), nan_ok=True)
    assert found["stage_1", "all", "iou"] == pytest.approx((5, NAN), nan_ok=True)
    assert found["stage_1", "all", "accuracy"] == (12, 8 / 12)


def test_sums_count_each_film_as_often_as_drawn():
    films = np.array([True, False, True])
    sums = Sums({"x": (films, np.array([0.2, NAN, 0.8])), "n": (films, np.array([1, 7, 1]))})
    found = sums.totals(np.array([[1.0, 5, 3], [0, 5, 0]]))
    for name, expected in (("x", [0.2 + 3 * 0.8, 0]), ("n", [4, 0])):
        total, n = found[name]
        assert total == pytest.approx(expected, abs=1e-10)
        assert n.tolist() == [4, 0]


def test_sums_have_no_rounding_error():
    """0.1 added ten times is not 1 in floating point; here every order gives the same."""
    values = np.random.default_rng(0).random(1000) / 3
    everything = np.ones(1000, dtype=bool)
    counts = np.random.default_rng(1).poisson(1, (1, 1000)).astype(float)
    totals = set()
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(1000)
        totals.add(float(Sums({"x": (everything, values[order])}).totals(counts[:, order])["x"][0][0]))
    assert len(totals) == 1
    assert totals.pop() == pytest.approx(float(counts[0] @ values), rel=1e-10)
