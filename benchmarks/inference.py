"""Two-stage inference, against the published way of doing it: films a second, and the same answers.

    python benchmarks/inference.py                          both full-size systems at 512 px on the CPU
    python benchmarks/inference.py --gpu 0 --films 200      the same on a GPU, in float32 on both sides
    python benchmarks/inference.py --quick --image-size 128 fewer films, to see that it runs

The published way takes one film at a time, runs every fold's whole U-Net in both stages (the mask of the
classifier is thrown away), and runs stage 2 a second time on true positives; here in plain PyTorch, run
eagerly, with contiguous tensors. Ours goes through the project's own `Predictor` with the networks as
`inference.py` has them. Both get the same networks (random weights, BatchNorm statistics from films and then
disturbed) and the same films, of which stage 1 calls a tenth with a mask and 6% without: these are
of another kind, each fold's head tells the kinds apart, and the threshold lies in the widest gap between the
probabilities, so that no decision hangs on rounding. The two sides take turns, a batch at a time.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch

from common.statistics.overlap import MAP_THRESHOLD, dice

GOAL = 1.6
FOLDS = 5
TRUE, FALSE = 0.10, 0.06  # of the films: called by stage 1, with and without a mask
CALIBRATION_SIDE = 128
CALIBRATION_FILMS = {"eff": 16, "vit": 2}  # in each of two batches; vit is slow to train at any size
SAME = 1e-4  # largest difference of two probabilities that are the same


class Films:
    """Stands for a prepared set. The films that stage 1 is to call are of another kind than the rest.

    Args:
        count: Films.
        side: Side of a film, pixels.
    """

    def __init__(self, count: int, side: int) -> None:
        rng = np.random.default_rng(0)
        self.called = np.zeros(count, dtype=bool)
        self.has_mask = np.zeros(count, dtype=bool)
        order = rng.permutation(count)
        masked, others = max(1, round(TRUE * count)), max(1, round(FALSE * count))
        self.has_mask[order[:masked]] = True
        self.called[order[: masked + others]] = True
        self._films = [_pattern(rng, side, called) for called in self.called]

    def film(self, row: int, side: int) -> np.ndarray:
        return self._films[row]

    def mask(self, row: int, side: int) -> np.ndarray:
        mask = np.zeros((side, side), dtype=bool)
        if self.has_mask[row]:
            mask[side // 8 : side // 3, side // 8 : side // 4] = True
        return mask


def _pattern(rng: np.random.Generator, side: int, called: bool) -> np.ndarray:
    """Mostly what all films of the kind show, which is finer in those to be called: uint8."""
    cells = 16 if called else 4
    kind = np.random.default_rng(cells).random((cells, cells))
    coarse = (0.8 * kind + 0.2 * rng.random((cells, cells))).astype(np.float32)
    return (255 * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)


def _any_film(rng: np.random.Generator) -> np.ndarray:
    """A film for BatchNorm's statistics: any fineness, brightness and contrast, so that they are wide."""
    cells = int(rng.integers(2, 33))
    low, high = np.sort(rng.random(2))
    coarse = (low + (high - low) * rng.random((cells, cells))).astype(np.float32)
    return (255 * cv2.resize(coarse, (CALIBRATION_SIDE, CALIBRATION_SIDE))).astype(np.uint8)


def tensor_of(film: np.ndarray, device: torch.device) -> torch.Tensor:
    """A film, (side, side) uint8, as a batch of one: (1, 1, side, side) float32, 0-1."""
    return (torch.from_numpy(film).float() / 255)[None, None].to(device)


