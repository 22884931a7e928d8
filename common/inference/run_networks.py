"""The only evaluation loop: validation, thresholds, inference and new films all go through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from common.compute import in_eval_mode
from common.distributed import Processes
from common.memory import ANOTHER_DEVICE, enough_memory, refuse_small_shared_memory
from common.networks.batch import Batch, batch_item
from common.networks.ensemble import Nets, fold_probabilities, mean_map
from common.networks.unet import PneumothoraxNet
from common.progress import progress
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


@dataclass(frozen=True)
class Seen:
    """What a network in training sees of a film.

    Attributes:
        row: Row of the film in its set.
        truth: (s, s) bool, its true mask at the working size.
        found: (s, s) float32, 0-1, its map; None where it was not asked for.
        probability: Probability of pneumothorax, 0-1; None: a segmentation model does not tell.
    """

    row: int
    truth: np.ndarray
    found: np.ndarray | None
    probability: float | None


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
    _validation: dict[bytes, DataLoader] = field(
        default_factory=dict, repr=False
    )  # by the rows that it reads

    def __post_init__(self) -> None:
        if not self.batch_size:
            object.__setattr__(self, "batch_size", films_at_once(self.device, self.image_size))
        refuse_small_shared_memory(self.workers, self.batch_size, self.image_size)

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """Films in the batches that they are computed in; only the last may be smaller."""
        return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]

    def _loader(self, rows: Rows, workers: int, persistent: bool = False) -> DataLoader:
        films = EvaluationFilms(self.prepared, rows, self.image_size)
        return evaluation_loader(films, self.batch_size, workers, self.device.type == "cuda", persistent)

    def _batches(self, nets: Nets, rows: Rows, title: str | None) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of films; the networks are in eval mode from the first to the last of them."""
        loader = self._loader(rows, self.workers)
        with in_eval_mode(*nets), progress(len(rows), title) as bar:
            for batch in loader:
                yield batch
                bar.update(len(batch["row"]))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        what = f"{self.batch_size} films at a time at {self.image_size} px"
        with enough_memory(what, self.device, ANOTHER_DEVICE), torch.no_grad():
            yield

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
        for batch in self._batches(nets, rows, title):
            with self._computing():
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
        for batch in self._batches(nets, rows, title):
            with self._computing():
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
        # they load SciPy, which a new film does without
        from common.inference.threshold_rules import MAP_THRESHOLDS
        from common.statistics.auroc import auroc

        processes = processes or Processes(self.device)
        rows = np.asarray(rows)
        positive = self.prepared.has_mask[rows]
        own = processes.share(rows)
        loader = self._validation.get(own.tobytes())
        if loader is None:  # the first epoch's: its workers read the next ones', too
            loader = self._loader(own, self.workers, persistent=True)
            self._validation[own.tobytes()] = loader
        thresholds = () if self.map_threshold == "half" else (len(MAP_THRESHOLDS),)
        dices, scores = np.full((len(own), *thresholds), np.nan), np.full(len(own), np.nan)
        # Without a lesion, Dice is 1 or 0 by convention, and says nothing of the outline: no map is needed.
        for place, each in enumerate(self._seen(net, loader, rows[positive])):
            if each.found is not None:
                dices[place] = self._dices(each.found, each.truth)
            if each.probability is not None:
                scores[place] = each.probability
        # Joined before the mean: the same sum, in the same order, however many processes there are.
        mean_dice = float(np.max(processes.joined(dices)[positive].mean(axis=0)))
        if net.task == "seg":
            return Validation(mean_dice, None)
        return Validation(mean_dice, auroc(positive, processes.joined(scores)))

    def _dices(self, found: np.ndarray, truth: np.ndarray) -> float | np.ndarray:
        if self.map_threshold == "half":
            return dice(found > MAP_THRESHOLD, truth)
        from common.inference.threshold_rules import dice_by_threshold

        return dice_by_threshold(found, truth)

    def with_maps(self, net: PneumothoraxNet, rows: Rows) -> Iterator[Seen]:
        """What a network sees of a few films, with their maps; read here, which needs no workers."""
        return self._seen(net, self._loader(rows, workers=0), rows)

    def _seen(self, net: PneumothoraxNet, loader: DataLoader, mapped: Rows) -> Iterator[Seen]:
        with in_eval_mode(net):
            for batch in loader:
                yield from self._see(net, batch, np.isin(batch["row"].numpy(), mapped))

    def _see(self, net: PneumothoraxNet, batch: dict[str, torch.Tensor], mapped: np.ndarray) -> list[Seen]:
        """The encoder runs once a film, and the decoder for the films whose map is asked for."""
        found: list[np.ndarray | None] = [None] * len(mapped)
        scores: list[float | None] = [None] * len(mapped)
        with self._computing():
            features = net.features(batch["film"].to(self.device, non_blocking=True))
            if net.task == "cls":
                scores = net.logits(features).float().sigmoid().double().tolist()
            if mapped.any():
                some = features if mapped.all() else [each[torch.from_numpy(mapped)] for each in features]
                maps = net.masks(some).float().softmax(dim=1)[:, 1].cpu().numpy()
                for place, each in zip(np.flatnonzero(mapped), maps, strict=True):
                    found[place] = each
        films = zip(batch["row"].tolist(), batch["mask"].numpy(), found, scores, strict=True)
        return [Seen(row, mask[0] > 0.5, map_, score) for row, mask, map_, score in films]


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


def evaluation_loader(
    films: EvaluationFilms, batch_size: int, workers: int, pin: bool, persistent: bool = False
) -> DataLoader:
    """Every film once, in order; the last batch may be smaller.

    Args:
        films: Films to read.
        batch_size: Films at a time.
        workers: Processes that read them; 0: this one does.
        pin: Whether batches are page-locked, for a GPU.
        persistent: Whether the workers stay, for when the films are read again.
    """
    return DataLoader(
        films,
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=persistent and workers > 0,
    )
