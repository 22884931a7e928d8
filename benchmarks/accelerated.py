"""A CPU workstation: the published way, the project's plain inference, and the networks compiled by OpenVINO.

    python benchmarks/accelerated.py                    both full-size systems at 512 px
    python benchmarks/accelerated.py --films FOLDER     the films of a folder in the place of drawn ones
    python benchmarks/accelerated.py --quick --preset demo --image-size 128    to see that it runs

Films, networks and the first two sides are those of `inference.py`; TinyViT's attention biases have values of
their own, too. The three sides take turns on each film, in changing order. Films of a folder have no truth:
stage 1 calls those above the widest gap between the probabilities. Peak memory is that of a process for each
side, which loads the ten networks and finds one film positive.

The last line is the smaller ratio of the two systems to plain inference.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.inference import (
    FOLDS,
    Films,
    Ours,
    Published,
    both,
    network_of,
    tell_apart,
    tensor_of,
    widest_gap,
)
from common.statistics.overlap import MAP_THRESHOLD

GOAL, GOAL_PUBLISHED, GOAL_MEMORY = 1.5, 2.5, 6.0  # times, times, GB
SAME = 1e-3  # largest difference of two probabilities that are the same
SIDES = ("published", "plain", "accelerated")
CPU = torch.device("cpu")


class FolderFilms(Films):
    """The films of a folder that can be read, without truth; every second one counts as of another kind."""

    def __init__(self, folder: Path, image_size: int) -> None:
        from common.films.decode import decode_film
        from common.films.fault import FilmFault
        from common.films.resample import resample
        from common.preparation.film_store import SIDE

        self._films = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            try:
                pixels = decode_film(path.read_bytes()).pixels
            except FilmFault as fault:
                print(f"passed over: {path.name} {fault}")
                continue
            self._films.append(resample(resample(pixels, SIDE), image_size))
        self.called = np.arange(len(self._films)) % 2 == 0
        self.has_mask = np.zeros(len(self._films), dtype=bool)


def with_biases(net: Any, seed: int) -> Any:
    """TinyViT's attention biases are 0 before training: equal ones would share their memory."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if hasattr(module, "attention_biases"):
            module.attention_biases.data.normal_(0, 0.5, generator=generator)
            module.attention_bias_cache = {}
    return net


def unsaturated(net: Any, films: Films, image_size: int) -> None:
    """Divide the head's logits so that no film's is beyond 3: a flat sigmoid hides differences."""
    with torch.no_grad():
        logits = [
            net.classify(tensor_of(films.film(row, image_size), CPU)) for row in range(len(films.called))
        ]
        linear = next(each for each in net.unet.classification_head if isinstance(each, torch.nn.Linear))
        beyond = max(float(torch.stack(logits).abs().max()) / 3, 1.0)
        linear.weight.div_(beyond)
        linear.bias.div_(beyond)


def three(nets: list, image_size: int) -> list[list]:
    """The networks of each side."""
    from common.networks.openvino_backend import accelerate

    plain, folded = both(nets)
    return [plain, folded, [accelerate(map(copy.deepcopy, folded), image_size)]]


def take_turns(sides: list, stage: str, nets: list[list], rows: np.ndarray) -> None:
    """All sides on the same films, one at a time, in changing order; a first turn warms up."""
    pairs = list(zip(sides, nets, strict=True))
    for side, own in pairs:
        getattr(side, stage)(own, rows[:1])
    for order, row in zip(itertools.cycle(itertools.permutations(pairs)), rows.tolist(), strict=False):
        for side, own in order:
            side.found.turn(lambda side=side, own=own, row=row: getattr(side, stage)(own, np.array([row])))


def compare(system: str, films: Films, arguments: argparse.Namespace, peak: float) -> float:
    """Run the three sides on one system, check that they agree, and give the ratio to plain inference."""
    image_size, count = arguments.image_size, len(films.called)
    ways: tuple[type[Published | Ours], ...] = (Published, Ours, Ours)
    sides = [way(films, image_size, CPU) for way in ways]

    def networks(task: str) -> list:
        return [
            with_biases(network_of(arguments.preset, system, task, seed, CPU), seed) for seed in range(FOLDS)
        ]

    nets = networks("cls")
    work = direct_work(nets[0], image_size)
    for net in nets:
        tell_apart(net, films, image_size, CPU)
        unsaturated(net, films, image_size)
    take_turns(sides, "classify", three(nets, image_size), np.arange(count))
    of_stage_1 = np.median([side.found.seconds for side in sides], axis=1)
    a, b, c = (side.found for side in sides)
    threshold = widest_gap(list(a.probability.values()))
    called = [row for row in range(count) if a.probability[row] >= threshold]
    take_turns(sides, "segment", three(networks("seg"), image_size), np.array(called))
    area = widest_gap([0, *((found > MAP_THRESHOLD).sum() for found in a.maps.values())])
    apart = max(abs(b.probability[row] - c.probability[row]) for row in range(count))
    maps_apart = max(float(np.abs(b.maps[row] - c.maps[row]).max()) for row in called)
    decisions = [side.found.decisions(threshold, area) for side in sides]
    if max(apart, maps_apart) > SAME or decisions[0] != decisions[2] or decisions[1] != decisions[2]:
        raise SystemExit(f"{system}: other answers: probabilities {apart:.1e}, maps {maps_apart:.1e} apart")

    seconds = [np.array(side.found.seconds) for side in sides]
    rates = [count / each.sum() for each in seconds]
    print(f"{system}: {count} films, {len(called)} called")
    print("  films a second: " + ", ".join(f"{n} {r:.3f}" for n, r in zip(SIDES, rates, strict=True)))
    for name, own, goal in zip(SIDES, seconds, (GOAL_PUBLISHED, GOAL), strict=False):
        low, high = np.quantile(own / seconds[2], [0.25, 0.75])
        print(
            f"  {rates[2] / rates[SIDES.index(name)]:.2f} times {name} (goal >= {goal}; half of the turns "
            f"{low:.2f}-{high:.2f})"
        )
    shares = FOLDS * work / of_stage_1 / peak
    print(
        f"  stage 1: {FOLDS} networks of {work:.1f} GFLOP (published: the whole U-Net); as shares of the "
        f"peak of {peak:.0f} GFLOP/s: plain {shares[1]:.0%}, accelerated {shares[2]:.0%} "
        "(of the products of plain convolutions)"
    )
    print(
        f"  probabilities within {apart:.0e}, maps within {maps_apart:.0e}, decisions identical", flush=True
    )
    return float(rates[2] / rates[1])


