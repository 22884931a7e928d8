"""The thresholds of a system from its out-of-fold predictions: the work of `get_thresholds.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.command_line import ThresholdOptions
from common.compute import film_readers, set_up
from common.distributed import Processes, running
from common.files import read_json, write_csv, write_json
from common.inference.run_networks import PRECISION, Predictor
from common.inference.threshold_plots import dice_picture, roc_picture
from common.inference.threshold_rules import (
    AREA_RULES,
    LOWEST_COST,
    MAP_THRESHOLDS,
    RULES,
    SMALLEST,
    YOUDEN,
    Costs,
    RocPoint,
    area_threshold,
    best_map_threshold,
    choose,
    dice_by_threshold,
    extreme,
    overlap_by_threshold,
    resampled_thresholds,
)
from common.inference.trained_system import (
    CLASSIFICATION,
    SEGMENTATION,
    TrainedSystem,
    read_out_of_fold,
    read_trained,
    refuse_other_films,
)
from common.inference.unlike_training import TrainingLikeness
from common.paths import shown, thresholds_file
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared
from common.removal import Written, refuse_foreign
from common.stages import N_FOLDS, STUDENTS, THRESHOLDS_COMMAND
from common.statistics.auroc import auroc
from common.statistics.overlap import MAP_THRESHOLD

OPTIMISTIC = "optimistic: each fold's epoch was chosen on these films"
TAUGHT = "optimistic: each teacher's epoch was chosen on these films; the students' own was not chosen"
STABILITY = "stability, not a confidence interval"
_REASON = "the bootstrap is inconsistent for a minimum and for Youden's cut-point"
_REPLICATES, _SEED = 2000, 0
_COIN = 0.5  # of a rate: tossing a coin is as good
_PERCENTILES = {"minimum": 0, "percentile_2.5": 2.5, "median": 50, "percentile_97.5": 97.5, "maximum": 100}
_COLUMNS = ("case", "patient", "fold", "has_mask", "probability", "overlap_pixels", "dice")
FILES = Written(
    ("roc.png", "dice.png", "out_of_fold.csv", "5cv_avg.json"),
    {"out_of_fold.csv": ",".join(_COLUMNS), "5cv_avg.json": '"cls_threshold"'},
)


@dataclass(frozen=True)
class OutOfFold:
    """What the folds predict for the films that they did not train on, in the order of the set.

    Attributes:
        probability: (n,) float64, probability of pneumothorax by the fold that held the film out, 0-1.
        overlap: (n,) int: pixels shared by predicted and true mask; -1 for films without a mask.
        dice_by_threshold: (n, 256) float64, Dice at each of MAP_THRESHOLDS, 0-1; NaN without a mask.
        map_threshold: What the map must exceed where a pixel is segmented: one of MAP_THRESHOLDS.
    """

    probability: np.ndarray
    overlap: np.ndarray
    dice_by_threshold: np.ndarray
    map_threshold: float = MAP_THRESHOLD

    @property
    def dice(self) -> np.ndarray:
        """(n,) float64, 0-1, of the map above its threshold; NaN for films without a mask."""
        return self.dice_by_threshold[:, np.searchsorted(MAP_THRESHOLDS, self.map_threshold)]


def choose_thresholds(options: ThresholdOptions) -> None:
    """Compute the thresholds of the systems asked for on the command line.

    Raises:
        Refusal: Networks are missing, do not belong together, or were trained on other films; or files are in
            the way that were not written by this script.
    """
    costs = None if options.prevalence is None else Costs(options.prevalence, options.cost_ratio or 1.0)
    with running(options.gpu) as processes:
        set_up(processes.device)
        systems = read_trained(options.systems, "get_thresholds", options.preset)
        out_of_fold = {each.system: read_out_of_fold(each, "get_thresholds") for each in systems}
        prepared = processes.first_ahead(lambda: open_prepared("ntuh_train", options.ntuh, "get_thresholds"))
        for trained in systems:
            refuse_other_films(trained, prepared)
            refuse_foreign(thresholds_file(trained.system).parent, FILES)  # before the long work that follows
        workers = film_readers(options.workers, processes.device)
        # One description for both systems: it is of the films, not of a network.
        likeness = TrainingLikeness.of_films(prepared, show=True) if processes.first else None
        for trained in systems:
            found = predict_out_of_fold(out_of_fold[trained.system], prepared, processes, workers)
            if likeness is not None:  # in the first process
                rules = options.rule, costs, options.area_rule
                five = None if trained.system not in STUDENTS else out_of_fold[trained.system]
                write_thresholds(trained, prepared, found, likeness, *rules, five)


def are_chosen(trained: TrainedSystem, options: ThresholdOptions) -> bool:
    """Whether the thresholds that are there are of these very networks, by the rules that are asked for."""
    folder = thresholds_file(trained.system).parent
    if not all((folder / name).is_file() for name in FILES.names):
        return False
    content = read_json(thresholds_file(trained.system), THRESHOLDS_COMMAND)
    cost = content.get("alternatives", {}).get(LOWEST_COST, {})
    ratio = None if options.prevalence is None else options.cost_ratio or 1.0
    found = [content.get("made_from"), content.get("rule"), content.get("seg_rule")]
    asked = [trained.made_from, options.rule, AREA_RULES[options.area_rule]]
    costs = [cost.get("prevalence"), cost.get("cost_ratio")]
    return found == asked and costs == [options.prevalence, ratio]


def predict_out_of_fold(
    trained: TrainedSystem, prepared: PreparedSet, processes: Processes, workers: int = 0
) -> OutOfFold:
    """Score each film by the one fold that held it out; segment the positives likewise.

    For a student, `trained` are the five that hold out a fold each, not the final one, which has learnt
    from all films.

    Each process predicts its share of a fold's films; all of them return the whole.
    """
    predictor = Predictor(prepared, trained.image_size, processes.device, workers)
    n = len(prepared.part)
    # NaN and -1 where nothing is measured: a film that is left out cannot pass for one that scored 0.
    probability = np.full(n, np.nan)
    shared, dice = np.full((n, len(MAP_THRESHOLDS)), -1), np.full((n, len(MAP_THRESHOLDS)), np.nan)
    classifiers = trained.networks(CLASSIFICATION, processes.device)
    segmenters = trained.networks(SEGMENTATION, processes.device)
    for fold in range(N_FOLDS):
        rows = np.flatnonzero(prepared.part == fold)
        title = f"{trained.system} fold {fold} of 0-{N_FOLDS - 1}" if processes.first else None
        # One network, not the ensemble: the other four have trained on this film.
        own = predictor.probabilities([classifiers[fold]], processes.share(rows), title)[:, 0]
        probability[rows] = processes.joined(own)
        positives = rows[prepared.has_mask[rows]]
        own = processes.share(positives)
        own_shared = np.empty((len(own), len(MAP_THRESHOLDS)), np.int64)
        own_dice = np.empty((len(own), len(MAP_THRESHOLDS)))
        maps = predictor.maps([segmenters[fold]], own, title and f"{title}, masks")
        for i, (_, found, truth) in enumerate(maps):
            own_shared[i] = overlap_by_threshold(found, truth)
            own_dice[i] = dice_by_threshold(found, truth)
        shared[positives] = processes.joined(own_shared)
        dice[positives] = processes.joined(own_dice)
    chosen = trained.map_threshold == "out-of-fold"
    of_map = best_map_threshold(dice[prepared.has_mask]) if chosen else MAP_THRESHOLD
    return OutOfFold(probability, shared[:, np.searchsorted(MAP_THRESHOLDS, of_map)], dice, of_map)


def write_thresholds(
    trained: TrainedSystem,
    prepared: PreparedSet,
    found: OutOfFold,
    likeness: TrainingLikeness,
    rule: str = YOUDEN,
    costs: Costs | None = None,
    area_rule: str = SMALLEST,
    five: TrainedSystem | None = None,
) -> None:
    """Choose the thresholds; write `5cv_avg.json`, `out_of_fold.csv`, `roc.png` and `dice.png`; print them.

    Args:
        trained: System whose thresholds are chosen.
        prepared: Prepared films that the system was trained on.
        found: Out-of-fold predictions for those films.
        likeness: Description of what the training films look like.
        rule: Rule of the probability threshold, a key of RULES.
        costs: Costs for the rule `lowest-cost`, which is listed only where they are given.
        area_rule: Rule of the area threshold, a key of AREA_RULES.
        five: Networks that made the predictions, where the system is a final student; None: its own.
    """
    positive, probability = prepared.has_mask, found.probability
    points = {
        name: choose(name, positive, probability, costs) for name in RULES if name != LOWEST_COST or costs
    }
    content = {
        "auc": auroc(positive, probability),
        "cls_threshold": points[rule].threshold,
        "fpr": points[rule].false_positive_rate,
        "tpr": points[rule].sensitivity,
        "seg_threshold": area_threshold(found.overlap, area_rule)
        or 1,  # where none overlaps, a pixel is enough
        **_of_map(found),
        "image_size": trained.image_size,
        "system": trained.system,
        "rule": rule,
        "seg_rule": AREA_RULES[area_rule],
        "n_films": len(positive),
        "n_patients": int(prepared.cases["patient"].nunique()),
        "n_positive": int(positive.sum()),
        "n_positive_with_overlap": int((found.overlap > 0).sum()),
        "alternatives": {name: _alternative(name, point, costs) for name, point in points.items()},
        "seg_alternatives": {name: area_threshold(found.overlap, name) for name in AREA_RULES},
        "out_of_fold": _out_of_fold(prepared, found, TAUGHT if five else OPTIMISTIC),
        "stability": _stability(prepared, found, rule, costs, area_rule),
        "preset": trained.facts["preset"],
        "precision": PRECISION,
        "made_from": trained.made_from,
        **({"predicted_by": five.made_from["weights"]} if five else {}),
        "novelty": likeness.to_json(),  # the key that thresholds files have always had
    }
    path = thresholds_file(trained.system)
    write_csv(path.with_name("out_of_fold.csv"), _COLUMNS, _rows(prepared, found))  # marks the folder as ours
    title = f"{trained.system}: out-of-fold ROC, five folds pooled"
    roc_picture(path.with_name("roc.png"), title, positive, probability, content["auc"], points, rule)
    title = f"{trained.system}: out-of-fold Dice against the threshold of the map"
    dice_picture(path.with_name("dice.png"), title, found.dice_by_threshold[positive], found.map_threshold)
    write_json(path, content)  # last: where later steps find it, everything is there
    print(f"{_summary(content)}\n  -> {shown(path)}")


# --- the content of 5cv_avg.json -------------------------------------------------------------------


def _of_map(found: OutOfFold) -> dict[str, Any]:
    """The map's threshold, where it is not the usual one."""
    if found.map_threshold == MAP_THRESHOLD:
        return {}
    return {
        "map_threshold": found.map_threshold,
        "map_rule": "highest mean Dice of out-of-fold positives",
    }


