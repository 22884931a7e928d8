"""A plain U-Net, to compare the recipes with: one network and one training, by `benchmarks/learning.py`.

    python benchmarks/plain_unet.py --ntuh PATH --imagenet PATH --steps 400 --output FILE

256 pixels, BCE (3) + Dice of the positives, share of positives 0.8 falling to 0.4, a batch of 8, a learning
rate that rises and falls; no pre-training but ImageNet's, no fold, no validation, no averaging; the map is
cut at 0.5, and a film's score is the highest value of its map. Written is a row a test film.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

IMAGE_SIZE, BATCH, EPOCHS = 256, 8, 10
COLUMNS = ("case", "probability", "dice_full_size", "laterality", "hit")


def train(prepared: Any, imagenet: Path, encoder: str, steps: int, seed: int) -> Any:
    """Train it on all films of a set, with the loop's own parts."""
    from tqdm import tqdm

    from common.compute import seed_torch
    from common.distributed import Processes
    from common.networks.imagenet import load_imagenet
    from common.networks.weights import build, network_facts
    from common.recipes.presets import preset_network, preset_recipe
    from common.stages import STAGES
    from common.training.batches import EpochSampler, TrainingFilms, training_loader
    from common.training.schedule import positive_share, rate_of
    from common.training.step import Learner

    recipe = dataclasses.replace(
        preset_recipe("published", STAGES["ntuh_segmentation"], "eff"),
        image_size=IMAGE_SIZE, batch_size=BATCH, epochs=EPOCHS, films_per_epoch=BATCH * (steps // EPOCHS),
        learning_rate=5e-4, learning_rate_floor=1e-6, share_drop=0.4, bce_weight=3.0, dice_weight=2.0,
        dice_films="positives", seed=seed,
    )  # fmt: skip
    network = dataclasses.replace(preset_network("published", "eff"), encoder=encoder)
    seed_torch(seed)
    net = build({"network": network_facts(network), "task": "seg"})
    load_imagenet(net, encoder, imagenet)
    learner = Learner(net, recipe, Processes(torch.device("cpu")))
    positives, negatives = np.flatnonzero(prepared.has_mask), np.flatnonzero(~prepared.has_mask)
    sampler = EpochSampler(positives, negatives, BATCH, recipe.films_per_epoch, seed)
    films = TrainingFilms(prepared, IMAGE_SIZE, seed, recipe.augmentation)
    loader = training_loader(films, sampler, 0, pin=False)
    net.train()
    for epoch in range(EPOCHS):
        sampler.start(epoch, positive_share(epoch, EPOCHS, recipe.share_first, recipe.share_drop))
        title = f"plain U-Net epoch {epoch + 1}/{EPOCHS}"
        numbered = enumerate(tqdm(loader, title, len(sampler), leave=False), epoch * len(sampler) + 1)
        for step, batch in numbered:
            learner.step(batch, rate_of(recipe, step, len(sampler)), (seed, epoch, step))
    return net


def scores(net: Any, prepared: Any) -> list[dict[str, Any]]:
    """What it finds in each film of a set, as the project's metrics measure it."""
    from common.films.resample import resample
    from common.inference.run_networks import Predictor
    from common.preparation.film_store import SIDE
    from common.statistics.localisation import hit, laterality
    from common.statistics.overlap import MAP_THRESHOLD, dice

    predictor = Predictor(prepared, IMAGE_SIZE, torch.device("cpu"))
    rows = []
    for row, found, _ in predictor.maps([net], np.arange(len(prepared.cases))):
        facts = prepared.cases.iloc[row]
        film = dict.fromkeys(COLUMNS) | {"case": facts["case"], "probability": float(found.max())}
        if prepared.has_mask[row]:
            full, lesion = resample(found, SIDE), prepared.mask(row)
            film |= {
                "dice_full_size": dice(full > MAP_THRESHOLD, lesion),
                "laterality": laterality(full, lesion),
                "hit": hit(full, lesion, int(facts["width"]), int(facts["height"])),
            }
        rows.append(film)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("ntuh", "imagenet", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from common.compute import set_up
    from common.files import write_csv
    from common.networks.imagenet import find_imagenet
    from common.preparation.run import open_prepared

    set_up(torch.device("cpu"))
    training, test = (
        open_prepared(name, arguments.ntuh, "the plain U-Net") for name in ("ntuh_train", "ntuh_test")
    )
    imagenet = find_imagenet(arguments.encoder, arguments.imagenet)
    begun = time.process_time()
    net = train(training, imagenet, arguments.encoder, arguments.steps, arguments.seed)
    print(f"plain U-Net: {(time.process_time() - begun) / 60:.1f} CPU minutes of training")
    write_csv(Path(arguments.output), COLUMNS, scores(net, test))


if __name__ == "__main__":
    main()
