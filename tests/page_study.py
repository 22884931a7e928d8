"""A small made-up study for the tests of the report: results, metric rows and the files of inference."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.files import digest, write_json
from common.inference.result_files import Result
from common.paths import result_folder, thresholds_file
from common.stages import N_FOLDS
from common.statistics.tested_films import Cases

IMAGE_SIZE = 32
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'&"
METRICS = {"auroc": 0.953, "auprc": 0.871, "sensitivity": 0.9, "specificity": 0.8, "calibration_slope": 1.25}


def made_up_cases(n: int = 40, positives: int = 16, seed: int = 0) -> Cases:
    """n films of fewer patients; the first `positives` have a mask; probabilities with ties, some wrong."""
    draw = np.random.default_rng(seed)
    has_mask = np.arange(n) < positives
    probability = np.round(np.clip(0.35 + 0.3 * has_mask + draw.normal(0, 0.2, n), 0, 1), 2)
    stage_1 = probability >= 0.5
    area = np.where(stage_1 | has_mask, draw.uniform(0, 0.15, n), np.nan)
    return Cases(
        case=np.array([f"c{i:04d}" for i in range(n)]),
        patient=np.array([f"p{i // 2 if i % 3 else i:04d}" for i in range(n)]),
        has_mask=has_mask,
        report=has_mask | (np.arange(n) == n - 1),
        mask_area_fraction=np.where(has_mask, draw.uniform(0.01, 0.12, n), np.nan),
        probability=probability,
        stage_1=stage_1,
        two_stage=stage_1 & (np.nan_to_num(area) > 0.02),
        dice_segmentation=np.where(has_mask, draw.uniform(0, 1, n), np.nan),
        area_fraction=area,
        age=np.where(np.arange(n) % 7, 50.0 + np.arange(n), np.nan),
        sex=np.array(["F", "M"] * n)[:n],
        view=np.full(n, "AP"),
        manufacturer=np.full(n, "Device & Co"),
    )


def metric_rows(*systems: str) -> list[dict[str, Any]]:
    """A few rows of every kind, and of the pair where there are two systems."""
    rows = []
    for system in systems:
        for reference in ("mask", "report"):
            for decision in ("two_stage", "stage_1"):
                for stratum in ("all", "small", "sex F"):
                    for metric, value in METRICS.items():
                        rows.append(row(system, reference, decision, stratum, metric, value))
                    rows.append(
                        row(system, reference, decision, stratum, "tp", 11)
                        | {"ci_low": None, "ci_high": None}
                    )
    if len(systems) == 2:
        rows.append(
            row("-".join(systems), "mask", "two_stage", "all", "auroc", -0.0312)
            | {"p_value": 0.0004, "p_holm": 0.0016, "test": "DeLong"}
        )
    return rows


def row(
    system: str, reference: str, decision: str, stratum: str, metric: str, estimate: float | None
) -> dict[str, Any]:
    """A metric row."""
    known = estimate is not None
    return {
        "system": system,
        "reference": reference,
        "decision": decision,
        "stratum": stratum,
        "metric": metric,
        "n": 40,
        "estimate": estimate,
        "ci_low": estimate - 0.05 if known else None,
        "ci_high": estimate + 0.04 if known else None,
        "interval": "percentile" if known else None,
        "note": "conditional on the case mix" if metric == "auprc" else None,
        "p_value": None,
        "p_holm": None,
        "test": None,
    }


def write_study(cases: Cases, *systems: str, **meta: Any) -> dict[str, Result]:
    """Write what inference and get_thresholds leave, the same cases for each system; the results as read."""
    return {system: _write_system(cases, system, meta) for system in systems}


def _write_system(cases: Cases, system: str, more: dict[str, Any]) -> Result:
    folder = result_folder(system)
    for i in range(len(cases)):
        _write_pictures(folder, cases, i)
    write_json(
        folder / "flow.json",
        {
            "set": "ntuh_test",
            "found": len(cases) + 9,
            "excluded": {"age under 20": 3, "chest tube": 4},
            "rejected": {"no pixels": 2},
            "prepared": len(cases),
        },
    )
    weights = {
        "weights": {
            stage: [digest(system, stage, str(fold)) for fold in range(N_FOLDS)]
            for stage in ("ntuh_segmentation", "ntuh_classification")
        },
        "content": digest("films"),
        "split": digest("split"),
    }
    meta = {
        "system": system,
        "cls_threshold": 0.5,
        "seg_threshold": 20,
        "image_size": IMAGE_SIZE,
        "n_cases": len(cases),
        "cases_sha256": digest("cases"),
        "films": digest("test films"),
        "preset": "published",
        "weights": weights,
        **more,
    }
    write_json(
        thresholds_file(system),
        {"auc": 0.97, "cls_threshold": 0.5, "seg_threshold": 20, "rule": "youden", "made_from": weights},
    )
    folds = {f"fold_{fold}": fold_probability(cases, fold) for fold in range(N_FOLDS)}
    return Result(dataclasses.replace(cases, further=dict(cases.further) | folds), meta)


def fold_probability(cases: Cases, fold: int) -> np.ndarray:
    """What a fold alone says of each film (float64, 0-1)."""
    noise = np.random.default_rng([1, fold]).normal(0, 0.05 * (fold + 1), len(cases))
    return np.clip(cases.probability + noise, 0, 1)


def _write_pictures(folder: Path, cases: Cases, i: int) -> None:
    """A grey film; the truth in its upper left, what was found in its lower right."""
    name = str(cases.case[i]).replace("/", "_")
    truth, found = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    if cases.has_mask[i]:
        truth[4:12, 4:12] = 255
    found[20:28, 20:28] = 255
    pictures = {
        "films": np.full((2 * IMAGE_SIZE, 2 * IMAGE_SIZE), 90, np.uint8),
        "maps": found,
        "truth": truth,
    }
    for kind, pixels in pictures.items():
        path = folder / kind / f"{name}{'.jpg' if kind == 'films' else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)
