"""Systems of full-size networks that nobody trained, with their students: for `student.py`.

How long a network takes does not depend on what it has learnt, and nobody has full-size networks at hand on a
machine without a GPU. What follows the networks does depend on it: the map's logits are moved so that about a
fiftieth of a film is outlined, in pieces more ragged than those of a lesion.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.inference import network_of, tensor_of

OUTLINED = 0.02  # of the pixels


def write_untrained(workspace: Path, system: str, film: np.ndarray) -> None:
    """The ten networks of a system by the published recipe and the two of its student, with thresholds.

    Args:
        workspace: Folder to write them to.
        system: `eff` or `vit`.
        film: (height, width) uint8, by which the maps' logits are moved.
    """
    from common.films.resample import resample
    from common.networks.weights import network_facts, save_weights
    from common.paths import weights_file
    from common.recipes.presets import preset_network, preset_recipe
    from common.recipes.recipe import recipe_facts
    from common.stages import folds_of, stages_of, student_of

    device = torch.device("cpu")
    teachers: dict[str, list[str]] = {}
    with patch.dict(os.environ, PTX_WORKSPACE=str(workspace)):
        for name in (system, student_of(system)):
            for stage in stages_of(name):
                recipe = preset_recipe("published", stage, system)
                for fold in folds_of(name):
                    net = network_of("published", system, stage.task, 5 if fold is None else fold, device)
                    if stage.task == "seg":
                        _outline_little(net, resample(film, recipe.image_size), device)
                    metadata = {
                        "stage": stage.key, "system": system, "fold": fold, "task": stage.task,
                        "preset": "published", "recipe": recipe_facts(recipe),
                        "network": network_facts(preset_network("published", system)),
                        "content": "0" * 64, "split": "1" * 64,
                        "lineage": [{"stage": "siim_segmentation", "sha256": "2" * 64}],
                    }  # fmt: skip
                    if stage.teachers:
                        metadata["teachers"] = {"sha256": teachers[stage.teachers]}
                    save_weights(weights_file(stage, system, fold), net.state_dict(), metadata)
            teachers = write_thresholds(workspace, name, 0.5)


def write_thresholds(workspace: Path, name: str, cls_threshold: float) -> dict[str, list[str]]:
    """Thresholds of a system or a student of a workspace; the hashes of its networks, by stage."""
    from common.files import write_json
    from common.inference.trained_system import read_trained
    from common.inference.unlike_training import _N_FEATURES, TrainingLikeness
    from common.paths import thresholds_file

    with patch.dict(os.environ, PTX_WORKSPACE=str(workspace)):
        (trained,) = read_trained([name], "student.py")
        likeness = TrainingLikeness(np.zeros(_N_FEATURES), np.eye(_N_FEATURES), 10.0, 100, 0.005)
        content = {
            "system": name, "cls_threshold": cls_threshold, "seg_threshold": 1,
            "image_size": trained.image_size, "made_from": trained.made_from, "novelty": likeness.to_json(),
        }  # fmt: skip
        write_json(thresholds_file(name), content)
    return trained.made_from["weights"]


def _outline_little(net: Any, film: np.ndarray, device: torch.device) -> None:
    """Move the map's logits so that `OUTLINED` of a film lies above 0.5."""
    layers: list[Any] = list(net.unet.segmentation_head.modules())
    head = next(each for each in reversed(layers) if isinstance(each, torch.nn.Conv2d))
    with torch.no_grad():
        logits = net(tensor_of(film, device))[0]
        difference = (logits[:, 1] - logits[:, 0]).flatten()
        head.get_parameter("bias")[1] -= torch.quantile(difference, 1 - OUTLINED)