# --- the machine -----------------------------------------------------------------------------------


def machine_peak() -> float:
    """The most of a matrix product and a 3 x 3 convolution in float32 with torch's threads, GFLOP/s."""
    matrix = torch.rand(2048, 2048)
    convolution = torch.nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    film = torch.rand(1, 256, 64, 64).to(memory_format=torch.channels_last)
    found = []
    with torch.no_grad():
        for work, call in (
            (2 * 2048**3, lambda: matrix @ matrix),
            (2 * 9 * 256 * 256 * 64 * 64, lambda: convolution(film)),
        ):
            seconds = []
            for _ in range(30):
                begun = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - begun)
            found.append(work / min(seconds) / 1e9)
    return max(found)


def direct_work(net: Any, image_size: int) -> float:
    """GFLOP of one classification (a multiplication and an addition are two), by plain convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.classify(torch.zeros(1, 1, image_size, image_size))
    return counter.get_total_flops() / 1e9


def load_and_find(side: str, system: str, preset: str, image_size: int) -> None:
    """Load the ten networks of a side, find one film positive, and print this process's peak memory in MB."""
    from common.compute import evaluating, seed_torch
    from common.networks import weights
    from common.networks.ensemble import fold_probabilities, mean_map
    from common.networks.fuse_batchnorm import fuse_batchnorm
    from common.networks.openvino_backend import accelerate
    from common.recipes.presets import preset_network

    def folds(task: str) -> Iterator[Any]:
        for seed in range(FOLDS):
            seed_torch(seed)
            facts = weights.network_facts(preset_network(preset, system))
            net = with_biases(weights.build({"network": facts, "task": task}), seed).eval()
            if side != "published":
                fuse_batchnorm(net)
            yield net

    def networks(task: str) -> list[Any]:
        return [accelerate(folds(task), image_size)] if side == "accelerated" else list(folds(task))

    film = torch.rand(1, 1, image_size, image_size)
    classifiers = networks("cls")
    with evaluating(*classifiers):
        if side == "published":
            _ = [net(film) for net in classifiers]
        else:
            fold_probabilities(classifiers, film)
    print(peak_memory(), end=" ")
    segmenters = networks("seg")
    with evaluating(*segmenters):
        mean_map(segmenters, film)
    print(peak_memory())


def peak_memory() -> int:
    """Largest resident memory of this process so far, MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 // 10**6


def print_memory(system: str, arguments: argparse.Namespace) -> None:
    """Peak memory of each side in a process of its own."""
    found = []
    for side in SIDES:
        own = ["--memory-of", side, "--system", system, "--preset", arguments.preset]
        done = subprocess.run(
            [sys.executable, __file__, *own, "--image-size", str(arguments.image_size)],
            capture_output=True,
            text=True,
            check=True,
        )
        negative, positive = (int(each) / 1000 for each in done.stdout.split()[-2:])
        found.append(f"{side} {negative:.2f} and {positive:.2f}")
    print(
        f"  peak memory after a negative and after a positive film, GB: {', '.join(found)} "
        f"(goal of the last < {GOAL_MEMORY:.0f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 films")
    parser.add_argument("--preset", choices=("demo", "published"), default="published")
    parser.add_argument("--system", choices=("eff", "vit"), nargs="+", default=["eff", "vit"])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument(
        "--count", type=int, default=31, help="drawn films; 31: 3 called with a mask, 2 without"
    )
    parser.add_argument("--films", type=Path, metavar="FOLDER")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from common.compute import set_up

    set_up(CPU)
    if arguments.memory_of:
        load_and_find(arguments.memory_of, arguments.system[0], arguments.preset, arguments.image_size)
        return
    count = 6 if arguments.quick else arguments.count
    image_size = arguments.image_size
    films = FolderFilms(arguments.films, image_size) if arguments.films else Films(count, image_size)
    ratios = []
    for system in arguments.system:
        ratios.append(compare(system, films, arguments, machine_peak()))
        print_memory(system, arguments)
    print(f"accelerated: {min(ratios):.2f} (goal >= {GOAL})")


if __name__ == "__main__":
    main()
