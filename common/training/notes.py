"""The loss of every step, read when the next step is under way, so that a GPU need not wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from common.paths import shown
from common.refusal import Refusal
from common.training.checkpoint import Progress
from common.training.log import TrainingLog


class Step(NamedTuple):
    """A step that was done.

    Attributes:
        number: Number of the step in the run, from 1.
        rate: Learning rate.
        found: Mean loss and share of positives of its batch, (2,) float32, on the device.
    """

    number: int
    rate: float
    found: torch.Tensor


class Notes:
    """Writes down the steps of an epoch, each one step late.

    Args:
        progress: Progress of the run; the epoch's losses and shares of positives are added to it.
        log: Log of the run; None in all processes but the first.
        films_of: Names of the films of a step, from its place in the epoch (from 0).
        checkpoint: Path of the run's checkpoint, for the message of a run that cannot go on.
        title: Name of the run in that message.
    """

    def __init__(
        self,
        progress: Progress,
        log: TrainingLog | None,
        films_of: Callable[[int], list[str]],
        checkpoint: Path,
        title: str,
    ) -> None:
        self._progress, self._log, self._films_of = progress, log, films_of
        self._checkpoint, self._title = checkpoint, title
        self._last: Step | None = None

    def add(self, number: int, rate: float, found: torch.Tensor) -> None:
        """Note a step that was started, and read the one before it.

        Raises:
            Refusal: The loss of the step before is not finite.
        """
        self.finish()
        self._last = Step(number, rate, found)

    def finish(self) -> None:
        """Read the last step; it is waited for.

        Raises:
            Refusal: Its loss is not finite.
        """
        if self._last is None:
            return
        step, self._last = self._last, None
        loss, positives = step.found.tolist()
        if not math.isfinite(loss):
            self._refuse(step, loss)
        self._progress.losses.append(loss)
        self._progress.positives.append(positives)
        if self._log is not None:
            self._log.step(step.number, loss, step.rate)

    def _refuse(self, step: Step, loss: float) -> None:
        last = shown(self._checkpoint)
        written = self._checkpoint.is_file()
        raise Refusal(
            f"{self._title}: the loss or its gradient is not finite ({loss})",
            found=f"step {step.number} (epoch {self._progress.epoch + 1}), learning rate {step.rate:g}",
            films=", ".join(self._films_of(len(self._progress.losses))),
            kept=f"{last}: the state before" if written else "nothing: no checkpoint was written yet",
            do="look at these films; start anew (--fresh): lower --learning-rate, or --precision fp32",
        )
