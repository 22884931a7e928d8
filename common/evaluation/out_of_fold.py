"""The thresholds of a system from its out-of-fold predictions: the work of `get_thresholds.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from common.artefacts import N_FOLDS, shown, thresholds_file, write_csv, write_json
from common.config import parse_evaluation
from common.data.preparation import open_prepared
from common.data.store import PreparedSet
from common.evaluation.figures import roc_picture
from common.evaluation.overlap import MAP_THRESHOLD, dice, overlap
from common.evaluation.predict import Predictor
from common.evaluation.thresholds import smallest_overlap, youden
from common.evaluation.trained import (
    CLASSIFICATION,
    SEGMENTATION,
    TrainedSystem,
    read_trained,
    refuse_other_films,
)
from common.processes import one_device
from common.runtime import set_up

_COLUMNS = ("case", "patient", "fold", "has_mask", "probability", "overlap_pixels", "dice")


@dataclass(frozen=True)
class OutOfFold:
    """What the folds predict for the films that they did not train on, in the order of the set.

    Attributes:
        probability: (n,) float64.
        overlap: (n,) int: pixels shared by predicted and true mask; -1 for films without a mask.
        dice: (n,) float64; NaN for films without a mask.
    """

    probability: np.ndarray
    overlap: np.ndarray
    dice: np.ndarray


def main(description: str) -> None:
    """Compute the thresholds of the systems asked for on the command line.

    Raises:
        Refusal: Networks are missing, do not belong together, or were trained on other films.
    """
    options = parse_evaluation(description)
    device = one_device(options.gpu)
    set_up(device)
    systems = read_trained(options, "get_thresholds")
    prepared = open_prepared("ntuh_train", options.ntuh, "get_thresholds")
    for trained in systems:
        refuse_other_films(trained, prepared)
    workers = options.workers if options.workers is not None else (0 if device.type == "cpu" else 4)
    for trained in systems:
        write_thresholds(trained, prepared, predict_out_of_fold(trained, prepared, device, workers))


def predict_out_of_fold(
    trained: TrainedSystem, prepared: PreparedSet, device: torch.device, workers: int = 0
) -> OutOfFold:
    """Score each film by the one fold that held it out; segment the positives likewise."""
    predictor = Predictor(prepared, trained.image_size, device, trained.facts["recipe"]["precision"], workers)
    n = len(prepared.part)
    result = OutOfFold(np.full(n, np.nan), np.full(n, -1), np.full(n, np.nan))
    classifiers = trained.networks(CLASSIFICATION, device)
    segmenters = trained.networks(SEGMENTATION, device)
    for fold in range(N_FOLDS):
        rows = np.flatnonzero(prepared.part == fold)
        title = f"{trained.system} fold {fold} of 0-{N_FOLDS - 1}"
        result.probability[rows] = predictor.probabilities([classifiers[fold]], rows, title)[:, 0]
        positives = rows[prepared.has_mask[rows]]
        for row, found, truth in predictor.maps([segmenters[fold]], positives, f"{title}, masks"):
            result.overlap[row] = overlap(found > MAP_THRESHOLD, truth)
            result.dice[row] = dice(found > MAP_THRESHOLD, truth)
    return result


def write_thresholds(trained: TrainedSystem, prepared: PreparedSet, found: OutOfFold) -> None:
    """Choose the thresholds and write `5cv_avg.json`, `out_of_fold.csv` and `roc.png`."""
    positive = prepared.has_mask
    chosen = youden(positive, found.probability)
    seg_threshold = smallest_overlap(found.overlap[positive])
    path = thresholds_file(trained.system)
    if seg_threshold is None:
        print(
            f"warning: {trained.system}: no out-of-fold mask overlaps its truth: "
            "the segmentation model has found nothing"
        )
    write_csv(path.with_name("out_of_fold.csv"), _COLUMNS, _rows(prepared, found))
    title = f"{trained.system}: out-of-fold ROC, five folds pooled"
    roc_picture(path.with_name("roc.png"), title, positive, found.probability, chosen)
    content: dict[str, Any] = {
        "auc": chosen.auc,
        "cls_threshold": chosen.threshold,
        "fpr": chosen.false_positive_rate,
        "tpr": chosen.sensitivity,
        "seg_threshold": seg_threshold or 1,
        "image_size": trained.image_size,
        "system": trained.system,
        "n_films": len(positive),
        "n_positive": int(positive.sum()),
        "n_positive_with_overlap": int((found.overlap > 0).sum()),
        "rule": "Youden's index on the pooled out-of-fold ROC; smallest out-of-fold overlap above 0",
        "dice_segmentation": float(np.nanmean(found.dice)),
        "note": "out-of-fold figures are optimistic: each fold's epoch was chosen on these films",
        "preset": trained.facts["preset"],
        "made_from": trained.made_from,
    }
    write_json(path, content)
    print(
        f"{trained.system}: out-of-fold AUROC {chosen.auc:.3f} "
        f"(n = {len(positive)}, {positive.sum()} positive; optimistic), "
        f"Dice {content['dice_segmentation']:.3f} (n = {positive.sum()} with a mask)\n"
        f"  cls_threshold {chosen.threshold:.4f}: sensitivity {chosen.sensitivity:.3f}, "
        f"specificity {1 - chosen.false_positive_rate:.3f}\n"
        f"  seg_threshold {content['seg_threshold']} pixels at {trained.image_size} px\n  -> {shown(path)}"
    )


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