def _alternative(rule: str, point: RocPoint, costs: Costs | None) -> dict[str, Any]:
    """What a rule would choose."""
    content = {
        "rule": RULES[rule],
        "threshold": point.threshold,
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
    }
    if rule == LOWEST_COST and costs is not None:
        content |= {
            "prevalence": costs.prevalence,
            "cost_ratio": costs.ratio,
            "expected_cost": costs.expected(point.sensitivity, point.false_positive_rate),
            "expected_cost_of_no_positive": costs.expected(0.0, 0.0),
            "expected_cost_of_all_positive": costs.expected(1.0, 1.0),
            "unit": "costs of one false alarm, a film",
        }
    return content


def _out_of_fold(prepared: PreparedSet, found: OutOfFold, label: str) -> dict[str, Any]:
    """How good the folds are on the films that they held out, pooled and one by one."""

    def scores(films: np.ndarray) -> dict[str, Any]:
        masked = films & prepared.has_mask
        return {
            "auroc": auroc(prepared.has_mask[films], found.probability[films]),
            "n_films": int(films.sum()),
            "dice": float(found.dice[masked].mean()),
            "n_positive": int(masked.sum()),
        }

    folds = [{"fold": fold, **scores(prepared.part == fold)} for fold in range(N_FOLDS)]
    return {"label": label, "pooled": scores(prepared.part >= 0), "folds": folds}


