"""What `channels_last` (as the networks are built) and `torch.compile` (not used) do to a training step.

    python benchmarks/memory_format.py                              both demo networks at 96 px on the CPU
    python benchmarks/memory_format.py --preset published --image-size 512 --batch-size 2 [--gpu 0]
    python benchmarks/memory_format.py --quick                      no compilation

One classification network, its own loss and optimiser, one resident batch; the variants take turns. A ratio
above 1 is faster than the contiguous network, run eagerly. The first step, with the compilation, is timed
apart: that many seconds have to be won back.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

if TYPE_CHECKING:
    from common.training.step import Learner

ROUNDS = 7
VARIANTS = ("contiguous", "channels_last", "contiguous, compiled", "channels_last, compiled")


def learner_of(system: str, variant: str, arguments: argparse.Namespace) -> Learner:
    """A learner of the preset's network in a variant."""
    from dataclasses import replace

    from common.compute import seed_torch
    from common.distributed import Processes, one_device
    from common.networks import weights
    from common.recipes.presets import preset_network, preset_recipe
    from common.stages import STAGES
    from common.training.step import Learner

    seed_torch(0)
    recipe = replace(
        preset_recipe(arguments.preset, STAGES["siim_classification"], system),
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
    )
    network = preset_network(arguments.preset, system)
    net = weights.build({"network": weights.network_facts(network), "task": "cls"})
    learner = Learner(net, recipe, Processes(one_device(arguments.gpu)))
    if "contiguous" in variant:
        learner.net.to(memory_format=torch.contiguous_format)
    if "compile" in variant:
        learner.net.compile()
    learner.net.train()
    return learner


def batch_of(arguments: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Random films, half of them with a square lesion."""
    n, image_size = arguments.batch_size, arguments.image_size
    mask = torch.zeros(n, 1, image_size, image_size)
    mask[::2, :, : image_size // 4, : image_size // 4] = 1
    label = mask.amax(dim=(1, 2, 3))
    return {"film": torch.rand(n, 1, image_size, image_size), "mask": mask, "label": label}


def seconds(learner: Learner, batch: dict[str, torch.Tensor], steps: int) -> float:
    """Seconds a step."""
    begun = time.perf_counter()
    for step in range(steps):
        learner.step(batch, 1e-5, (0, 0, step)).tolist()  # waits for a GPU
    return (time.perf_counter() - begun) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--preset", choices=("demo", "published"), default="demo")
    parser.add_argument("--system", choices=("eff", "vit"), nargs="+", default=["eff", "vit"])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--gpu", default="cpu")
    arguments = parser.parse_args()
    variants = VARIANTS[:2] if arguments.quick else VARIANTS
    batch = batch_of(arguments)
    gains = []
    for system in arguments.system:
        learners = {variant: learner_of(system, variant, arguments) for variant in variants}
        first = {variant: seconds(learner, batch, 1) for variant, learner in learners.items()}
        rounds = np.array(
            [[seconds(each, batch, arguments.steps) for each in learners.values()] for _ in range(ROUNDS)]
        )
        for column, variant in enumerate(variants):
            ratio = rounds[:, 0] / rounds[:, column]
            print(
                f"{system} {variant:24} {np.median(rounds[:, column]) * 1000:8.1f} ms a step, "
                f"{np.median(ratio):.2f} times contiguous ({ratio.min():.2f}-{ratio.max():.2f}), "
                f"first step {first[variant]:.1f} s",
                flush=True,
            )
        gains.append(float(np.median(rounds[:, 0] / rounds[:, 1])))
    print(f"memory_format: {min(gains):.2f} (goal >= 1)")


if __name__ == "__main__":
    main()
