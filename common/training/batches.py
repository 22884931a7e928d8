"""Prepared arrays -> training batches.

Randomness is keyed: the sampler yields (epoch, draw, row), and a film is augmented with
`default_rng([seed, epoch, draw])`. A film drawn twice is augmented twice, and the result does not depend
on the number of workers or on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common.distributed import Processes
from common.networks.batch import Batch, batch_item
from common.preparation.film_store import SIDE, PreparedSet
from common.recipes.recipe import Augmentation
from common.training.augment import augment


class TrainingFilms(Dataset):
    """Augmented films of a prepared set, indexed by (epoch, draw, row).

    Args:
        prepared: Set of the films.
        image_size: Working size in pixels.
        seed: Seed of the augmentation.
        ranges: Ranges of the augmentation.
        unlabelled: Set of films without labels, whose rows follow those of `prepared`; None: there are none.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        image_size: int,
        seed: int,
        ranges: Augmentation,
        unlabelled: PreparedSet | None = None,
    ) -> None:
        self.prepared, self.image_size, self.seed, self.ranges = prepared, image_size, seed, ranges
        self.unlabelled = unlabelled
        # Augmentation at most halves the film's side, and bilinear sampling is exact area sampling up to
        # there: a smaller working size starts from a film that was reduced by area to twice that size.
        self.side = min(2 * image_size, SIDE)

    def __getitem__(self, key: tuple[int, int, int]) -> Batch:
        epoch, draw, row = key
        held, place = self._held(row)
        film, lesion = held.film(place, self.side), held.lesion(place, self.side)
        rng = np.random.default_rng([self.seed, epoch, draw])
        film, mask = augment(film, lesion, self.image_size, rng, self.ranges)
        item = batch_item(film, mask, row, held.has_mask[place])
        return item if self.unlabelled is None else item | {"labelled": torch.tensor(held is self.prepared)}

    def names(self, rows: np.ndarray) -> list[str]:
        """Pseudonyms of films."""
        held = map(self._held, rows.tolist())
        return [name for films, place in held for name in films.names(np.array([place]))]

    def _held(self, row: int) -> tuple[PreparedSet, int]:
        """The set that holds a row, and its row there."""
        if self.unlabelled is None or row < len(self.prepared.cases):
            return self.prepared, row
        return self.unlabelled, row - len(self.prepared.cases)


class EpochSampler(Sampler):
    """The films of one epoch after the other, in batches of (epoch, draw, row).

    Args:
        positives: Rows of the positive training films.
        negatives: Rows of the negative training films; not used when every positive is drawn once.
        batch_size: Films a step, of all processes together; an incomplete last batch is dropped.
        films: Films drawn an epoch, with replacement; 0: every positive once.
        seed: Seed of the order.
        processes: Each of them takes its part of every batch; None: there is only this one.
        unlabelled: Rows of the films without labels; none: there are none.
        unlabelled_share: Expected share of the draws that are of these, in the place of others, 0-1.
    """

    def __init__(
        self,
        positives: np.ndarray,
        negatives: np.ndarray,
        batch_size: int,
        films: int,
        seed: int,
        processes: Processes | None = None,
        unlabelled: Sequence[int] = (),
        unlabelled_share: float = 0.0,
    ) -> None:
        self.unlabelled, self.unlabelled_share = np.asarray(unlabelled, int), unlabelled_share
        self.positives, self.negatives = np.asarray(positives), np.asarray(negatives)
        self.batch_size, self.films, self.seed = batch_size, films, seed
        self.processes = processes
        self.epoch, self.share, self.done = 0, 1.0, 0

    def __len__(self) -> int:
        """Steps an epoch."""
        return (self.films or len(self.positives)) // self.batch_size

    def start(self, epoch: int, share: float, done: int = 0) -> None:
        """Choose the epoch to yield next, its expected share of positives (0-1), and the steps to skip."""
        self.epoch, self.share, self.done = epoch, share, done

    def rows(self) -> np.ndarray:
        """Rows of the epoch in the order of their draws."""
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = self._labelled(rng)
        if not len(self.unlabelled):
            return rows
        # In the place of others: an epoch has as many steps as without them.
        instead = rng.random(len(rows)) < self.unlabelled_share
        return np.where(instead, rng.choice(self.unlabelled, len(rows)), rows)

    def _labelled(self, rng: np.random.Generator) -> np.ndarray:
        if not self.films:
            return rng.permutation(self.positives)  # so the incomplete batch leaves out other films each time
        # Each film's kind is drawn by itself: the recipe states the expected share of positives, not a quota.
        positive = rng.random(self.films) < self.share
        return np.where(
            positive, rng.choice(self.positives, self.films), rng.choice(self.negatives, self.films)
        )

    @property
    def expected_share(self) -> float:
        """Expected share of positives in the epoch's draws, 0-1."""
        return self.share * (1 - self.unlabelled_share)

    def draws(self, step: int) -> range:
        """Draws of a step (from 0) of the epoch, of all processes together."""
        return range(step * self.batch_size, (step + 1) * self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        rows = self.rows()
        for step in range(self.done, len(self)):
            draws = self.draws(step)
            own = self.processes.share(draws) if self.processes else draws
            yield [(self.epoch, draw, int(rows[draw])) for draw in own]


def training_loader(films: TrainingFilms, sampler: EpochSampler, workers: int, pin: bool) -> DataLoader:
    """Batches of augmented films. The order and content do not depend on `workers`."""
    return DataLoader(
        films,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,  # an epoch need not wait for new ones
    )


def names_of(loader: DataLoader, rows: np.ndarray) -> list[str]:
    """Pseudonyms of films of a `training_loader`."""
    films = loader.dataset
    assert isinstance(films, TrainingFilms)
    return films.names(rows)
