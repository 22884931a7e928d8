"""The processes that compute together: one a GPU, started by `launch.py`, or only this one.

Each of them runs the same script. What they share they share here: who takes which film, what came out, and
that all of them end when one does.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed

from common.devices import devices_named
from common.refusal import Refusal

_Items = TypeVar("_Items", np.ndarray, torch.Tensor, list[Any], range)
_Result = TypeVar("_Result")

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_LOST = ("gloo", "NCCL", "peer")  # what torch says when another process is gone
_GRACE = 60.0  # seconds in which the launcher ends a process that lost another, also on a busy machine
_PATIENCE = timedelta(days=1)  # others may wait while the first prepares films; a dead one is noticed at once


@dataclass(frozen=True)
class Processes:
    """This process among those that compute together.

    Attributes:
        device: Device on which this process computes.
        rank: Number of this process, 0 for the one that writes and prints.
        count: Number of processes.
        here: Number of those on this machine.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def gpu(self) -> str:
        """This process's device, as the GPU argument names it."""
        return "cpu" if self.device.index is None else str(self.device.index)

    def share(self, items: _Items) -> _Items:
        """This process's part of a sequence: every `count`-th item. No item is padded or taken twice."""
        return items[self.rank :: self.count]

    def joined(self, part: np.ndarray) -> np.ndarray:
        """The parts of all processes, (n, ...), in the order of the sequence that `share` divided."""
        if self.count == 1:
            return part
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, part)  # objects, because parts may differ in length by one
        whole = np.empty((sum(map(len, parts)), *part.shape[1:]), dtype=part.dtype)
        for rank, each in enumerate(parts):
            whole[rank :: self.count] = each
        return whole

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the processes of a tensor on their devices."""
        if self.count > 1:
            distributed.all_reduce(values)
            values /= self.count
        return values

    def from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give all processes the first one's values, in place."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def first_ahead(self, work: Callable[[], _Result]) -> _Result:
        """What each process gets from the same work, which the first one does before the others.

        It leaves on the disk what the others then find there, such as films that it prepares.
        """
        if not self.first:
            self.wait()
        result = work()
        if self.first:
            self.wait()
        return result

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def running(gpus: str) -> Iterator[Processes]:
    """The processes of this script, from the GPU argument and what the launcher set.

    Raises:
        Refusal: No such GPU, or several without the launcher.
    """
    named = devices_named(gpus)
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        if len(named) > 1:
            raise Refusal(
                f"several devices ({gpus}) need the launcher",
                do=f"bash train.sh {gpus} (or the .sh of this step)",
            )
        yield Processes(_device(named[0]))
        return
    _end_with_the_launcher()
    device = _device(named[int(os.environ["LOCAL_RANK"])])
    on_gpu = device.type == "cuda"
    # with its device named, NCCL need not guess it, and opens no context on another GPU
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=_PATIENCE, device_id=device if on_gpu else None
    )
    processes = Processes(device, distributed.get_rank(), count, int(os.environ["LOCAL_WORLD_SIZE"]))
    if not processes.first:  # one voice is enough; what goes wrong is said on stderr
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        yield processes
    except RuntimeError as error:
        if not any(word in str(error) for word in _LOST):
            raise
        # another process ended, and the launcher is about to end this one: its reason is the one to be read
        time.sleep(_GRACE)
        raise Refusal("the other processes cannot be reached", found=str(error).splitlines()[0]) from None
    distributed.destroy_process_group()  # not after an error: it would wait for the others


def devices_here(gpus: str) -> list[torch.device]:
    """The devices that the GPU argument names, of a script whose processes are yet to be started.

    Raises:
        Refusal: One of them cannot be used here.
    """
    return [_device(name) for name in devices_named(gpus)]


def one_device(gpus: str) -> torch.device:
    """The device of a script that runs in one process.

    Raises:
        Refusal: No such GPU, or several.
    """
    named = devices_named(gpus)
    if len(named) > 1:
        raise Refusal(f"GPUs {gpus}: this step runs on one GPU", do="name one, for example 0")
    return _device(named[0])


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        _refuse_no_gpu(name)
    if int(name) >= torch.cuda.device_count():
        raise Refusal(f"GPU {name}: this machine has GPUs 0 to {torch.cuda.device_count() - 1}")
    device = torch.device("cuda", int(name))
    _refuse_unknown_card(device)
    torch.cuda.set_device(device)  # or page-locked memory and the like would open a context on GPU 0
    return device


def _refuse_no_gpu(name: str) -> None:
    driver = _driver()
    update = "bring the driver up to date or install an older build of torch, " if driver else ""
    raise Refusal(
        f"GPU {name}: no GPU can be used here",
        found=f"a driver for CUDA {driver}, and torch for CUDA {torch.version.cuda}" if driver else None,
        do=f"check nvidia-smi, {update}or run on the CPU: add cpu",
    )


def _driver() -> str:
    """The newest CUDA that the machine's driver knows, such as `12.4`; empty where there is no driver."""
    number = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))  # torch says nothing of it
    except (OSError, AttributeError):
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _refuse_unknown_card(device: torch.device) -> None:
    """Refuse a card that is older, or newer, than all that the installed torch has kernels for."""
    card, built = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if built and not any(_runs(kernels, card) for kernels in built):
        name, (major, minor) = torch.cuda.get_device_name(device), card
        raise Refusal(
            f"GPU {device.index}: the installed torch has no kernels for this card",
            found=f"{name} of compute capability {major}.{minor}, a driver for CUDA {_driver()}; torch "
            f"{torch.__version__} for CUDA {torch.version.cuda} has {', '.join(built)}",
            do="install a build of torch that has this card's, name another GPU, or run on the CPU: cpu",
        )


def _runs(kernels: str, card: tuple[int, int]) -> bool:
    """Whether a card runs kernels: `sm_86` of its generation up to it, `compute_90` of any before it."""
    found = re.match(r"(sm|compute)_(\d+)(\d)", kernels)
    if found is None:
        return True  # a kind that this does not know: torch will say
    made_for = int(found[2]), int(found[3])
    return made_for <= card and (found[1] == "compute" or made_for[0] == card[0])


def _end_with_the_launcher() -> None:
    """A launcher that is killed must not leave processes behind that still train (Linux)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() == 1:  # it was killed before this line
        sys.exit(1)
