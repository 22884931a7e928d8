"""The training loop. In each epoch, in this order:

draw            which films, how often and how augmented                batches.py, augment.py, schedule.py
step            forward, loss, backward, optimiser, average             step.py, losses.py, moving_average.py
note            loss and share of positives of each step                notes.py
validate        the network on the validation films                     ../inference/run_networks.py
keep the best   the first of the epochs with the highest score          checkpoint.py
save            `last.pt`, from which a killed run goes on              checkpoint.py, log.py, background.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.distributed import Processes
from common.inference.run_networks import Predictor
from common.preparation.film_store import PreparedSet
from common.recipes.recipe import Recipe
from common.training import checkpoint
from common.training.background import Background
from common.training.batches import EpochSampler, names_of
from common.training.checkpoint import file_of
from common.training.example_films import example_rows, examples
from common.training.log import TrainingLog, epoch_row
from common.training.notes import Notes
from common.training.schedule import positive_share, rate_of
from common.training.step import Learner


@dataclass
class Fit:
    """One network in training: what it learns from, how it is judged, and where that is written.

    Attributes:
        learner: The network and what changes it.
        loader: Batches in the order of `sampler`.
        sampler: Chooses the films of each epoch.
        predictor: Runs validation films through the network.
        validation: (n,) int, rows of the validation films in the prepared set.
        recipe: Numbers of the run.
        processes: The processes that train together.
        folder: Folder of the run.
        facts: What the run is, plain JSON; a checkpoint of another run is not gone on with.
        title: Name of the run in progress bars and messages.
        save_minutes: Minutes after which a checkpoint is written within an epoch.
        after_epoch: Is told the rows of `log.csv` after each epoch.
    """

    learner: Learner
    loader: DataLoader
    sampler: EpochSampler
    predictor: Predictor[PreparedSet]
    validation: np.ndarray
    recipe: Recipe
    processes: Processes
    folder: Path
    facts: dict[str, Any]
    title: str
    save_minutes: float = 10.0
    after_epoch: Callable[[list[dict[str, Any]]], None] = lambda log: None
    _saved: float = field(default_factory=time.monotonic)
    _background: Background = field(default_factory=Background)
    _log: TrainingLog | None = None  # of the first process
    _examples: np.ndarray = field(default_factory=lambda: np.empty(0, int))  # rows, of the first process

    def run(self) -> checkpoint.Best:
        """Train from where the run stands, and keep the best epoch (of a student the last one).

        Raises:
            Refusal: The loss is not finite; the checkpoint is damaged or cannot be written.
        """
        progress = self.begin()
        hidden = None if self.processes.first else True  # None: where there is no terminal
        with self._background:
            while progress.epoch < self.recipe.epochs:
                title = f"{self.title} epoch {progress.epoch + 1}/{self.recipe.epochs}"
                with tqdm(None, title, len(self.sampler), leave=False, unit="step", disable=hidden) as bar:
                    self.train_epoch(progress, bar)
                    bar.set_description(f"{title}, validating")
                    self.judge_epoch(progress)
                self.after_epoch(progress.log)  # once the bar is gone: what it says stays
        if self._log:
            self._log.close()
        return progress.chosen

    def begin(self) -> checkpoint.Progress:
        """Take up the run where its checkpoint left it, or at its beginning."""
        progress = checkpoint.restore(file_of(self.folder), *self.learner.state)
        if self.processes.first:
            done = progress.epoch * len(self.sampler) + len(progress.losses)  # TensorBoard forgets later
            title = f"{self.title} (validation n = {len(self.validation)})"
            self._log = TrainingLog(self.folder, title, progress.log, done)
            self._examples = example_rows(self.predictor.prepared, self.validation)
        return progress

    def train_epoch(self, progress: checkpoint.Progress, bar: tqdm) -> None:
        """Draw the films of the epoch, and do and note its steps that are left."""
        recipe, sampler = self.recipe, self.sampler
        begun = time.monotonic() - progress.seconds  # an epoch that was cut off keeps its time so far
        share = positive_share(progress.epoch, recipe.epochs, recipe.share_first, recipe.share_drop)
        sampler.start(progress.epoch, share if sampler.films else 1.0, done=len(progress.losses))
        bar.update(sampler.done)
        notes = Notes(progress, self._log, self._films_of, file_of(self.folder), self.title)
        self.learner.net.train()
        for step, batch in enumerate(self.loader, progress.epoch * len(sampler) + sampler.done + 1):
            rate = rate_of(recipe, step, len(sampler))
            found = self.learner.step(batch, rate, (recipe.seed, progress.epoch, step))
            notes.add(step, rate, found)
            self._background.check()
            if self.processes.first and time.monotonic() - self._saved > 60 * self.save_minutes:
                notes.finish()  # or the last step, in the weights already, would be done again
                progress.seconds = time.monotonic() - begun
                self._save(progress)
            if progress.losses:  # notes come a step late: none in the first
                bar.set_postfix(loss=f"{np.mean(progress.losses[-20:]):.3f}", lr=f"{rate:.1e}", refresh=False)
            bar.update()
        notes.finish()  # no next step will read the last one
        progress.seconds = time.monotonic() - begun

    def judge_epoch(self, progress: checkpoint.Progress) -> None:
        """Validate, keep the network if it is the best so far, write down the epoch, and save."""
        self._background.finish()  # validation starts workers, which a thread at work could hang
        begun, net = time.monotonic(), self.learner.judged
        self.processes.from_first(list(net.buffers()))  # BatchNorm's, where each process has its own
        result = self.predictor.validation(net, self.validation, self.processes)
        if self.learner.teachers or progress.best is None or result.score > progress.best.score:
            progress.best = checkpoint.Best.of(net, progress.epoch + 1, result.score)
        seconds = progress.seconds + time.monotonic() - begun
        row = epoch_row(progress, result, self.recipe, self.sampler, seconds)
        progress.next_epoch(row)  # before saving, or a killed run would train this epoch again
        if log := self._log:
            seen = examples(self.predictor, net, self._examples) if log.draws(self.recipe.epochs) else None
            self._save(progress, lambda: log.epoch(row, seen))

    def _films_of(self, place: int) -> list[str]:
        return names_of(self.loader, self.sampler.rows()[list(self.sampler.draws(place))])

    def _save(self, progress: checkpoint.Progress, *before: Callable[[], None]) -> None:
        if self._log:
            taken = checkpoint.take(file_of(self.folder), self.facts, progress, *self.learner.state)
            self._background.do(*before, self._log.flush, taken.write)  # no checkpoint ahead of its log
            self._saved = time.monotonic()
