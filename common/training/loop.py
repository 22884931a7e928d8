"""The only training loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.distributed import Processes
from common.inference.run_networks import Predictor
from common.paths import shown
from common.recipe import Recipe
from common.refusal import Refusal
from common.training import checkpoint
from common.training.batches import EpochSampler
from common.training.checkpoint import Best, Progress
from common.training.example_films import example_rows, examples
from common.training.log import TrainingLog
from common.training.schedule import learning_rate, positive_share
from common.training.step import Learner


@dataclass
class Fit:
    """One network in training: what it learns from, how it is judged, and where that is written.

    Attributes:
        learner: The network and what changes it.
        loader: Batches in `sampler`'s order.
        sampler: Chooses the films of each epoch.
        predictor: Runs validation films through the network.
        validation: (n,) rows of these films.
        recipe: Numbers of the run.
        processes: That train together.
        folder: Of the run.
        facts: What the run is; a checkpoint of another run is not gone on with.
        title: Of progress bars and messages.
        save_minutes: Within an epoch, a checkpoint is written whenever so much time has passed.
    """

    learner: Learner
    loader: DataLoader
    sampler: EpochSampler
    predictor: Predictor
    validation: np.ndarray
    recipe: Recipe
    processes: Processes
    folder: Path
    facts: dict[str, Any]
    title: str
    save_minutes: float = 10.0
    _saved: float = field(default_factory=time.monotonic)
    _record: TrainingLog | None = None
    _examples: np.ndarray | None = None

    def run(self) -> Best:
        """Train from where the run stands, and keep the epoch with the best score (the first of equals).

        Raises:
            Refusal: The loss is not finite; the checkpoint is damaged or cannot be written.
        """
        progress = self.begin()
        while progress.epoch < self.recipe.epochs:
            title = f"{self.title} epoch {progress.epoch + 1}/{self.recipe.epochs}"
            with self._bar(title, len(progress.losses)) as bar:
                self.train_epoch(progress, bar)
                bar.set_description(f"{title}, validating")
                self.judge_epoch(progress)
        if self._record is not None:
            self._record.close()
        return progress.best

    def begin(self) -> Progress:
        """Take up the run where its checkpoint left it, or at its beginning."""
        learner = self.learner
        progress = checkpoint.restore(self._last, learner.net, learner.optimiser, learner.scaler)
        if self.processes.first:
            done = progress.epoch * len(self.sampler) + len(progress.losses)
            title = f"{self.title} (validation n = {len(self.validation)})"
            self._record = TrainingLog(self.folder, title, progress.log, done)
            self._examples = example_rows(self.predictor.prepared, self.validation)
        return progress

    def _bar(self, title: str, done: int) -> tqdm:
        return tqdm(
            desc=title,
            total=len(self.sampler),
            initial=done,
            unit="step",
            leave=False,
            disable=None if self.processes.first else True,
        )

    @property
    def _last(self) -> Path:
        return checkpoint.file_of(self.folder)

    def train_epoch(self, progress: Progress, bar: tqdm) -> None:
        """Do the steps of the epoch that are left."""
        recipe, sampler = self.recipe, self.sampler
        share = positive_share(progress.epoch, recipe.epochs, recipe.share_first, recipe.share_drop)
        sampler.start(progress.epoch, share if sampler.films else 1.0, done=len(progress.losses))
        self.learner.net.train()
        begun = time.monotonic() - progress.seconds
        running = None
        for step, batch in enumerate(self.loader, progress.epoch * len(sampler) + sampler.done + 1):
            rate = self._rate(step)
            found = self.learner.step(batch, rate, (recipe.seed, progress.epoch, step))
            # The figures of a step are read when the next one is under way: a GPU need not wait for it
            if running is not None:
                self._note(progress, *running)
            running = (step, rate, found)
            if self.processes.first and time.monotonic() - self._saved > 60 * self.save_minutes:
                self._note(progress, *running)
                running = None
                progress.seconds = time.monotonic() - begun
                self._save(progress)
            if progress.losses:
                bar.set_postfix(loss=f"{np.mean(progress.losses[-20:]):.3f}", lr=f"{rate:.1e}", refresh=False)
            bar.update()
        if running is not None:
            self._note(progress, *running)
        progress.seconds = time.monotonic() - begun

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        return learning_rate(
            step,
            recipe.epochs * len(self.sampler),
            recipe.learning_rate,
            recipe.learning_rate_floor,
            recipe.warmup_steps,
        )

    def _note(self, progress: Progress, step: int, rate: float, found: torch.Tensor) -> None:
        """Read the figures of a step."""
        loss, positives = found.tolist()
        if not math.isfinite(loss):
            rows = self.sampler.rows()[list(self.sampler.draws(len(progress.losses)))]
            last = shown(self._last)
            kept = (
                f"{last}: the state before"
                if self._last.is_file()
                else "nothing: no checkpoint was written yet"
            )
            raise Refusal(
                f"{self.title}: the loss or its gradient is not finite ({loss})",
                found=f"step {step} (epoch {progress.epoch + 1}), learning rate {rate:g}",
                films=", ".join(self.loader.dataset.names(rows)),
                kept=kept,
                do="look at these films; start anew (--fresh): lower --learning-rate, or --precision fp32",
            )
        progress.losses.append(loss)
        progress.positives.append(positives)
        if self._record is not None:
            self._record.step(step, loss, rate)

    def judge_epoch(self, progress: Progress) -> None:
        """Validate, keep the network if it is the best so far, and write down the epoch."""
        begun = time.monotonic()
        net = self.learner.net
        self.processes.from_first(list(net.buffers()))  # BatchNorm's, where each process has its own
        result = self.predictor.validation(net, self.validation, self.processes)
        if progress.best is None or result.score > progress.best.score:
            state = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}
            progress.best = Best(state, progress.epoch + 1, result.score)
        steps = (progress.epoch + 1) * len(self.sampler)
        row = {
            "epoch": progress.epoch + 1,
            "step": steps,
            "learning_rate": self._rate(steps),
            "share_expected": self.sampler.share,
            "share_drawn": float(np.mean(progress.positives)),
            "loss": float(np.mean(progress.losses)),
            "dice": result.dice,
            "auroc": result.auroc,
            "score": result.score,
            "best": progress.best.score,
            "seconds": round(progress.seconds + time.monotonic() - begun, 2),
        }
        if self._record is not None:
            self._record.epoch(row, examples(self.predictor, net, self._examples))
        progress.log.append(row)
        progress.epoch += 1
        progress.losses, progress.positives, progress.seconds = [], [], 0.0
        if self.processes.first:
            self._save(progress)

    def _save(self, progress: Progress) -> None:
        learner = self.learner
        self._record.flush()
        checkpoint.save(self._last, self.facts, progress, learner.net, learner.optimiser, learner.scaler)
        self._saved = time.monotonic()
