"""What nnU-Net v2 says of the test films, made the folder of a peer.

nnU-Net outlines, and has neither a probability of a film nor a decision. Its map of a film is its softmax of
the class pneumothorax; the film's probability is the highest mean of the map over a square of 1/64 of the
side, so that no single pixel decides, and a small lesion is not outvoted by the rest of the film.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from common.inference.peer_files import write_peer
from common.paths import prepared_folder, shown
from common.preparation.film_store import PreparedSet
from common.progress import progress
from common.refusal import Refusal

_SQUARE = 64  # of them along each side of a film
_LESION = 1  # the class in the dataset that `preparation/nnunet.py` writes
_PREDICT = "predict the films of imagesTs with --save_probabilities"


def collect_nnunet(folder: Path, predictions: Path) -> None:
    """Write the folder of a peer from what nnU-Net predicted of the test films, and say how it is scored.

    Args:
        folder: Folder to write into; what we wrote there before is replaced.
        predictions: Output folder of nnUNetv2_predict, with its probabilities.

    Raises:
        Refusal: A film was not predicted, its probabilities cannot be read, or somebody else's files are in
            the way.
    """
    test = PreparedSet(prepared_folder("ntuh_test"))
    cases = test.names(np.arange(len(test.cases)))
    missing = [case for case in cases if not (predictions / f"{case}.npz").is_file()]
    if missing:
        raise Refusal(
            f"{shown(predictions)} lacks probabilities of {len(missing)} of {len(cases)} test films",
            missing=f"{missing[0]}.npz",
            do=_PREDICT,
        )
    probabilities = {}
    with progress(len(cases), "predictions of nnU-Net", unit="film") as bar:
        for case in cases:
            probabilities[case] = film_probability(_read_map(predictions / f"{case}.npz"))
            bar.update()
    write_peer(folder, probabilities, ((case, _read_map(predictions / f"{case}.npz")) for case in cases))
    print(
        f"{len(cases)} test films -> {shown(folder)}\n"
        f"Next: cd step3_testing/testing && python bootstrap.py --peer nnUNet={folder.resolve()}"
    )


def film_probability(found: np.ndarray) -> float:
    """Probability of a film, 0-1, from its map: (height, width) float32, 0-1."""
    height, width = (max(1, side // _SQUARE) for side in found.shape)
    return float(np.clip(cv2.blur(found, (width, height)).max(), 0, 1))


def _read_map(path: Path) -> np.ndarray:
    """The map of a film, (height, width) float32, 0-1."""
    try:
        with np.load(path, allow_pickle=False) as content:
            softmax = content["probabilities"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise Refusal(f"{shown(path)} holds no probabilities of nnU-Net v2", do=_PREDICT) from None
    # Classes, then one slice, since films are flat
    if softmax.ndim != 4 or softmax.shape[:2] != (2, 1) or not np.isfinite(softmax).all():
        raise Refusal(
            f"{shown(path)} holds other probabilities than of two classes in one film",
            found=f"an array of {' x '.join(map(str, softmax.shape))}",
            do=_PREDICT,
        )
    return np.ascontiguousarray(softmax[_LESION, 0], dtype=np.float32)
