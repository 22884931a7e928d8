"""Which GPU computes, and in which precision: no GPU is needed to know."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from conftest import REPOSITORY

from common import compute, distributed
from common.inference.run_networks import PRECISION

TURNED_OFF = "networks/memory_traffic.py"  # `autocast(enabled=False)`
GPU = torch.device("cuda", 1)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Two GPUs, a T4 as number 1; what is chosen of them."""
    chosen: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(8, 0), (7, 5)][device.index])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # as a T4 says, by emulation
    return chosen


@pytest.mark.parametrize(("index", "expected"), [(0, torch.bfloat16), (1, torch.float16)])
def test_a_card_gets_the_precision_that_it_has(cards: list, index: int, expected: torch.dtype) -> None:
    assert compute.half_precision(torch.device("cuda", index)) == expected


@pytest.mark.parametrize(
    ("device", "precision", "scaled"),
    [(GPU, "auto", True), (GPU, "fp32", False), (torch.device("cuda", 0), "auto", False)],
)
def test_losses_are_scaled_in_fp16_only(
    cards: list, monkeypatch: pytest.MonkeyPatch, device: torch.device, precision: str, scaled: bool
) -> None:
    made = {}
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: made.update({kind: enabled}))
    compute.gradient_scaler(device, precision)
    assert made == {"cuda": scaled}


def test_full_precision_is_float32_everywhere() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        compute.set_up(torch.device("cpu"))
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)
    assert isinstance(compute.autocast(GPU, "fp32"), contextlib.nullcontext)


@pytest.fixture
def settings() -> Iterator[None]:
    """As they were before."""
    attention = torch.backends.cuda
    before = (
        attention.flash_sdp_enabled(),
        attention.mem_efficient_sdp_enabled(),
        attention.cudnn_sdp_enabled(),
    )
    yield
    torch._C._set_deterministic_algorithms(False, warn_only=False)
    for enable, was in zip(
        (attention.enable_flash_sdp, attention.enable_mem_efficient_sdp, attention.enable_cudnn_sdp),
        before,
        strict=True,
    ):
        enable(was)


def test_training_is_strict_and_its_attention_chosen(settings: None) -> None:
    compute.set_up(GPU)
    assert torch.is_deterministic_algorithms_warn_only_enabled()  # what only predicts goes on
    compute.train_repeatably(torch.device("cpu"))
    assert torch.backends.cuda.flash_sdp_enabled()
    compute.train_repeatably(GPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cuda.math_sdp_enabled()
    assert not torch.backends.cuda.flash_sdp_enabled()
    assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    compute.set_up(torch.device("cpu"))
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_what_cannot_be_repeated_is_done_and_noted(settings: None) -> None:
    compute.set_up(torch.device("cpu"))
    left: list[str] = []

    def work() -> int:
        for name in ("median_cuda", "upsample_bilinear2d_backward_cuda"):
            text = f"{name} does not have a deterministic implementation, but you set"
            if not torch.is_deterministic_algorithms_warn_only_enabled():
                raise RuntimeError(text)
            warnings.warn(text, stacklevel=2)
        return 7

    assert compute.repeatable(work, left) == 7
    assert left == ["median_cuda", "upsample_bilinear2d_backward_cuda"]
    with pytest.raises(RuntimeError, match="shapes"):
        compute.repeatable(lambda: [][0] if left == [] else _fail("shapes"), left)


def _fail(text: str) -> None:
    raise RuntimeError(text)


def test_repeatable_kernels_are_asked_for_without_torchs_compiler() -> None:
    program = "import sys, torch; from common.compute import set_up; set_up(torch.device('cpu'));"
    program += (
        "assert torch.are_deterministic_algorithms_enabled(); print('torch._inductor.config' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_only_the_chosen_gpu_is_touched(cards: list) -> None:
    with distributed.running("1") as processes:
        assert processes.device == GPU
    assert cards == [GPU]
    assert distributed.one_device("1") == GPU


def test_processes_name_their_gpu_to_the_group(cards: list, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {}
    monkeypatch.setattr(
        distributed.distributed, "init_process_group", lambda kind, **more: named.update(more)
    )
    monkeypatch.setattr(distributed.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed, "_end_with_the_launcher", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with distributed.running("0,1"):
        pass
    assert named["device_id"] == GPU
    assert cards == [GPU]


def test_answers_are_computed_in_full_precision_whatever_training_did() -> None:
    """Evaluation knows no other precision, and nothing that computes an answer calls `autocast`."""
    callers = {
        path.relative_to(REPOSITORY / "common").as_posix()
        for path in (REPOSITORY / "common").rglob("*.py")
        if "autocast(" in path.read_text()
    }
    training = {f"training/{name}.py" for name in ("step", "teachers", "cost_estimate")}
    assert callers == {"compute.py", *training, TURNED_OFF}
    assert PRECISION == "fp32"
