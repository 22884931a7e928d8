"""The machine: which device computes, in which precision, and where random numbers come from."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch

from common.refusal import Refusal


def choose_device(gpu: str) -> torch.device:
    """The device that the GPU argument names.

    Args:
        gpu: `cpu`, or the number of a GPU; `0,1` is understood and refused.

    Raises:
        Refusal: No such GPU, no GPU at all, several GPUs, or something else.
    """
    if gpu == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"\d+(,\d+)*", gpu):
        raise Refusal(f"'{gpu}' names no GPU", do="give its number (bash train.sh 1), or cpu")
    if "," in gpu:
        raise Refusal(
            f"GPUs {gpu}: training on several GPUs is not supported yet", do="name one GPU, for example 0"
        )
    if not torch.cuda.is_available():
        raise Refusal(
            f"GPU {gpu}: no GPU can be used here", do="check nvidia-smi, or run on the CPU: add cpu"
        )
    if int(gpu) >= torch.cuda.device_count():
        raise Refusal(f"GPU {gpu}: this machine has GPUs 0 to {torch.cuda.device_count() - 1}")
    return torch.device("cuda", int(gpu))


def set_deterministic(device: torch.device) -> None:
    """Same seed, same bits on a CPU; on a GPU as far as its kernels allow (they warn where they do not)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision on a GPU (bf16 where it has it, else fp16), full precision otherwise."""
    if device.type != "cuda" or precision == "fp32":
        return contextlib.nullcontext()
    half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", dtype=half)


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaling, active only with fp16."""
    fp16 = device.type == "cuda" and precision == "auto" and not torch.cuda.is_bf16_supported()
    return torch.amp.GradScaler("cuda", enabled=fp16)


def seed_torch(*key: int) -> None:
    """Start torch's generators from a key such as (seed, epoch, step).

    Randomness is keyed, not streamed: what a step draws does not depend on what was drawn before it.
    """
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


@contextlib.contextmanager
def evaluating(*modules: torch.nn.Module) -> Iterator[None]:
    """Modules in eval mode without gradients, and back in the mode they were in.

    TinyViT caches its attention biases in eval mode, and some versions of timm drop them in train mode
    only: going through train mode makes sure that weights loaded meanwhile are the ones used. `no_grad`
    rather than `inference_mode`, whose cached tensors could not be trained on later.
    """
    modes = [module.training for module in modules]
    for module in modules:
        module.train()
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