def _stability(
    prepared: PreparedSet, found: OutOfFold, rule: str, costs: Costs | None, area_rule: str
) -> dict[str, Any]:
    """Both thresholds by the same rules from each fold alone, and from resamples of the patients."""
    positive, probability = prepared.has_mask, found.probability
    folds = []
    for fold in range(N_FOLDS):
        films = prepared.part == fold
        folds.append(
            {
                "fold": fold,
                "cls_threshold": choose(rule, positive[films], probability[films], costs).threshold,
                "seg_threshold": area_threshold(found.overlap[films], area_rule),
            }
        )
    patient = prepared.cases["patient"].to_numpy()
    cls, seg = resampled_thresholds(
        rule, positive, probability, found.overlap, patient, costs, _REPLICATES, _SEED, area_rule
    )
    return {
        "label": STABILITY,
        "reason": _REASON,
        "folds": folds,
        "resamples": {
            "of": "patients, those with a positive film and the others apart; the networks stay as they are",
            "number": _REPLICATES,
            "seed": _SEED,
            "cls_threshold": _range(cls),
            "seg_threshold": _range(seg),
        },
    }


def _range(values: np.ndarray) -> dict[str, Any]:
    """Order statistics of the resamples that define a threshold: values that occurred, none interpolated."""
    defined = values[~np.isnan(values)]
    found: dict[str, Any] = dict.fromkeys(_PERCENTILES)
    if len(defined):
        shares = [percent / 100 for percent in _PERCENTILES.values()]
        found = dict(zip(found, np.quantile(defined, shares, method="inverted_cdf").tolist(), strict=True))
    return {**found, "undefined": len(values) - len(defined)}


