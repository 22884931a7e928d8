"""How it is computed: in which precision, how repeatably, and where random numbers come from."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import cv2
import numpy as np
import torch

_BF16_FROM = (8, 0)  # compute capability
_NOT_REPEATABLE = re.compile(r"(\S+) does not have a deterministic implementation")
_Result = TypeVar("_Result")


def set_up(device: torch.device) -> None:
    """Same seed, same bits on a CPU; on a GPU as far as its kernels allow (they warn where they do not).

    OpenCV gets one thread: its pool would take turns with torch's on the same cores, at a cost to both.
    """
    cv2.setNumThreads(1)
    torch_says = logging.getLogger("torch")  # its own handler prints raw lines; `RunLog` gets them instead
    torch_says.handlers.clear()
    torch_says.propagate = True
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS's sums are not repeatable
    torch.backends.cudnn.benchmark = False  # it would choose kernels by their time, others in each run
    # float32 is float32: TensorFloat-32 has 10 bits of mantissa, and not every card has it
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # not by `use_deterministic_algorithms`, which loads torch's compiler for it: 892 modules, 0.9 s
    torch._C._set_deterministic_algorithms(True, warn_only=device.type == "cuda")


def train_repeatably(device: torch.device) -> None:
    """On a GPU, too, the same bits: what has no repeatable kernel fails there (see `repeatable`).

    Attention is computed by matrix products and a softmax. Else torch would choose by shape and card among
    fused kernels, some of whose backward passes add up in any order. On a CPU the biases of TinyViT lead it
    to the products anyway, so that `--check` counts what a GPU will hold.
    """
    if device.type == "cuda":
        torch._C._set_deterministic_algorithms(True, warn_only=False)
        torch.backends.cuda.enable_math_sdp(True)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)


def repeatable(work: Callable[[], _Result], left: list[str]) -> _Result:
    """Do work whose result is the same each time, or note what of it cannot be.

    Args:
        work: What is done; it is done anew where it failed since an operation has no repeatable kernel. From
            then on torch takes what kernels there are.
        left: Names of such operations, to which new ones are added.
    """
    try:
        return work()
    except RuntimeError as error:
        if not _NOT_REPEATABLE.search(str(error)):
            raise
        said = [str(error)]
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    said += [str(each.message) for each in caught]
    left += sorted({found[1] for text in said if (found := _NOT_REPEATABLE.search(text))} - set(left))
    return result


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision on a GPU (see `half_precision`), full precision otherwise."""
    if device.type != "cuda" or precision == "fp32":  # on a CPU bf16 was slower
        return contextlib.nullcontext()
    return torch.autocast("cuda", dtype=half_precision(device))


def half_precision(device: torch.device) -> torch.dtype:
    """bf16 on a GPU of compute capability 8.0 and more, else fp16.

    `torch.cuda.is_bf16_supported()` says yes to a T4, too, since it counts emulation; but cuDNN has no
    convolution in bf16 there.
    """
    capable = torch.cuda.get_device_capability(device) >= _BF16_FROM
    return torch.bfloat16 if capable else torch.float16


def film_readers(asked: int | None, device: torch.device) -> int:
    """How many processes read films beside the one that computes; on a CPU they would take its cores."""
    return asked if asked is not None else 0 if device.type == "cpu" else 4


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaling, active only with fp16."""
    mixed = device.type == "cuda" and precision == "auto"
    return torch.amp.GradScaler("cuda", enabled=mixed and half_precision(device) == torch.float16)


def seed_torch(*key: int) -> None:
    """Start torch's generators from a key such as (seed, epoch, step).

    Randomness is keyed, not streamed: what a step draws does not depend on what was drawn before it.
    """
    # A hash of the key: steps that follow each other get unrelated numbers, which seed + step may not give.
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # before, torch.manual_seed would note the stack for later: 0.3 ms a step
        torch.cuda.manual_seed(seed)  # of this process's own GPU: no other one is touched


@contextlib.contextmanager
def in_eval_mode(*modules: torch.nn.Module) -> Iterator[None]:
    """Modules in eval mode, and back in the mode they were in.

    TinyViT caches its attention biases in eval mode, and some versions of timm drop them in train mode
    only: going through train mode makes sure that weights loaded meanwhile are the ones used.
    """
    modes = [module.training for module in modules]
    for module in modules:
        module.train()
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


@contextlib.contextmanager
def evaluating(*modules: torch.nn.Module) -> Iterator[None]:
    """Modules in eval mode without gradients, and back in the mode they were in.

    `no_grad` rather than `inference_mode`, whose cached tensors could not be trained on later.
    """
    with in_eval_mode(*modules), torch.no_grad():
        yield
