"""Trained systems that were damaged: for `hostile.py`. Each must be refused; none may end in a traceback.

A tiny system with random networks is written and packed; of it, a bundle, a weights file or the thresholds
are changed where it matters. All changes are made to copies in a temporary folder, and claim no sizes that a
reader would have to take memory for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

SYSTEM, SIZE = "eff", 64
IMPOSSIBLE: tuple[Any, ...] = (
    *(10**400, -(10**400), float("inf"), float("-inf"), float("nan"), 1e308, -1),
    *(True, False, None, "", "0.5", [], [0.5], {}, {"value": 0.5}),
)
Blow = Callable[[bytes, np.random.Generator], bytes]


def write_system(
    workspace: Path, recipe: dict[str, Any] | None = None, thresholds: dict[str, Any] | None = None
) -> None:
    """A system of ten random networks with thresholds, and its bundle, in a workspace.

    Args:
        workspace: Empty folder.
        recipe: Changes of the demo's recipe, as metadata hold them.
        thresholds: Changes of the thresholds file.
    """
    import torch

    from common.compute import seed_torch
    from common.files import write_json
    from common.inference.trained_system import CLASSIFICATION, SEGMENTATION, read_trained
    from common.inference.unlike_training import _N_FEATURES, TrainingLikeness
    from common.networks import weights
    from common.paths import bundle_file, thresholds_file, weights_file
    from common.prediction.bundle import export
    from common.recipes.presets import preset_network, preset_recipe
    from common.recipes.recipe import recipe_facts
    from common.stages import N_FOLDS

    network = weights.network_facts(
        replace(
            preset_network("demo", SYSTEM), encoder="test_efficientnet", decoder_channels=(64, 32, 16, 16)
        )
    )
    torch.set_num_threads(1)
    # Only here: a workspace that stays named would be found by whatever this process does next.
    with patch.dict(os.environ, PTX_WORKSPACE=str(workspace)):
        for stage in (CLASSIFICATION, SEGMENTATION):
            plain = replace(preset_recipe("demo", stage, SYSTEM), image_size=SIZE, flip=False)
            numbers = recipe_facts(plain) | (recipe or {})
            for fold in range(N_FOLDS):
                metadata = {
                    "stage": stage.key, "system": SYSTEM, "fold": fold, "task": stage.task, "preset": "demo",
                    "network": network, "recipe": numbers,
                    "content": "0" * 64, "split": "1" * 64,
                    "lineage": [{"stage": "siim_segmentation", "sha256": "2" * 64}],
                }  # fmt: skip
                seed_torch(fold)
                state = weights.build(metadata).state_dict()
                weights.save_weights(weights_file(stage, SYSTEM, fold), state, metadata)
        trained = read_trained([SYSTEM], "hostile.py")[0]
        likeness = TrainingLikeness(np.zeros(_N_FEATURES), np.eye(_N_FEATURES), 10.0, 100, 0.005)
        write_json(
            thresholds_file(SYSTEM),
            {
                "system": SYSTEM, "cls_threshold": 0.5, "seg_threshold": 20, "image_size": SIZE,
                "made_from": trained.made_from, "novelty": likeness.to_json(), **(thresholds or {}),
            },
        )  # fmt: skip
        export(SYSTEM, bundle_file(SYSTEM))


def mutations(count: int, seed: int, workspace: Path, folder: Path, blow: Blow) -> Iterator[tuple[str, Path]]:
    """Yield (kind, changed copy): a bundle, or a workspace in which one file differs.

    Args:
        count: Number of mutations.
        seed: Seed of the mutations.
        workspace: Workspace that `write_system` filled.
        folder: Empty folder for the copies.
        blow: Function that damages the bytes of any file.
    """
    rng = np.random.default_rng([seed, 2])
    originals = [path for path in sorted(workspace.rglob("*")) if path.is_file()]
    kinds = {"bundle": ".bundle", "weights": ".safetensors", "thresholds": ".json"}
    for number in range(count):
        kind = list(kinds)[number % 3]
        places = [path for path in originals if path.suffix == kinds[kind]]
        target = places[int(rng.integers(len(places)))]
        content = target.read_bytes()
        change = {"bundle": _bundle, "weights": _weights, "thresholds": _thresholds}[kind]
        changed = content
        while changed == content:
            changed = change(content, rng, blow)
        copy = folder / f"system_{number}"
        for path in originals:
            place = copy / path.relative_to(workspace)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(changed) if path == target else place.symlink_to(path)
        yield kind, copy


def read(kind: str, copy: Path) -> None:
    """Read what a mutation left, as prediction does; a Refusal is the only right ending."""
    from common.paths import bundle_file
    from common.prediction.bundle import read_bundle
    from common.prediction.deployed import Deployed

    os.environ["PTX_WORKSPACE"] = str(copy)
    if kind == "bundle":
        read_bundle(bundle_file(SYSTEM))
    else:
        Deployed.of_workspace(SYSTEM, "hostile.py")


def _bundle(content: bytes, rng: np.random.Generator, blow: Blow) -> bytes:
    """Any change at all: of its head, its directory, anywhere, or behind its end."""
    kind = int(rng.integers(4))
    if kind == 0:
        return content + rng.bytes(int(rng.integers(1, 3000)))
    if kind == 1:
        at = len(content) - int(rng.integers(1, 1000))  # the directory
        return content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    return blow(content, rng)


def _weights(content: bytes, rng: np.random.Generator, blow: Blow) -> bytes:
    """Its values, its structure, or what its metadata say of where it belongs."""
    length = 8 + int.from_bytes(content[:8], "little")
    kind = int(rng.integers(5))
    if kind == 0:
        return content + rng.bytes(int(rng.integers(1, 3000)))
    if kind == 1:
        return content[: int(rng.integers(len(content)))]
    if kind == 2:
        at = int(rng.integers(length, len(content)))
        return content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    if kind == 3:
        return content[:length] + blow(content[length:], rng)
    header = json.loads(content[8:length])
    metadata = json.loads(header["__metadata__"]["pneumothorax"])
    _worsen(metadata, rng)
    header["__metadata__"]["pneumothorax"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[length:]


def _thresholds(content: bytes, rng: np.random.Generator, _: Blow) -> bytes:
    """Cut, nested without end, a value that cannot be, or one that is not there."""
    kind = int(rng.integers(8))
    if kind == 0:
        return content[: int(rng.integers(len(content) - 3))]
    if kind == 1:
        return b'{"system":' + b"[" * 100_000
    values = json.loads(content)
    _worsen(values["novelty"] if kind == 2 else values["made_from"] if kind == 3 else values, rng)
    return json.dumps(values).encode()


def _worsen(values: dict[str, Any], rng: np.random.Generator) -> None:
    """Take a value away, or give it one that it cannot have."""
    key = sorted(values)[int(rng.integers(len(values)))]
    if rng.random() < 0.2:
        del values[key]
    else:
        values[key] = IMPOSSIBLE[int(rng.integers(len(IMPOSSIBLE)))]