# --- what is printed and listed --------------------------------------------------------------------


def _summary(content: dict[str, Any]) -> str:
    """The thresholds, how they were chosen and how steady they are, for the terminal."""
    pooled, positives, films = content["out_of_fold"]["pooled"], content["n_positive"], content["n_films"]
    lines = [
        f"{content['system']}: {films:,} out-of-fold films of {content['n_patients']:,} patients",
        f"  AUROC {pooled['auroc']:.3f} (n = {films:,}, {positives:,} positive), "
        f"Dice {pooled['dice']:.3f} (n = {positives:,} positive)",
        f"  both {content['out_of_fold']['label']}",
        f"  {'rule':<25}{'cls_threshold':<16}{'sensitivity':<14}specificity",
        f"  {'':<25}{'':<16}{f'n = {positives:,}':<14}n = {films - positives:,}",
    ]
    for name, point in content["alternatives"].items():
        chosen = f"{name} (chosen)" if name == content["rule"] else name
        threshold, sensitivity = f"{point['threshold']:.4f}", f"{point['sensitivity']:.3f}"
        lines.append(f"  {chosen:<25}{threshold:<16}{sensitivity:<14}{point['specificity']:.3f}")
    lines += [*_extreme_lines(content), *_cost_lines(content)]
    lines += [*_area_lines(content), *_stability_lines(content)]
    return "\n".join([*lines, _likeness_line(content["novelty"])])


