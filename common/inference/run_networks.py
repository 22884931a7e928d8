"""The only evaluation loop: validation, thresholds, inference and new films all go through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common.compute import evaluating
from common.distributed import Processes
from common.inference.threshold_rules import MAP_THRESHOLDS, dice_by_threshold
from common.networks.batch import Batch, batch_item
from common.networks.ensemble import Nets, fold_probabilities, mean_map
from common.networks.unet import PneumothoraxNet
from common.statistics.auroc import auroc
from common.statistics.overlap import MAP_THRESHOLD, dice

Rows: TypeAlias = "Sequence[int] | np.ndarray"
"""Films of a set, by the rows in which they stand there."""

# In which every answer is computed, whatever training computed in: bf16 moves a mean probability by up to
# 2e-3, and the threshold that a GPU chose would not be the one that a CPU needs
PRECISION = "fp32"
_MOST = 16  # films at a time
_CPU_PIXELS = 512 * 512  # of the films at a time: what a network makes of more leaves a processor's cache


def films_at_once(device: torch.device, image_size: int) -> int:
    """How many films of a working size are computed at a time, where nobody says otherwise."""
    return _MOST if device.type == "cuda" else min(_MOST, max(1, _CPU_PIXELS // image_size**2))


@dataclass(frozen=True)
class Validation:
    """How good a network is on the validation films.

    Attributes:
        dice: Mean over the positives of the Dice of their map over its threshold (0 where one is empty).
        auroc: AUROC of the classification; None for a segmentation model.
    """

    dice: float
    auroc: float | None

    @property
    def score(self) -> float:
        """What the best epoch is chosen by: AUROC where there is one, else Dice."""
        return self.dice if self.auroc is None else self.auroc


class Films(Protocol):
    """What evaluation asks of films: of a prepared set, or of new ones without masks."""

    @property
    def has_mask(self) -> np.ndarray:
        """(n,) bool: films with an annotated lesion."""

    def film(self, row: int, side: int) -> np.ndarray:
        """A film stretched to a side in pixels, such as the working size: (side, side) uint8."""

    def mask(self, row: int, side: int) -> np.ndarray:
        """Its mask, (side, side) bool."""


FilmsRead = TypeVar("FilmsRead", bound=Films)


@dataclass(frozen=True)
class Predictor(Generic[FilmsRead]):
    """How films are run through networks.

    Attributes:
        prepared: Prepared set that the films are from.
        image_size: Working size in pixels.
        device: Device to compute on.
        workers: Number of processes that read films.
        batch_size: Films at a time; changes speed, not results (beyond rounding). 0: what is fastest.
        map_threshold: What validation cuts maps at, as in the recipe: `half`, or `out-of-fold`, the one of
            MAP_THRESHOLDS at which the mean Dice of the validation films is highest.
    """

    prepared: FilmsRead
    image_size: int
    device: torch.device
    workers: int = 0
    batch_size: int = 0
    map_threshold: str = "half"

    def __post_init__(self) -> None:
        if not self.batch_size:
            object.__setattr__(self, "batch_size", films_at_once(self.device, self.image_size))

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """Films in the batches that they are computed in; only the last may be smaller."""
        return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]

    def _batches(self, rows: Rows, title: str | None) -> Iterator[dict[str, torch.Tensor]]:
        films = EvaluationFilms(self.prepared, rows, self.image_size)
        loader = evaluation_loader(films, self.batch_size, self.workers, pin=self.device.type == "cuda")
        with tqdm(total=len(rows), desc=title, unit="film", disable=None if title else True) as bar:
            for batch in loader:
                yield batch
                bar.update(len(batch["row"]))

    def probabilities(self, nets: Nets, rows: Rows, title: str | None = None) -> np.ndarray:
        """Probability of pneumothorax by each fold: (films, folds) float64, 0-1.

        Args:
            nets: Classification networks, on the device.
            rows: Rows of the films in the set.
            title: Title of a progress bar; None: no bar.
        """
        # Without films, too, there is a column a fold, which callers take.
        found = [each for _, each in self.scores(nets, rows, title)]
        return np.array(found, dtype=np.float64) if found else np.empty((0, len(nets)))

    def scores(self, nets: Nets, rows: Rows, title: str | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Classify films.

        Yields:
            Row; probability of pneumothorax by each fold, (folds,) float64, 0-1.
        """
        for batch in self._batches(rows, title):
            with evaluating(*nets):
                film = batch["film"].to(self.device, non_blocking=True)
                found = fold_probabilities(nets, film).double().cpu().numpy()
            yield from zip(batch["row"].tolist(), found, strict=True)

    def maps(
        self, nets: Nets, rows: Rows, title: str | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Segment films.

        Yields:
            Row; mean map over the networks, (image_size, image_size) float32, 0-1; true mask, bool of the
            same shape.
        """
        for batch in self._batches(rows, title):
            with evaluating(*nets):
                maps = mean_map(nets, batch["film"].to(self.device, non_blocking=True)).cpu().numpy()
            for row, found, mask in zip(batch["row"].tolist(), maps, batch["mask"].numpy(), strict=True):
                yield row, found, mask[0] > 0.5

    def validation(self, net: PneumothoraxNet, rows: Rows, processes: Processes | None = None) -> Validation:
        """Score a network on validation films.

        Args:
            net: Network to be judged, on the device.
            rows: Rows of the films in the set; for segmentation, positives only.
            processes: Each of them predicts its part; None: there is only this one.
        """
        processes = processes or Processes(self.device)
        rows = np.asarray(rows)
        # Without a lesion, Dice is 1 or 0 by convention, and says nothing of the outline.
        positives = rows[self.prepared.has_mask[rows]]
        mean_dice = self._mean_dice(net, positives, processes)
        if net.task == "seg":
            return Validation(mean_dice, None)
        scores = processes.joined(self.probabilities([net], processes.share(rows))[:, 0])
        return Validation(mean_dice, auroc(self.prepared.has_mask[rows], scores))

    def _mean_dice(self, net: PneumothoraxNet, positives: np.ndarray, processes: Processes) -> float:
        maps = self.maps([net], processes.share(positives))
        # Joined before the mean: the same sum, in the same order, however many processes there are.
        if self.map_threshold == "half":
            own = np.array([dice(found > MAP_THRESHOLD, truth) for _, found, truth in maps])
            return float(processes.joined(own).mean())
        own = np.array([dice_by_threshold(found, truth) for _, found, truth in maps])
        by_threshold = processes.joined(own.reshape(-1, len(MAP_THRESHOLDS)))
        return float(by_threshold.mean(axis=0).max())


class EvaluationFilms(Dataset):
    """Films as they are, at the working size."""

    def __init__(self, prepared: Films, rows: Rows, image_size: int) -> None:
        self.prepared, self.rows, self.image_size = prepared, rows, image_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        row = int(self.rows[index])
        # The very floats of augmentation's table of greys: training and testing see the same numbers.
        film = self.prepared.film(row, self.image_size).astype(np.float32) / 255
        return batch_item(film, self.prepared.mask(row, self.image_size), row, self.prepared.has_mask[row])


def evaluation_loader(films: EvaluationFilms, batch_size: int, workers: int, pin: bool) -> DataLoader:
    """Every film once, in order; the last batch may be smaller."""
    return DataLoader(films, batch_size=batch_size, num_workers=workers, pin_memory=pin)
