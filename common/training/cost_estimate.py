"""What training will cost: memory and time, from a few steps of it."""

from __future__ import annotations

import resource
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from common.compute import autocast
from common.networks.gradient_checkpointing import kept_for_backward, recomputed, state_bytes
from common.training.loop import Fit
from common.training.step import Learner

_TIMED = 3  # steps, after one that warms up
_LONG = 20.0  # seconds after which no further step is timed: large networks take minutes each on a CPU
_CUDA = 0.7e9  # bytes: about what CUDA's context and its libraries take
_GB = 1e9


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        step: Time of an optimiser step in seconds, reading and augmenting its films included.
        timed: Number of steps that were timed.
        film: Time of a validation film in seconds.
        weights: Bytes of the weights.
        state: Bytes of weights, gradients and optimiser, of the moving average, and of the teachers.
        activations: Bytes that the forward pass keeps for a batch, and what checkpointing computes again.
        measured: Bytes at the peak: of the GPU, else of this process.
        on_gpu: Whether `measured` is memory of the GPU.
    """

    step: float
    timed: int
    film: float
    weights: int
    state: int
    activations: int
    measured: int
    on_gpu: bool

    def seconds(self, steps: int, epochs: int, validation_films: int) -> float:
        """Time of so many steps and validations."""
        return steps * self.step + epochs * validation_films * self.film

    def lines(self, precision: str) -> str:
        """Memory and pace, as two lines for people."""
        estimate = self.state + self.activations + _CUDA
        where = "of the GPU" if self.on_gpu else "of this process"
        kind = "fp32" if precision == "fp32" else "mixed precision"
        return (
            f"  memory: about {estimate / _GB:.1f} GB on a GPU with {kind} ({self.state / _GB:.1f} network "
            f"and optimiser, {self.activations / _GB:.1f} activations, {_CUDA / _GB:.1f} CUDA itself); "
            f"measured here: {self.measured / _GB:.1f} GB {where}\n"
            f"  pace:   {self.step:.3g} s a step ({self.timed} timed), {self.film:.3g} s a validation film"
        )


def _as_on_a_gpu(device: torch.device, precision: str) -> AbstractContextManager:
    """The precision that a GPU would compute in; on a CPU for the estimate only."""
    if device.type == "cpu" and precision == "auto":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return autocast(device, precision)


def _taught_by(learner: Learner) -> int:
    """Bytes of a student's teachers."""
    nets = learner.teachers.nets if learner.teachers else []
    return sum(each.numel() * each.element_size() for net in nets for each in net.parameters())


def measure_cost(fit: Fit) -> Cost:
    """Time a few steps and some validation films of a run. Nothing is written; the network is changed."""
    learner, device = fit.learner, fit.processes.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # that of the system before
    fit.sampler.start(0, 0.5 if fit.sampler.films else 1.0)  # about the mean share of a run
    learner.net.train()
    taken, activations = [], 0
    begun = time.monotonic()
    for step, batch in zip(range(1 + _TIMED), fit.loader, strict=False):
        learner.step(batch, 0.0, (0, 0, step)).tolist()  # waits for the GPU
        taken.append(time.monotonic() - begun)
        if step == 0:
            # Accumulation adds up gradients; activations are kept of one piece at a time.
            piece = batch["film"][: max(1, len(batch["film"]) // fit.recipe.accumulation)]
            with _as_on_a_gpu(device, fit.recipe.precision):
                activations = kept_for_backward(learner.net, piece.to(device))
                activations += recomputed(learner.net, piece.to(device))
        if sum(taken) > _LONG:
            break
        begun = time.monotonic()  # the estimate above is no part of the next step
    rows = fit.validation[: fit.predictor.batch_size]
    fit.predictor.validation(learner.net, rows[:1])  # warms up, like the first step
    begun = time.monotonic()
    fit.predictor.validation(learner.net, rows)
    on_gpu = device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated(device)
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    )
    timed = taken[1:] or taken  # an epoch of one step has only the one that warms up
    return Cost(
        step=sum(timed) / len(timed),
        timed=len(timed),
        film=(time.monotonic() - begun) / len(rows),
        weights=sum(each.nbytes for each in learner.net.state_dict().values()),
        state=state_bytes(learner.net, averaged=learner.average is not None) + _taught_by(learner),
        activations=activations,
        measured=peak,
        on_gpu=on_gpu,
    )
