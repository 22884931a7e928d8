"""How fast this machine trains: from a few steps of each kind of run, timed once and then remembered.

What touches a GPU is done in a process of its own: it would hold memory of the GPU until it ends.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from common.compute import set_up, train_repeatably
from common.devices import devices_named
from common.distributed import devices_here
from common.files import canonical_json, digest
from common.networks import weights
from common.recipes.recipe import recipe_facts
from common.refusal import Refusal
from common.training.cost_estimate import Cost, measure_cost
from common.training.inputs import Run, StageInputs
from common.training.stage import fit_of

# What of a recipe decides the time and the memory of a step
_OF_A_STEP = (
    *("image_size", "batch_size", "accumulation", "precision"),
    *("ema_decay", "bce_weight", "map_threshold", "flip"),
)
_Result = TypeVar("_Result")
Jobs = Mapping[str, tuple[Run, StageInputs]]  # a run of each kind, and the inputs of its stage


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        devices: The devices that train a run together.
        name: Name of the first one: `NVIDIA H200`, or `the CPU, 2 threads`.
    """

    devices: Sequence[torch.device]
    name: str

    @classmethod
    def of(cls, gpu: str) -> Machine:
        """What the GPU argument names.

        Raises:
            Refusal: It cannot be used here.
        """
        if set(devices_named(gpu)) != {"cpu"}:
            return _apart(_gpus, gpu)
        threads = torch.get_num_threads()
        return cls(devices_here(gpu), f"the CPU, {threads} thread{'s' if threads > 1 else ''}")

    def kind_of(self, run: Run, inputs: StageInputs) -> str:
        """A name for all runs whose steps cost the same here."""
        facts = recipe_facts(run.recipe)
        return digest(
            canonical_json([run.expected["network"], [facts.get(name) for name in _OF_A_STEP]]),
            canonical_json([run.stage.task, len(self.devices), inputs.options.checkpointing, self.name]),
        )[:16]

    def time_steps(self, wanted: Jobs, known: Mapping[str, Any]) -> dict[str, Cost]:
        """Cost of each kind of run.

        Args:
            wanted: The kinds.
            known: What was remembered of kinds, as `dataclasses.asdict` of their costs.

        Raises:
            Refusal: The memory does not suffice for one of them.
        """
        names = {item.name for item in dataclasses.fields(Cost)}
        found = {kind: Cost(**known[kind]) for kind in wanted if known.get(kind, {}).keys() == names}
        # without the tensors that a run starts from, which change no time
        jobs = {
            kind: (dataclasses.replace(run, parent=None), dataclasses.replace(inputs, runs=[], waiting=[]))
            for kind, (run, inputs) in wanted.items()
            if kind not in found
        }
        return found | (_apart(_time, jobs, len(self.devices)) if jobs else {})


def _apart(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Do work in a process of its own."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except BrokenProcessPool:
        raise Refusal(
            "a few steps of each training could not be timed",
            found="the process that trained them was killed, as it is where memory runs out",
            do="end what else needs memory, or see docs/training.md, Too little memory",
        ) from None


def _gpus(gpu: str) -> Machine:
    devices = devices_here(gpu)
    return Machine(devices, torch.cuda.get_device_name(devices[0]))


def _time(jobs: Jobs, processes: int) -> dict[str, Cost]:
    logging.captureWarnings(True)  # what libraries warn of is not for the user, as in `run_script`
    logging.getLogger().addHandler(logging.NullHandler())
    found = {}
    for kind, (run, inputs) in jobs.items():
        device = inputs.processes.device
        set_up(device)
        train_repeatably(device)
        # each process computes its part of the batch
        size = max(1, run.recipe.batch_size // processes)
        part = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, batch_size=size))
        fit = fit_of(part, inputs, weights.build(run.expected), run.expected)
        found[kind] = measure_cost(fit)
        del fit  # or its memory would count for the next one
    return found
