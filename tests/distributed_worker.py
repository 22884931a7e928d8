"""What `test_distributed.py` starts in several processes; and small networks and films, also for other tests.

python common/launch.py tests/distributed_worker.py cpu,cpu CHECK FOLDER
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.distributed import Processes, running
from common.refusal import Refusal, run_script

IMAGE_SIZE, BATCH, STEPS, RATE = 64, 8, 3, 1e-4
CPU = torch.device("cpu")


# --- small networks and films ----------------------------------------------------------------------


def network(system: str, task: str, preset: str = "demo", drop: float = 0.0) -> torch.nn.Module:
    """A network with the same weights each time; `drop` is its dropout and its drop path."""
    from common.compute import seed_torch
    from common.networks import weights
    from common.recipes.presets import preset_network

    chosen = preset_network(preset, system)
    arguments = chosen.encoder_args | {"drop_path_rate": drop}
    if (preset, system) == ("published", "vit"):
        arguments["window_sizes"] = [2, 2, 4, 2]  # the same part of a 64 px film as of a 512 px one
    chosen = replace(chosen, head_dropout=drop, encoder_args=arguments)
    seed_torch(0)
    return weights.build({"network": weights.network_facts(chosen), "task": task})


def recipe(task: str, **changes: Any):
    """The demo's, for these films."""
    from common.recipes.presets import preset_recipe
    from common.stages import STAGES

    stage = STAGES["siim_segmentation" if task == "seg" else "siim_classification"]
    small = replace(preset_recipe("demo", stage, "eff"), image_size=IMAGE_SIZE, batch_size=BATCH)
    return replace(small, **changes)


def batches(steps: int = STEPS, films: int = BATCH) -> list[dict[str, torch.Tensor]]:
    """Noise with squares in it, for every other film."""
    made = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        film = 0.5 * torch.rand(films, 1, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        mask = torch.zeros(films, 1, IMAGE_SIZE, IMAGE_SIZE)
        for number in range(0, films, 2):
            corner = 4 + 3 * number
            mask[number, :, corner : corner + 24, corner + 4 : corner + 20] = 1
        label = mask.amax((1, 2, 3))
        made.append({"film": film + 0.4 * mask, "mask": mask, "label": label})
    return made


def norms(net: torch.nn.Module) -> list[torch.nn.Module]:
    """The network's BatchNorm layers."""
    return [module for module in net.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]


def training(net: torch.nn.Module, frozen: bool) -> None:
    """Training mode; frozen: but for BatchNorm, so that no film's result depends on another's."""
    net.train()
    if frozen:
        for norm in norms(net):
            norm.eval()


def steady(learner: Any) -> None:
    """AdamW makes whole steps of rounding where a gradient is nearly zero: not with a larger epsilon."""
    for group in learner.optimiser.param_groups:
        group["eps"] = 1e-3


def gradients_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients of the parameters that have one (timm keeps a last stage that shallow U-Nets leave)."""
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


class Films:
    """Stands for a prepared set, and notes which films are read.

    Args:
        positives: Films with a lesion; they come first.
        negatives: Films without.
    """

    def __init__(self, positives: int, negatives: int) -> None:
        self.has_mask = np.arange(positives + negatives) < positives
        self.seen: list[int] = []

    def film(self, row: int, side: int) -> np.ndarray:
        self.seen.append(int(row))
        return np.random.default_rng(int(row)).integers(0, 256, (side, side), dtype=np.uint8)

    def mask(self, row: int, side: int) -> np.ndarray:
        mask = np.zeros((side, side), bool)
        if self.has_mask[row]:
            mask[10 + row : 40, 8:50] = True
        return mask


# --- checks of equality ----------------------------------------------------------------------------

# system, task, whether BatchNorm is in eval mode, changes of the recipe, checkpointing
CASES = {
    "eff seg frozen": ("eff", "seg", True, {}, False),
    "eff cls frozen": ("eff", "cls", True, {}, False),
    "vit seg frozen": ("vit", "seg", True, {}, False),
    "vit cls frozen": ("vit", "cls", True, {}, False),
    "vit cls frozen, accumulated": ("vit", "cls", True, {"accumulation": 2}, False),
    "eff cls": ("eff", "cls", False, {}, False),
    "vit seg": ("vit", "seg", False, {}, False),
    "eff seg, checkpointed": ("eff", "seg", False, {}, True),
}
VALIDATIONS = {"odd": ("cls", 4, 3), "one negative": ("cls", 2, 1), "one film": ("seg", 1, 0)}


def trained(case: str, processes: Processes) -> dict[str, Any]:
    """Some steps of a case: losses, the first step's gradients, and the network."""
    from common.training.step import Learner

    system, task, frozen, changes, checkpointing = CASES[case]
    learner = Learner(network(system, task), recipe(task, **changes), processes, checkpointing)
    training(learner.net, frozen)
    steady(learner)
    losses, gradients = [], {}
    for step, batch in enumerate(batches()):
        own = {name: processes.share(tensor) for name, tensor in batch.items()}
        losses.append(learner.step(own, RATE, (0, 0, step)))
        gradients = gradients or gradients_of(learner.net)
    state = {name: tensor.clone() for name, tensor in learner.net.state_dict().items()}
    processes.from_first(list(learner.net.buffers()))
    buffers = dict(learner.net.named_buffers())
    return {"losses": torch.stack(losses), "gradients": gradients, "state": state, "buffers": buffers}


def validated(case: str, processes: Processes) -> dict[str, Any]:
    """Score an untrained network: the scores, and the films that this process read."""
    from common.inference.run_networks import Predictor

    task, positives, negatives = VALIDATIONS[case]
    films = Films(positives, negatives)
    net = network("vit", task)
    torch.nn.init.normal_(net.unet.segmentation_head[0].weight)  # so that maps find something
    rows = np.random.default_rng(0).permutation(positives + negatives)
    found = Predictor(films, IMAGE_SIZE, CPU, batch_size=2).validation(net, rows, processes)
    return {"dice": found.dice, "auroc": found.auroc, "seen": films.seen}


def _equality(processes: Processes, folder: Path) -> None:
    sequence = np.arange(7.0)[:, None]
    result = {"joined": processes.joined(processes.share(sequence)).tolist()}
    result |= {case: trained(case, processes) for case in CASES}
    result |= {case: validated(case, processes) for case in VALIDATIONS}
    torch.save(result, folder / f"{processes.rank}.pt")


# --- ends ------------------------------------------------------------------------------------------


def _together(processes: Processes, folder: Path) -> Iterator[int]:
    """Steps that wait for each other, without end; each process leaves its id in the folder."""
    (folder / f"{processes.rank}.part").write_text(str(os.getpid()))
    (folder / f"{processes.rank}.part").rename(folder / f"{processes.rank}.pid")
    step = 0
    while True:
        processes.mean(torch.zeros(1))
        yield step
        step += 1
        time.sleep(0.01)


def _end(check: str, processes: Processes, folder: Path) -> None:
    for step in _together(processes, folder):
        if step == 3 and check == "finish":
            return
        if step == 3 and not processes.first:
            if check == "refuse":
                raise Refusal("the second process says no", do="nothing")
            if check == "fail":
                raise ValueError("a fault of the second process")
            if check == "kill":
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    _, gpu, check, folder = sys.argv[1:]
    with running(gpu) as processes:
        if check == "equality":
            _equality(processes, Path(folder))
        else:
            _end(check, processes, Path(folder))
    print("finished")
    atexit.register(os.abort)  # stands for what gloo's threads now and then do while Python is taken down


if __name__ == "__main__":
    run_script(main)