def _likeness_line(likeness: dict[str, Any]) -> str:
    warned = f"{100 * likeness['false_warning_rate']:.1f}%"
    return (
        "  new films unlike these, turned or inverted will get no answer: "
        f"{warned} of these themselves, out-of-fold (n = {likeness['n_films']:,})"
    )


def _extreme_lines(content: dict[str, Any]) -> list[str]:
    warning = extreme(content["cls_threshold"])
    lines = [f"  warning: {warning}"] if warning else []
    point, positives = content["alternatives"][content["rule"]], content["n_positive"]
    for rate, films, n in (
        ("sensitivity", "positives", positives),
        ("specificity", "negatives", content["n_films"] - positives),
    ):
        if point[rate] < _COIN:
            lines.append(
                f"  warning: at the chosen threshold {rate} is {point[rate]:.3f} (n = {n:,}): most {films} "
                "are called wrongly; train for longer, or choose another rule"
            )
    return lines


def _cost_lines(content: dict[str, Any]) -> list[str]:
    cost = content["alternatives"].get(LOWEST_COST)
    if cost is None:
        return [f"  ({LOWEST_COST} joins them with --prevalence)"]
    lines = [
        f"  ({LOWEST_COST}: at a prevalence of {cost['prevalence']:g}, "
        f"a miss costing as much as {cost['cost_ratio']:g} false alarms)"
    ]
    if cost["expected_cost_of_no_positive"] < cost["expected_cost"]:
        lines.append("  warning: at this prevalence and cost ratio, calling no film positive would cost less")
    return lines


def _area_lines(content: dict[str, Any]) -> list[str]:
    overlapping = content["n_positive_with_overlap"]
    why = f"{content['seg_rule']} (n = {overlapping:,} of {content['n_positive']:,} positive)"
    if not overlapping:
        why = f"one pixel is enough, since none of {content['n_positive']:,} positive films has an overlap"
    lines = [f"  seg_threshold {content['seg_threshold']:,} pixels at {content['image_size']} px: {why}"]
    others = {
        AREA_RULES[name]: pixels
        for name, pixels in content["seg_alternatives"].items()
        if pixels and AREA_RULES[name] != content["seg_rule"]
    }
    lines += [f"    {rule}: {pixels:,}" for rule, pixels in others.items()]
    if "map_threshold" in content:
        lines.append(
            f"  map_threshold {content['map_threshold']:.4f}: {content['map_rule']} "
            f"(n = {content['n_positive']:,})"
        )
    if not overlapping:
        lines.append(
            f"  warning: {content['system']}: no out-of-fold mask overlaps its truth: "
            "the segmentation model has found nothing"
        )
    return lines


def _stability_lines(content: dict[str, Any]) -> list[str]:
    stability = content["stability"]
    resamples = stability["resamples"]
    lines = [f"  {STABILITY} ({_REASON}):"]
    for name, form in (("cls_threshold", ".4f"), ("seg_threshold", ",.0f")):
        folds = ", ".join(_shown(fold[name], form) for fold in stability["folds"])
        low, high = (_shown(resamples[name][key], form) for key in ("percentile_2.5", "percentile_97.5"))
        lines.append(
            f"    {name}: folds 0-{N_FOLDS - 1} {folds}; "
            f"95% of {resamples['number']:,} resamples {low} to {high}"
        )
    return lines


def _shown(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def _rows(prepared: PreparedSet, found: OutOfFold) -> list[dict[str, Any]]:
    rows = []
    for row, case in enumerate(prepared.cases.itertuples()):
        masked = bool(case.has_mask)
        rows.append(
            {
                "case": case.case,
                "patient": case.patient,
                "fold": int(prepared.part[row]),
                "has_mask": int(masked),
                "probability": float(found.probability[row]),
                "overlap_pixels": int(found.overlap[row]) if masked else None,
                "dice": float(found.dice[row]) if masked else None,
            }
        )
    return rows