def network_of(preset: str, system: str, task: str, seed: int, device: torch.device) -> Any:
    """A network with random weights whose BatchNorm has statistics, factors and terms of its own."""
    from common.compute import seed_torch
    from common.networks import weights
    from common.recipes.presets import preset_network

    seed_torch(seed)
    network = preset_network(preset, system)
    net = weights.build({"network": weights.network_facts(network), "task": task}).to(device)
    norms = [each for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    rng = np.random.default_rng(seed)
    count = CALIBRATION_FILMS[system]
    batches = [torch.cat([tensor_of(_any_film(rng), device) for _ in range(count)]) for _ in range(2)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # statistics of all batches
            norm.weight.uniform_(0.8, 1.2)
            norm.bias.normal_(0, 0.2)
        net.train()
        for films in batches:
            net(films)
        for norm in norms:
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            mean += 0.1 * variance.sqrt() * torch.randn_like(mean)
            variance *= torch.empty_like(variance).uniform_(0.8, 1.25)
            variance.clamp_(min=0.5)  # smaller ones, of untrained channels, would blow up rounding
    return net.eval()


def tell_apart(net: Any, films: Films, image_size: int, device: torch.device) -> None:
    """Set the head so that the two kinds of films get logits of about 1 and -1."""
    rows = [np.flatnonzero(kind)[:2] for kind in (films.called, ~films.called)]
    with torch.no_grad():
        high, low = (
            torch.stack(
                [
                    net.unet.encoder(net._input(tensor_of(films.film(row, image_size), device)))[-1].mean(
                        (2, 3)
                    )[0]
                    for row in own
                ]
            ).mean(0)
            for own in rows
        )
        linear = next(each for each in net.unet.classification_head if isinstance(each, torch.nn.Linear))
        linear.weight[0] = 2 * (high - low) / (high - low).square().sum()
        linear.bias[0] = -linear.weight[0] @ (high + low) / 2


@dataclass
class Side:
    """One way of doing it: seconds of each turn, and what was found."""

    seconds: list[float] = field(default_factory=list)
    probability: dict[int, float] = field(default_factory=dict)
    maps: dict[int, np.ndarray] = field(default_factory=dict)
    dice: dict[int, float] = field(default_factory=dict)

    def turn(self, work: Callable[[], None]) -> None:
        begun = time.perf_counter()
        work()
        self.seconds.append(time.perf_counter() - begun)

    def decisions(self, threshold: float, area: float) -> dict[int, tuple[bool, bool]]:
        """What each film gets: stage 1's, and the system's."""
        found = {}
        for row, probability in self.probability.items():
            called = probability >= threshold
            found[row] = called, bool(called and (self.maps[row] > MAP_THRESHOLD).sum() >= area)
        return found


def widest_gap(values: list[float]) -> float:
    """The middle of the widest gap between sorted values."""
    ordered = np.sort(values)
    widest = int(np.argmax(np.diff(ordered)))
    return float(ordered[widest : widest + 2].mean())


class Published:
    """One film at a time, whole networks, stage 2 again on true positives."""

    def __init__(self, films: Films, image_size: int, device: torch.device) -> None:
        self.films, self.image_size, self.device, self.found = films, image_size, device, Side()

    def classify(self, nets: list, rows: np.ndarray) -> None:
        with torch.no_grad():
            for row in rows.tolist():
                film = tensor_of(self.films.film(row, self.image_size), self.device)
                self.found.probability[row] = float(np.mean([net(film)[1].sigmoid().item() for net in nets]))

    def _map(self, nets: list, row: int) -> np.ndarray:
        film = tensor_of(self.films.film(row, self.image_size), self.device)
        return np.mean([net(film)[0].softmax(1)[0, 1].cpu().numpy() for net in nets], axis=0)

    def segment(self, nets: list, rows: np.ndarray) -> None:
        with torch.no_grad():
            for row in rows.tolist():
                self.found.maps[row] = self._map(nets, row)  # for the decision
                if self.films.has_mask[row]:  # and again for the Dice
                    truth = self.films.mask(row, self.image_size)
                    self.found.dice[row] = dice(self._map(nets, row) > MAP_THRESHOLD, truth)


class Ours:
    """As `common/inference/test_set.py` does it."""

    def __init__(self, films: Films, image_size: int, device: torch.device) -> None:
        from common.inference.run_networks import Predictor

        self.films, self.found = films, Side()
        self.predictor = Predictor(films, image_size, device)

    def classify(self, nets: list, rows: np.ndarray) -> None:
        for row, folds in self.predictor.scores(nets, rows):
            self.found.probability[row] = float(folds.mean())

    def segment(self, nets: list, rows: np.ndarray) -> None:
        for row, found, truth in self.predictor.maps(nets, rows):
            self.found.maps[row] = found
            if self.films.has_mask[row]:
                self.found.dice[row] = dice(found > MAP_THRESHOLD, truth)


def both(nets: list) -> tuple[list, list]:
    """Contiguous copies for the published way, and the folded networks."""
    from common.networks.fuse_batchnorm import fuse_batchnorm

    plain = [copy.deepcopy(net).to(memory_format=torch.contiguous_format) for net in nets]
    for net in nets:
        fuse_batchnorm(net)
    return plain, nets


def take_turns(
    published: Published, ours: Ours, stage: str, nets: tuple[list, list], rows: np.ndarray
) -> None:
    """Both sides on the same films, a batch at a time, in changing order; a first turn warms up."""
    sides: list[tuple[Published | Ours, list]] = list(zip((published, ours), nets, strict=True))
    for side, own in sides:
        getattr(side, stage)(own, rows[:1])
    for number, batch in enumerate(ours.predictor.cut(rows)):
        for side, own in sides if number % 2 else sides[::-1]:
            side.found.turn(partial(getattr(side, stage), own, batch))


def compare(system: str, arguments: argparse.Namespace, device: torch.device) -> float:
    """Run both sides on one system, check that they agree, and give the ratio of their speeds."""
    image_size, count = arguments.image_size, arguments.films
    films = Films(count, image_size)
    published, ours = Published(films, image_size, device), Ours(films, image_size, device)

    def networks(task: str) -> list:
        return [network_of(arguments.preset, system, task, seed, device) for seed in range(FOLDS)]

    nets = networks("cls")
    for net in nets:
        tell_apart(net, films, image_size, device)
    take_turns(published, ours, "classify", both(nets), np.arange(count))
    del nets
    a, b = published.found, ours.found
    threshold = widest_gap(list(a.probability.values()))
    called = [row for row in range(count) if a.probability[row] >= threshold]
    if called != np.flatnonzero(films.called).tolist():
        raise SystemExit(f"{system}: stage 1 did not call the films that it was to call")
    take_turns(published, ours, "segment", both(networks("seg")), np.array(called))
    area = widest_gap([0, *((found > MAP_THRESHOLD).sum() for found in a.maps.values())])
    apart = max(abs(a.probability[row] - b.probability[row]) for row in range(count))
    maps_apart = max(float(np.abs(a.maps[row] - b.maps[row]).max()) for row in called)
    if max(apart, maps_apart) > SAME or a.decisions(threshold, area) != b.decisions(threshold, area):
        raise SystemExit(f"{system}: other answers: probabilities {apart:.1e}, maps {maps_apart:.1e} apart")
    plain, quick = np.array(a.seconds), np.array(b.seconds)
    print(
        f"{system}: {count} films, {len(called)} called, {int(films.has_mask.sum())} of them with a mask: "
        f"published {count / plain.sum():.3f}, ours {count / quick.sum():.3f} films a second, "
        f"{plain.sum() / quick.sum():.2f} times (half of the turns "
        f"{np.quantile(plain / quick, 0.25):.2f}-{np.quantile(plain / quick, 0.75):.2f}); "
        f"probabilities within {apart:.0e}, maps within {maps_apart:.0e}, decisions identical",
        flush=True,
    )
    return float(plain.sum() / quick.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 films")
    parser.add_argument("--preset", choices=("demo", "published"), default="published")
    parser.add_argument("--system", choices=("eff", "vit"), nargs="+", default=["eff", "vit"])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--films", type=int, default=31, help="31: 3 called with a mask, 2 without")
    parser.add_argument("--gpu", default="cpu")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.films = 8
    from common.compute import set_up
    from common.distributed import one_device

    device = one_device(arguments.gpu)
    set_up(device)
    torch.backends.cudnn.allow_tf32 = False  # its rounding would be the difference
    ratios = [compare(system, arguments, device) for system in arguments.system]
    print(f"inference: {min(ratios):.2f} (goal >= {GOAL})")


if __name__ == "__main__":
    main()
