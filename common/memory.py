"""Too little memory: noticed before the work where that can be, else one message with what helps there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from common.refusal import Refusal

ANOTHER_DEVICE = "name another GPU, or cpu, where the command names this one"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
# The libraries of a GPU take memory beside torch's, and say in other words that there is none
_NO_MEMORY_FOR = {"CUBLAS_STATUS_ALLOC_FAILED": "cuBLAS", "CUDNN_STATUS_ALLOC_FAILED": "cuDNN"}
_CONTEXT = 1.0e9  # bytes that CUDA and its libraries take beside what torch knows of, at most
_AHEAD = 2  # batches that each worker reads ahead (PyTorch's default)
_SHARED = Path("/dev/shm")


@contextmanager
def enough_memory(what: str, device: torch.device, do: str) -> Iterator[None]:
    """Turn running out of memory into a refusal.

    Args:
        what: What the memory is needed for.
        device: Device that computes it.
        do: What helps there.

    Raises:
        Refusal: The memory was not enough; or others fill the GPU, which `do` would not mend.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's has no type of its own
        said = str(error).splitlines()[0][:160]
        library = next((name for code, name in _NO_MEMORY_FOR.items() if code in str(error)), None)
        if library is None and not any(text in str(error) for text in _NO_MEMORY):
            raise
        others, total = _taken_by_others(device)
        if others > _CONTEXT:
            raise Refusal(
                f"GPU {device.index}: other programs hold {others / 1e9:.1f} of its {total / 1e9:.1f} GB, "
                f"and the rest is not enough for {what}",
                found=said,
                do="nvidia-smi shows them: wait for their end, or name another GPU",
            ) from None
        found = f"{library} got no memory of its own: {said}" if library else said
        raise Refusal(f"the memory is not enough for {what}", found=found, do=do) from None


def _taken_by_others(device: torch.device) -> tuple[float, float]:
    """Bytes of a GPU that other programs hold, about, and all that it has; zeros where that is not known."""
    if device.type == "cuda":
        with suppress(RuntimeError):  # the GPU may answer nothing any more
            free, total = torch.cuda.mem_get_info(device)
            return total - free - torch.cuda.memory_reserved(device) - _CONTEXT, total
    return 0, 0


def refuse_small_shared_memory(workers: int, films: int, image_size: int) -> None:
    """Refuse workers whose batches do not fit into the memory through which they come.

    Docker gives a container 64 MB of it, and the workers would die by a signal after a few batches.

    Args:
        workers: Processes that read films; 0: this one does.
        films: Films of the largest batch.
        image_size: Working size in pixels.

    Raises:
        Refusal: What they read ahead is more than is free.
    """
    if not workers or not _SHARED.is_dir():
        return
    needed = workers * _AHEAD * films * image_size**2 * 2 * 4  # film and mask, float32
    found = os.statvfs(_SHARED)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise Refusal(
            f"{workers} workers read ahead {needed / 1e6:.0f} MB of films, and {_SHARED} has "
            f"{free / 1e6:.0f} MB free",
            do=f"give the container more (docker run --shm-size={needed // 10**9 + 1}g, or --ipc=host), or "
            f"add --workers {free * workers // needed}",
        )
