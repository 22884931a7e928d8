"""What a run leaves to be seen while it trains: `log.csv`, `curves.png`, `films.png`, TensorBoard events.

`tensorboard --logdir runs` in a stage's folder shows all its runs.
"""

from __future__ import annotations

import io
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from common.files import whole_file, write_csv
from common.inference.film_sheets import Example, films_sheet
from common.inference.run_networks import Validation
from common.paths import shown
from common.recipes.recipe import Recipe
from common.refusal import Refusal
from common.training.batches import EpochSampler
from common.training.checkpoint import Progress
from common.training.learning_curves import curves_picture
from common.training.schedule import rate_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "share_expected",
    "share_drawn",
    "loss",
    "dice",
    "auroc",
    "score",
    "best",
    "seconds",
)
PICTURE_SECONDS = 30.0  # from one drawing of the pictures to the next, at least
METRIC = {"seg": "Dice", "cls": "AUROC"}  # of each task, by which its epoch is chosen


class TrainingLog:
    """The files of a run that a person looks at. A failed write is a Refusal, in whichever call it fails.

    Attributes:
        log: Rows of the epochs done, with the keys `COLUMNS`.
    """

    def __init__(
        self, folder: Path, title: str, log: Sequence[Mapping[str, Any]] = (), step: int = 0
    ) -> None:
        """Open the log, cut back to what a run that goes on has done.

        Args:
            folder: Folder of the run.
            title: Title of the run's pictures.
            log: Rows of `log.csv` of the epochs done before.
            step: Number of training steps done before; what TensorBoard was told of later ones is purged.
        """
        self.log = [_row(row) for row in log]
        self._folder, self._title, self._drawn = folder, title, -math.inf
        self._write_log()
        if not self.log:  # a run that was cut off before its first checkpoint may have left them
            for name in ("curves.png", "films.png"):
                (folder / name).unlink(missing_ok=True)
        self._events = _Events(folder, step)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Record a training step, numbered from 1."""
        self._events.add(step, {"train/loss": loss, "train/learning_rate": learning_rate})

    def draws(self, epochs: int) -> bool:
        """Whether the next of so many epochs is drawn: the first here, the last, and now and then another."""
        now = time.monotonic()
        if len(self.log) + 1 < epochs and now - self._drawn < PICTURE_SECONDS:
            return False
        self._drawn = now
        return True

    def epoch(self, row: Mapping[str, Any], examples: Sequence[Example] | None) -> None:
        """Record an epoch.

        Args:
            row: A value for each of `COLUMNS`; `dice` and `auroc` are None where they are not measured.
            examples: Validation films as the network sees them now; none: `films.png` stays as it is; None:
                `curves.png`, too.
        """
        row = _row(row)
        self.log.append(row)
        self._write_log(drawn=examples is not None)
        scalars = {f"epoch/{name}": row[name] for name in COLUMNS if name != "step"}
        sheet = films_sheet(f"{self._title}, epoch {row['epoch']}", examples) if examples else None
        if sheet is not None:
            _write_png(self._folder / "films.png", sheet)
        self._events.add(row["step"], scalars, {} if sheet is None else {"validation/films": sheet})

    def flush(self) -> None:
        """Bring to the disk what TensorBoard was told; call it before a checkpoint is written."""
        self._events.flush()

    def close(self) -> None:
        """Close the log; only `log` may be used afterwards."""
        self._events.close()

    def _write_log(self, drawn: bool = True) -> None:
        write_csv(self._folder / "log.csv", COLUMNS, self.log)
        if self.log and drawn:
            curves_picture(self._folder / "curves.png", self._title, self.log)


def epoch_row(
    progress: Progress, result: Validation, recipe: Recipe, sampler: EpochSampler, seconds: float
) -> dict[str, Any]:
    """The row of an epoch in `log.csv`.

    Args:
        progress: Progress of the run, the epoch's steps done and its network judged.
        result: Validation of that network.
        recipe: Numbers of the run.
        sampler: What drew the films of the epoch.
        seconds: Time of the epoch, its validation included.
    """
    step = (progress.epoch + 1) * len(sampler)
    return {
        "epoch": progress.epoch + 1,
        "step": step,
        "learning_rate": rate_of(recipe, step, len(sampler)),
        "share_expected": sampler.expected_share,
        "share_drawn": float(np.mean(progress.positives)),
        "loss": float(np.mean(progress.losses)),
        "dice": result.dice,
        "auroc": result.auroc,
        "score": result.score,
        "best": progress.chosen.score,
        "seconds": round(seconds, 2),
    }


def epoch_in_words(title: str, task: str, epochs: int, log: Sequence[Mapping[str, Any]], left: str) -> str:
    """The epoch that was done last, in a line.

    Args:
        title: Name of the run.
        task: `seg` or `cls`.
        epochs: Number of epochs of the run.
        log: Rows of `log.csv`, at least one.
        left: How long it will still take.
    """
    row = log[-1]
    best = next(each for each in log if each["score"] == row["best"])
    return (
        f"{title} epoch {row['epoch']}/{epochs}: step {row['step']}, loss {row['loss']:.3f}, "
        f"{METRIC[task]} {row['score']:.3f}, best {best['score']:.3f} at epoch {best['epoch']}, "
        f"{row['seconds']:.0f} s; {left}"
    )


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in COLUMNS}


def _write_png(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture, (height, width, 3) uint8."""
    # Encoded before it is written: OpenCV's own writing says False, where `whole_file` refuses with reason.
    content = cv2.imencode(".png", picture[..., ::-1])[1]
    with whole_file(path) as temporary:
        temporary.write_bytes(content.tobytes())


