"""The hospital's prepared films as a dataset of nnU-Net v2, with the folds that our networks have.

    nnUNet_raw/Dataset501_Pneumothorax/           dataset.json, imagesTr, labelsTr, imagesTs
    nnUNet_preprocessed/Dataset501_Pneumothorax/  splits_final.json, which nnU-Net takes instead of its own

The layout is nnU-Net's (Isensee et al., Nat Methods 2021;18:203, and its documentation of version 2).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from common.files import CASE, json_text, whole_file, write_json
from common.films.own_outputs import RESEARCH_ONLY
from common.paths import SETS, prepared_folder, shown
from common.preparation.film_store import PreparedSet
from common.progress import progress
from common.refusal import Refusal
from common.removal import Written, refuse_foreign, remove_written
from common.stages import N_FOLDS

DATASET = "Dataset501_Pneumothorax"
_RAW, _PREPROCESSED = f"nnUNet_raw/{DATASET}", f"nnUNet_preprocessed/{DATASET}"
_TABLE, _SPLITS = "dataset.json", "splits_final.json"
_TRAINING, _LABELS, _TEST = "imagesTr", "labelsTr", "imagesTs"
WRITTEN = Written(
    (f"{_TRAINING}/{CASE}_0000.png", f"{_LABELS}/{CASE}.png", f"{_TEST}/{CASE}_0000.png", _TABLE),
    {_TABLE: RESEARCH_ONLY},
)


def export_nnunet(folder: Path, image_size: int) -> None:
    """Write the dataset, and say how it is trained on.

    Args:
        folder: Folder to write into; an earlier dataset of ours in it is replaced.
        image_size: Side of the square pictures in pixels.

    Raises:
        Refusal: Somebody else's files are in the way, or other folds.
    """
    training, test = (PreparedSet(prepared_folder(name)) for name in SETS["ntuh"])
    raw, splits = folder / _RAW, folder / _PREPROCESSED / _SPLITS
    rows = np.flatnonzero(training.has_mask | (training.cases["report"].to_numpy() != 1))
    folds = _folds(training, rows)
    refuse_foreign(raw, WRITTEN)
    if splits.exists() and splits.read_text(encoding="utf-8") != json_text(folds):
        raise Refusal(f"{shown(splits)} holds other folds", do="move it away, or name another folder")
    remove_written(raw, WRITTEN)
    raw.mkdir(parents=True, exist_ok=True)
    _write_table(raw, training, rows)  # first: it marks the folder as ours
    for name in (_TRAINING, _LABELS, _TEST):
        (raw / name).mkdir(exist_ok=True)
    with progress(len(rows) + len(test.cases), "dataset of nnU-Net") as bar:
        for row in rows.tolist():
            (case,) = training.names(np.array([row]))
            _write_picture(raw / _TRAINING / f"{case}_0000.png", training.film(row, image_size))
            _write_picture(raw / _LABELS / f"{case}.png", training.mask(row, image_size).astype(np.uint8))
            bar.update()
        for row, case in enumerate(test.cases["case"]):
            _write_picture(raw / _TEST / f"{case}_0000.png", test.film(row, image_size))
            bar.update()
    splits.parent.mkdir(parents=True, exist_ok=True)
    write_json(splits, folds)
    left_out = len(training.cases) - len(rows)
    print(
        f"{len(rows)} training films ({training.has_mask[rows].sum()} with a mask) in {N_FOLDS} folds, "
        f"{len(test.cases)} test films -> {shown(raw)}\n"
        f"left out: {left_out} training films, positive by report without a mask; {RESEARCH_ONLY}"
    )


def _write_table(raw: Path, training: PreparedSet, rows: np.ndarray) -> None:
    table = {
        "channel_names": {"0": "radiograph"},
        "labels": {"background": 0, "pneumothorax": 1},
        "numTraining": len(rows),
        "file_ending": ".png",
        "description": RESEARCH_ONLY,
        "made_from": {"content": training.content, "split": training.split},
    }
    write_json(raw / _TABLE, table)


def _folds(training: PreparedSet, rows: np.ndarray) -> list[dict[str, list[str]]]:
    """The training and validation films of each fold, as nnU-Net has them."""
    part = training.part[rows]
    return [
        {"train": training.names(rows[part != fold]), "val": training.names(rows[part == fold])}
        for fold in range(N_FOLDS)
    ]


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
