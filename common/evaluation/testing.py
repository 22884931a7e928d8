"""Both systems on the test films: the work of `inference.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from common import artefacts
from common.artefacts import INFERENCE_COMMAND, THRESHOLDS_COMMAND, digest, result_folder, shown
from common.config import parse_evaluation
from common.data.preparation import open_prepared
from common.data.store import PreparedSet
from common.evaluation.decision import POSITIVE, OperatingPoint, read_thresholds
from common.evaluation.overlap import MAP_THRESHOLD, dice
from common.evaluation.predict import Predictor
from common.evaluation.results import CASE_COLUMNS
from common.evaluation.trained import (
    CLASSIFICATION,
    SEGMENTATION,
    TrainedSystem,
    read_trained,
    refuse_other_films,
)
from common.processes import one_device
from common.refusal import Refusal
from common.runtime import set_up

PICTURE_SIDE = 512  # of the films kept for the report


def main(description: str) -> None:
    """Run the systems asked for on the command line on the test films.

    Raises:
        Refusal: Networks or thresholds are missing or do not belong together, or a patient of the training
            films is in the test films.
    """
    options = parse_evaluation(description)
    device = one_device(options.gpu)
    set_up(device)
    systems = read_trained(options, "inference")
    points = {trained.system: _operating_point(trained) for trained in systems}
    prepared = open_prepared("ntuh_test", options.ntuh, "inference")
    training = open_prepared("ntuh_train", options.ntuh, "inference")
    for trained in systems:
        refuse_other_films(trained, training)
    shared = prepared.cases["case"][prepared.cases["patient"].isin(training.cases["patient"])]
    if len(shared):
        raise Refusal(
            f"{len(shared)} test films are of patients who are in the training films",
            found=", ".join(shared[:10]),
            do="take these patients out of the test set",
        )
    workers = options.workers if options.workers is not None else (0 if device.type == "cpu" else 4)
    for trained in systems:
        _test(trained, points[trained.system], prepared, device, workers)
    print("Next, the figures: cd step3_testing/testing && python bootstrap.py")


def _operating_point(trained: TrainedSystem) -> OperatingPoint:
    """The thresholds that were computed from these very networks."""
    point, content = read_thresholds(trained.system)
    if content["made_from"] != trained.made_from or point.image_size != trained.image_size:
        raise Refusal(
            f"the thresholds of {trained.system} were computed from other networks or another working size",
            found=shown(artefacts.thresholds_file(trained.system)),
            do=f"make it again: {THRESHOLDS_COMMAND}",
        )
    return point


def _test(
    trained: TrainedSystem, point: OperatingPoint, prepared: PreparedSet, device: torch.device, workers: int
) -> None:
    """Score, segment and decide every test film; the result folder appears when all is done."""
    predictor = Predictor(prepared, trained.image_size, device, trained.facts["recipe"]["precision"], workers)
    rows = np.arange(len(prepared.cases))
    classifiers = trained.networks(CLASSIFICATION, device)
    by_fold = predictor.probabilities(classifiers, rows, f"{trained.system} stage 1")
    del classifiers
    probability = by_fold.mean(axis=1)
    stage_1 = np.array([point.stage_1(p) for p in probability])
    folder = result_folder(trained.system)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("maps", "truth", "films"):
        (partial / name).mkdir(parents=True)
    # Stage 2 is needed where stage 1 says positive; films with a mask are segmented all the same, for the
    # Dice of the segmentation model by itself, which the decision never sees.
    area, overlap_dice = {}, {}
    segmenters = trained.networks(SEGMENTATION, device)
    for row, found, truth in predictor.maps(
        segmenters, rows[stage_1 | prepared.has_mask], f"{trained.system} stage 2"
    ):
        predicted = found > MAP_THRESHOLD
        area[row] = int(predicted.sum())
        if prepared.has_mask[row]:
            overlap_dice[row] = dice(predicted, truth)
        _write_pictures(partial, prepared, row, found, truth)
    cases = [
        _case(prepared, row, by_fold[row], probability[row], point, area.get(row), overlap_dice.get(row))
        for row in rows.tolist()
    ]
    artefacts.write_csv(partial / "cases.csv", CASE_COLUMNS, cases)
    shutil.copyfile(prepared.folder / "flow.json", partial / "flow.json")
    artefacts.write_json(
        partial / "meta.json",
        {
            "system": trained.system,
            "cls_threshold": point.cls_threshold,
            "seg_threshold": point.seg_threshold,
            "image_size": point.image_size,
            "n_cases": len(cases),
            "cases_sha256": digest((partial / "cases.csv").read_bytes()),
            "films": prepared.content,
            "preset": trained.facts["preset"],
            "weights": trained.made_from,
            "dice_convention": "films with a mask only; both masks empty: 1, one empty: 0",
        },
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    called = sum(case["two_stage"] for case in cases)
    print(
        f"{trained.system}: {len(cases)} films, {int(prepared.has_mask.sum())} with a mask; "
        f"{int(stage_1.sum())} reach the probability, {called} also the area -> {shown(folder)}"
    )


def _case(
    prepared: PreparedSet,
    row: int,
    by_fold: np.ndarray,
    probability: float,
    point: OperatingPoint,
    area: int | None,
    overlap_dice: float | None,
) -> dict[str, Any]:
    """One row of the result: the raw probability and the decision are kept apart."""
    facts = prepared.cases.iloc[row]
    rule = point.rule(probability, area)
    return {
        "case": facts["case"],
        "patient": facts["patient"],
        "has_mask": int(facts["has_mask"]),
        "report": int(facts["report"]),
        "mask_area_fraction": float(facts["mask_area_fraction"]) if facts["has_mask"] else None,
        "probability": float(probability),
        **{f"fold_{fold}": float(value) for fold, value in enumerate(by_fold)},
        "area_pixels": area,
        "stage_1": int(point.stage_1(probability)),
        "two_stage": int(rule == POSITIVE),
        "rule": rule,
        "dice_segmentation": overlap_dice,
        "dice_positives": None if overlap_dice is None else overlap_dice * (rule == POSITIVE),
        **{key: None if facts[key] != facts[key] else facts[key] for key in ("age", "sex", "view")},
    }


def _write_pictures(
    folder: Path, prepared: PreparedSet, row: int, found: np.ndarray, truth: np.ndarray
) -> None:
    """The probability map (8 bit), the true mask and the film of a case, for the report."""
    case = prepared.cases["case"].iloc[row]
    _write_picture(folder / "maps" / f"{case}.png", np.rint(found * 255).astype(np.uint8))
    _write_picture(folder / "truth" / f"{case}.png", truth.astype(np.uint8) * 255)
    _write_picture(folder / "films" / f"{case}.jpg", prepared.film(row, PICTURE_SIDE))


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):
        raise Refusal(f"cannot write {shown(path)}", do=f"free space, then again: {INFERENCE_COMMAND}")
