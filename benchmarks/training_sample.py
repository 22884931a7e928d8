"""Training samples by our code, against the published augmentation as MONAI transforms on PNG files.

    python benchmarks/training_sample.py           7 rounds
    python benchmarks/training_sample.py --quick   3 rounds, fewer samples

A sample is a film and its mask, read at 1024 x 1024, augmented, at 512 x 512. The published way reads a PNG
of each and does one transform after the other; ours is `TrainingFilms` on the prepared set of the same
pixels. One process, one thread, the two alternately; half of the films have a lesion. There are 24 films
(25 MB as they are prepared), so both read from the page cache: on a set larger than memory, where a film is
1 MB from the disk, ours would be bound by that.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from monai.transforms import (
    Compose,
    LoadImaged,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotated,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    RandZoomd,
    Resized,
    ScaleIntensityRanged,
)

from common.preparation.film_store import SIDE, PreparedSet
from common.recipes.presets import read_preset
from common.recipes.recipe import Augmentation
from common.training.batches import TrainingFilms

GOAL = 30
IMAGE_SIZE = 512
BOTH = ("film", "mask")


def published_chain(ranges: Augmentation, side: int = SIDE, image_size: int = IMAGE_SIZE) -> Compose:
    """The published augmentation, one operation after the other in its order.

    Transforms a dictionary of `film` and `mask`, both (1, side, side) float32, 0-1, to
    (1, image_size, image_size). The mask is sampled by nearest neighbour, so it stays 0 and 1.

    Args:
        ranges: What may be drawn.
        side: Side of the film, in pixels.
        image_size: Working size in pixels.
    """
    smallest, largest = (round(share * side) for share in ranges.crop)
    return Compose(
        [
            RandZoomd(
                BOTH,
                prob=ranges.zoom_probability,
                min_zoom=ranges.zoom[0],
                max_zoom=ranges.zoom[1],
                mode=("area", "nearest"),
                padding_mode="constant",  # zeros, as where the film is turned
            ),
            RandSpatialCropd(BOTH, roi_size=smallest, max_roi_size=largest, random_size=True),
            Resized(BOTH, (image_size, image_size), mode=("area", "nearest")),
            RandGaussianSmoothd(
                "film", prob=ranges.blur_probability, sigma_x=ranges.blur_sigma, sigma_y=ranges.blur_sigma
            ),
            RandScaleIntensityd("film", prob=ranges.scale_probability, factors=ranges.scale),
            RandShiftIntensityd("film", prob=ranges.shift_probability, offsets=ranges.shift),
            RandAdjustContrastd("film", prob=ranges.gamma_probability, gamma=ranges.gamma),
            RandGaussianNoised("film", prob=ranges.noise_probability, std=ranges.noise),
            RandRotated(
                BOTH,
                prob=ranges.rotation_probability,
                range_x=np.deg2rad(ranges.rotation),
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandFlipd(BOTH, prob=ranges.flip_probability, spatial_axis=1),
        ]
    )


def reading() -> list[Callable]:
    """Transforms that read `film` and `mask` from PNG: paths to (1, height, width) float32, 0-1."""
    return [
        # the reader would otherwise swap rows and columns, and the flip above would be vertical
        LoadImaged(BOTH, reader="PILReader", reverse_indexing=False, ensure_channel_first=True),
        ScaleIntensityRanged(BOTH, a_min=0, a_max=255, b_min=0, b_max=1),
    ]


def make_films(folder: Path) -> tuple[PreparedSet, list[dict[str, str]]]:
    """A prepared set of synthetic films, and the paths of the same pixels as PNG, in its order."""
    from common.demo.phantom_sets import write_siim
    from common.preparation.run import open_prepared

    os.environ["PTX_WORKSPACE"] = str(folder / "workspace")
    write_siim(folder / "siim", positives=12, negatives=12, seed=1, workers=1)
    prepared = open_prepared("siim", str(folder / "siim"), "the benchmark")
    paths = []
    for row in range(len(prepared.cases)):
        pair = {key: str(folder / f"{key}{row}.png") for key in BOTH}
        cv2.imwrite(pair["film"], prepared.film(row))
        cv2.imwrite(pair["mask"], prepared.mask(row).astype(np.uint8) * 255)
        paths.append(pair)
    return prepared, paths


def seconds(work: Callable[[int], object], epoch: int) -> float:
    """Wall time of one round."""
    begun = time.perf_counter()
    work(epoch)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds, fewer samples")
    quick = parser.parse_args().quick
    rounds, repeats = (3, 4) if quick else (7, 20)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as name:
        prepared, paths = make_films(Path(name))
        count = len(paths)
        films = TrainingFilms(prepared, IMAGE_SIZE, 0, read_preset("published").augmentation)
        chain = Compose([*reading(), published_chain(read_preset("published").augmentation)])
        chain.set_random_state(0)

        def ours(epoch: int) -> None:
            for draw in range(repeats * count):
                films[epoch, draw, draw % count]

        def published(_: int) -> None:
            for pair in paths:
                chain(dict(pair))

        for sample in (films[0, 0, 0], chain(dict(paths[0]))):  # and both are warm
            assert sample["film"].shape == sample["mask"].shape == (1, IMAGE_SIZE, IMAGE_SIZE)
            assert set(np.unique(sample["mask"])) <= {0.0, 1.0}
        times = [
            (seconds(ours, epoch) / repeats / count, seconds(published, epoch) / count)
            for epoch in range(rounds)
        ]

    each = np.array(times)
    ratios = each[:, 1] / each[:, 0]
    for label, column in (("ours", 0), ("published chain", 1)):
        middle = np.median(each[:, column])
        print(f"{label:16} {1 / middle:8.1f} films a second on a core ({middle * 1e3:.2f} ms a film)")
    print(f"{rounds} rounds: {ratios.min():.1f} to {ratios.max():.1f} times as fast")
    print(f"training_sample: {np.median(ratios):.1f} (goal >= {GOAL})")


if __name__ == "__main__":
    main()
