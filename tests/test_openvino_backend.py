"""Networks compiled by OpenVINO predict what they predicted in torch."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.tiny_vit import Attention
from torch import nn

from common.compute import seed_torch
from common.inference.run_networks import Predictor
from common.networks import weights
from common.networks.fuse_batchnorm import fuse_batchnorm
from common.networks.openvino_backend import _SignalStack, accelerate
from common.recipes.presets import preset_network
from common.refusal import Refusal

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGE_SIZE, FOLDS = 64, 2
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


class _Films:
    """Stands for a prepared set."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.films = np.stack(
            [rng.integers(0, 256 // 4**i, (IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8) for i in range(count)]
        )
        self.has_mask = np.zeros(count, dtype=bool)

    def film(self, row: int, side: int) -> np.ndarray:
        return self.films[row]

    def mask(self, row: int, side: int) -> np.ndarray:
        return np.zeros((side, side), dtype=bool)


def folded(system: str, task: str, seed: int = 0):
    """A small folded network to which films differ, with no constant of 0 or 1 that would hide a fault."""
    seed_torch(seed)
    net = weights.build({"network": weights.network_facts(preset_network("demo", system)), "task": task})
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.2)
            if isinstance(module, Attention):
                module.attention_biases.normal_(0, 1)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of the films
        net.train()
        net(torch.from_numpy(_Films(4).films[:, None]).float() / 255)
    fuse_batchnorm(net.eval())
    return net


@pytest.mark.slow
@needs_openvino
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the signal stack of Linux")
def test_signal_handlers_keep_their_stack() -> None:
    """Also when compiled networks are gone again, the earlier one first."""

    def stack() -> tuple[int | None, int]:
        found = _SignalStack()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
        return found.start, found.size

    before = stack()
    first = accelerate([folded("eff", "cls")], IMAGE_SIZE)
    second = accelerate([folded("eff", "cls")], IMAGE_SIZE)
    assert stack() == before
    del first
    gc.collect()
    assert stack() == before
    del second
    gc.collect()
    assert stack() == before


@pytest.mark.all
@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("system", ["eff", "vit"])
def test_the_evaluation_loop_finds_what_it_found_with_torch(system: str) -> None:
    predictor = Predictor(_Films(3), IMAGE_SIZE, torch.device("cpu"), batch_size=2)

    def found(classifiers, segmenters):
        maps = [each for _, each, _ in predictor.maps(segmenters, range(3))]
        return np.array([each for _, each in predictor.scores(classifiers, range(3))]), maps

    nets = [[folded(system, task, seed) for seed in range(FOLDS)] for task in ("cls", "seg")]
    probabilities, maps = found(*nets)
    assert probabilities.shape == (3, FOLDS)
    assert np.ptp(probabilities, axis=0).min() > 1e-3 < np.ptp(probabilities, axis=1).min()
    quick = [accelerate(iter(folds), IMAGE_SIZE) for folds in nets]
    for each, own in zip(found(*([each] for each in quick)), (probabilities, maps), strict=True):
        assert np.allclose(each, own, atol=1e-4)

    assert not [parameter for folds in nets for net in folds for parameter in net.parameters()]
    film = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with pytest.raises(TypeError, match="only the half of cls networks"):
        quick[0](film)
    with pytest.raises(TypeError, match="only the half of seg networks"):
        quick[1].classify(film)
    first = quick[1](film)[0]
    kept = first.clone()
    quick[1](1 - film)
    assert torch.equal(first, kept)  # it outlives the next film's


def test_without_openvino_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Refusal) as refused:
        accelerate([folded("eff", "cls")], IMAGE_SIZE)
    assert "pip install openvino" in str(refused.value)


@pytest.mark.slow
@needs_openvino
def test_openvino_reports_nothing_to_anyone(tmp_path: Path) -> None:
    """Its package of telemetry sends an event with each import and leaves files in the home folder."""
    script = (
        "import sys\n"
        "def audit(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'urllib.Request'):\n"
        "        print('connects', event, flush=True)\n"
        "sys.addaudithook(audit)\n"
        "import common.networks.openvino_backend as accelerated\n"
        "assert 'openvino' not in sys.modules\n"  # only when asked for
        "openvino = accelerated._openvino()\n"
        "import torch\n"
        "film = torch.zeros(1, 1, 8, 8)\n"
        "traced = torch.jit.trace(torch.nn.Conv2d(1, 1, 3), film)\n"
        "openvino.convert_model(traced, example_input=film)\n"
    )
    own = {name: value for name, value in os.environ.items() if name not in ("CI", "HOME")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={**own, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "connects" not in done.stdout
    assert not (tmp_path / "intel").exists()