# --- TensorBoard -----------------------------------------------------------------------------------


class _File(io.FileIO):
    """Writes at once: all of it, or an OSError (a FileIO may write a part only, as when the disk fills)."""

    def write(self, content: ReadableBuffer, /) -> int:
        left = whole = memoryview(content)
        while left:
            left = left[super().write(left) :]
        return whole.nbytes


class _Events:
    """One file of TensorBoard events for each session of a run, in TensorBoard's own format.

    Why not torch's `SummaryWriter`: it writes in a thread, where a full disk prints a traceback and is
    noticed later; it loads TensorFlow where that is installed; and it names its files by second, host and
    process, so that sessions need not be read in their order.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Begin a session after `step` steps; readers forget what earlier ones say of later steps."""
        names = [path.suffix[1:] for path in folder.glob("events.out.tfevents.*")]
        number = max((int(name) for name in names if name.isdigit()), default=0) + 1
        self._path = folder / f"events.out.tfevents.{number:06d}"
        with self._refusing():
            self._file = _File(self._path, "xb")  # never into another session's file
        self._writer = RecordWriter(self._file)
        self._lock = threading.Lock()  # epochs are written while steps go on
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(
        self,
        step: int,
        scalars: Mapping[str, float | None],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write values of a step: scalars (None: not measured) and pictures, (h, w, 3) uint8, RGB."""
        values = [
            Summary.Value(tag=tag, simple_value=float(value))
            for tag, value in scalars.items()
            if value is not None
        ]
        values += [Summary.Value(tag=tag, image=_image(picture)) for tag, picture in (pictures or {}).items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        with self._refusing():
            os.fsync(self._file.fileno())  # nothing is buffered before it: `_File` writes at once

    def close(self) -> None:
        with self._refusing():
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with self._refusing(), self._lock:
            self._writer.write(event.SerializeToString())

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Refusal(
                f"cannot write {shown(self._path)}",
                found=error.strerror or error,
                do="free space or mend the rights",
            ) from error


def _image(picture: np.ndarray) -> Summary.Image:
    """As JPEG: a quarter of a PNG, and TensorBoard's checksum of it is computed in Python."""
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # for thin lines
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90, *full_colour]
    content = cv2.imencode(".jpg", picture[..., ::-1], quality)[1].tobytes()
    height, width = picture.shape[:2]
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
