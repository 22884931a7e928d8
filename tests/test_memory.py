"""Too little memory, of whichever kind, is one message with what helps; so is a card without kernels."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distributed_worker import BATCH, CPU, IMAGE_SIZE, Films, batches, network, recipe

from common import distributed, memory
from common.distributed import Processes
from common.inference.run_networks import Predictor
from common.memory import enough_memory
from common.networks.gradient_checkpointing import checkpointed, kept_for_backward, recomputed
from common.networks.unet import PneumothoraxNet
from common.refusal import Refusal
from common.training import cost_estimate
from common.training.step import Learner

GPU = torch.device("cuda", 1)
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def _gpu(monkeypatch: pytest.MonkeyPatch, free: float, ours: float, total: float = 15e9) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: ours)


def _said(error: RuntimeError, device: torch.device = GPU) -> str:
    with pytest.raises(Refusal) as refused, enough_memory("4 films", device, "do that"):
        raise error
    return str(refused.value)


def test_what_is_full_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpu(monkeypatch, free=0.3e9, ours=14e9)
    assert _said(FULL) == (
        "the memory is not enough for 4 films\n"
        "  found:   CUDA out of memory. Tried to allocate 2.00 GiB.\n  do:      do that"
    )
    assert "cuBLAS got no memory of its own" in _said(CUBLAS)
    assert "do that" in _said(CUBLAS)
    _gpu(monkeypatch, free=0.3e9, ours=1.7e9)
    for error in (FULL, CUBLAS):
        said = _said(error)
        assert "GPU 1: other programs hold 12.0 of its 15.0 GB" in said
        assert "nvidia-smi" in said
        assert "do that" not in said


def test_gpu_that_answers_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("CUDA error: unknown")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert "do that" in _said(FULL)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="mat1"), enough_memory("4 films", CPU, ""):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize("ask", ["validation", "with_maps", "maps", "scores"])
def test_evaluation_names_flags_that_apply_there(monkeypatch: pytest.MonkeyPatch, ask: str) -> None:
    def no_memory(*_: object) -> None:
        raise FULL

    for method in ("features", "forward", "classify"):
        monkeypatch.setattr(PneumothoraxNet, method, no_memory)
    net, predictor = network("eff", "cls"), Predictor(Films(2, 2), IMAGE_SIZE, CPU, batch_size=2)
    nets = net if ask in ("validation", "with_maps") else [net]
    with pytest.raises(Refusal, match="2 films at a time at 64 px") as refused:
        list(getattr(predictor, ask)(nets, [0, 1, 2, 3]))
    assert "or cpu" in str(refused.value)
    assert "--accumulation" not in str(refused.value)


@pytest.mark.parametrize(("free", "workers", "refused"), [(64e6, 4, True), (64e6, 0, False), (8e9, 4, False)])
def test_small_shared_memory_is_noticed_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, free: float, workers: int, refused: bool
) -> None:
    monkeypatch.setattr(memory.os, "statvfs", lambda _: SimpleNamespace(f_bavail=int(free), f_frsize=1))
    monkeypatch.setattr(memory, "_SHARED", memory.Path(os.sep))
    if not refused:
        Predictor(Films(1, 1), 512, CPU, workers, 8)
        return
    with pytest.raises(Refusal, match=r"4 workers read ahead 134 MB of films, and .* has 64 MB free") as said:
        Predictor(Films(1, 1), 512, CPU, workers, 8)
    assert "--shm-size=1g" in str(said.value)
    assert "--workers 1" in str(said.value)


def test_checkpointing_computes_a_block_again() -> None:
    net, film = network("eff", "seg").train(), batches(1, 2)[0]["film"]
    whole = kept_for_backward(net, film)
    assert recomputed(net, film) == 0
    checkpointed(net)
    kept, again = kept_for_backward(net, film), recomputed(net, film)
    last = net.unet.decoder.blocks[-1]  # at full size: two convolutions, their normed and cut results
    assert again > 4 * film[:, 0].numel() * 4 * last.conv2[0].out_channels
    assert kept < kept + again < whole


def test_peak_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)

    class Ended(Exception):
        pass

    def start(*_: object) -> None:
        raise Ended

    films = SimpleNamespace(films=0, start=start)
    fit = SimpleNamespace(learner=None, processes=Processes(GPU), sampler=films)
    with pytest.raises(Ended):
        cost_estimate.measure_cost(fit)  # type: ignore[arg-type]
    assert reset == [GPU]


class Driver:
    """Stands for the driver's library; 0: there is none."""

    def __init__(self, version: int) -> None:
        if not version:
            raise OSError("libcuda.so.1: cannot open shared object file")
        self.version = version

    def cuDriverGetVersion(self, number: Any) -> None:
        number._obj.value = self.version


@pytest.mark.parametrize(
    ("card", "known"),
    [
        ((7, 5), True),
        ((8, 6), True),
        ((8, 9), True),
        ((12, 1), True),
        ((13, 0), True),
        ((6, 1), False),
        ((3, 7), False),
    ],
)
def test_card_without_kernels_is_refused(
    monkeypatch: pytest.MonkeyPatch, card: tuple[int, int], known: bool
) -> None:
    built = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_120", "compute_120"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: card)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
    monkeypatch.setattr(distributed.ctypes, "CDLL", lambda name: Driver(12040))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    if known:
        assert distributed.one_device("1") == GPU
        return
    with pytest.raises(Refusal, match="no kernels for this card") as refused:
        distributed.one_device("1")
    said = str(refused.value)
    assert f"Tesla P100 of compute capability {card[0]}.{card[1]}" in said
    assert "driver for CUDA 12.4" in said
    assert "for CUDA 13.0 has sm_75" in said


@pytest.mark.parametrize(
    ("driver", "expected"), [(12040, "driver for CUDA 12.4, and torch for CUDA 13.0"), (0, "")]
)
def test_driver_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, driver: int, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed.ctypes, "CDLL", lambda name: Driver(driver))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(Refusal, match="no GPU can be used here") as refused:
        distributed.one_device("0")
    assert expected in str(refused.value)
    assert ("driver up to date" in str(refused.value)) == bool(driver)


def test_step_asks_for_what_its_recipe_can_give(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(network("eff", "seg"), recipe("seg"), Processes(CPU))

    def no_memory(*_: object) -> None:
        raise CUBLAS

    monkeypatch.setattr(PneumothoraxNet, "forward", no_memory)
    with pytest.raises(Refusal, match=f"batch of {BATCH} at 64 px") as refused:
        learner.step(batches(1)[0], 1e-3, (0, 0, 1))
    assert "--accumulation 2" in str(refused.value)
    assert "cuBLAS" in str(refused.value)
