"""`last.pt`: a run between two steps, so that it can go on as if it had never stopped.

One file with all that the continuation depends on, written whole or not at all. Random numbers are keyed by
the step, so there is no generator to keep. The file before it stays as `previous.pt`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from common.files import canonical_json, digest, whole_file
from common.networks.unet import PneumothoraxNet
from common.networks.weights import State, tensors_digest
from common.paths import shown
from common.refusal import Refusal

_FORMER = "previous.pt"
_KEYS = {"tensors", "facts", "progress", "sha256"}


@dataclass(frozen=True)
class Best:
    """The epoch that is kept: its weights (CPU), number (from 1) and validation score."""

    state: State
    epoch: int
    score: float

    @classmethod
    def of(cls, net: PneumothoraxNet, epoch: int, score: float) -> Best:
        """A copy of the network as it is now."""
        # cloned: on a CPU the tensors are the network's own, and training goes on in them
        state = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}
        return cls(state, epoch, score)


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: Epoch that is being trained, from 0.
        losses: Loss of each step done in this epoch.
        positives: Share of positives in the batch of each step done in this epoch, 0-1.
        seconds: Time of the epoch's steps so far, in seconds.
        log: Row of `log.csv` for each finished epoch.
        best: Best epoch so far; None before the first one is finished.
    """

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    positives: list[float] = field(default_factory=list)
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None

    @property
    def chosen(self) -> Best:
        """The best epoch, of a run that has finished one."""
        if self.best is None:
            raise ValueError("no epoch is finished")
        return self.best

    def next_epoch(self, row: dict[str, Any]) -> None:
        """Go on to the next epoch; `row` is that of the finished one in `log.csv`."""
        self.log.append(row)
        self.epoch += 1
        self.losses, self.positives, self.seconds = [], [], 0.0


def file_of(folder: Path) -> Path:
    """The checkpoint in the folder of a run."""
    return folder / "last.pt"


def drop(folder: Path) -> None:
    """Delete the checkpoints of a run that is finished, last the one by which it is known as unfinished."""
    for path in (folder / _FORMER, file_of(folder)):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Taken:
    """A state of a run that is held in memory, to be written while training goes on.

    Attributes:
        path: Path of `last.pt`; a former one becomes `previous.pt` beside it.
        content: What the file holds, but for its digest.
    """

    path: Path
    content: dict[str, Any]

    def write(self) -> None:
        """Write it.

        Raises:
            Refusal: The file cannot be written; the former one stays.
        """
        content = self.content | {"sha256": _digest(self.content)}
        with whole_file(self.path) as temporary:
            _write(temporary, content)
            _keep_former(self.path)


def take(
    path: Path,
    facts: Mapping[str, Any],
    progress: Progress,
    net: PneumothoraxNet,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: AveragedModel | None = None,
) -> Taken:
    """A copy of a run as it is now.

    Args:
        path: Path of `last.pt`, for when it is written.
        facts: Facts of the run: the metadata that its weights will have.
        progress: Progress of the run.
        net: Network that is trained.
        optimiser: AdamW of the network.
        scaler: Loss scaler of fp16, or an inactive one.
        average: Moving average of the network's weights, where the recipe has one.

    Raises:
        Refusal: It would hold numbers that are not finite; nothing is written.
    """
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        # Flat names, so that one digest covers the optimiser as it covers the weights.
        tensors |= {f"optimiser.{number}.{key}": tensor for key, tensor in state.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    # copied: on a CPU the tensors are the network's own, and training goes on in them
    copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    best = progress.best
    if best is not None:  # a copy already
        copies |= {f"best.{name}": tensor for name, tensor in best.state.items()}
    told = {
        "epoch": progress.epoch,
        "losses": progress.losses,
        "positives": progress.positives,
        "seconds": progress.seconds,
        "log": progress.log,
        "best": None if best is None else {"epoch": best.epoch, "score": best.score},
        "scaler": scaler.state_dict(),
    }
    try:
        _finite(net)
        # As JSON: it refuses NaN, and `weights_only` then loads nothing but tensors and texts.
        texts = {"facts": canonical_json(facts), "progress": canonical_json(told)}
    except ValueError:  # such a state has no future
        raise Refusal(
            f"{shown(path)} is not written: the network, or how it did, is not finite",
            kept=f"{shown(path)}: the state before" if path.is_file() else None,
            do="start anew (--fresh): lower --learning-rate, or --precision fp32",
        ) from None
    return Taken(path, {"tensors": copies, **texts})


def _finite(net: PneumothoraxNet) -> None:
    """Raise a ValueError when a weight is not finite."""
    if not all(bool(weight.isfinite().all()) for weight in net.parameters()):
        raise ValueError


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch says that the disk is full
            # 28 is ENOSPC: `whole_file` makes a refusal of it, as of every full disk.
            raise OSError(28, "the disk is full, or the file grew too large") from error


def _keep_former(path: Path) -> None:
    """Keep the former checkpoint under another name, at no moment without one of the two."""
    former = path.with_name(_FORMER)
    with suppress(OSError):  # a file system without hard links does without
        former.unlink(missing_ok=True)  # a link replaces nothing
        os.link(path, former)


def _digest(content: Mapping[str, Any]) -> str:
    return digest(content["facts"], content["progress"], tensors_digest(content["tensors"]))


def read_facts(path: Path) -> dict[str, Any] | None:
    """What the run of a checkpoint is; None when there is no checkpoint.

    Raises:
        Refusal: It is damaged, or was changed.
    """
    return _load(path)["facts"] if path.is_file() else None


def read_progress(path: Path) -> tuple[int, int] | None:
    """Epochs that are finished, and steps done in the next; None when there is no checkpoint.

    Raises:
        Refusal: It is damaged, or was changed.
    """
    if not path.is_file():
        return None
    told = _load(path)["progress"]
    return told["epoch"], len(told["losses"])


def _load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, checked against its digest; facts and progress as they were given."""
    try:
        # A pickle would run the code that it carries; `mmap` spares a second copy of the tensors in memory.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if set(content) != _KEYS or content["sha256"] != _digest(content):
            raise ValueError
        for key in ("facts", "progress"):
            content[key] = json.loads(content[key], parse_constant=_no_constant)
    except Exception:  # whatever a damaged file, or one that is no checkpoint, makes torch raise
        raise _damaged(path) from None
    return content


def _no_constant(name: str) -> None:
    """Refuse NaN and infinities, which are no JSON and which `save` does not write."""
    raise ValueError(name)


def _damaged(path: Path) -> Refusal:
    former = path.with_name(_FORMER)
    return Refusal(
        f"{shown(path)} is damaged, or no checkpoint of this project",
        do=(f"go on from the one before it: mv {shown(former)} {shown(path)}; " if former.is_file() else "")
        + "or start the run anew: add --fresh",
    )


def restore(
    path: Path,
    net: PneumothoraxNet,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: AveragedModel | None = None,
) -> Progress:
    """Put a network and what changes it back where a checkpoint left them.

    Args:
        path: Path of `last.pt`; where there is none, the run begins.
        net: Network built as the run's was.
        optimiser: AdamW of the network, without state.
        scaler: Loss scaler of fp16, or an inactive one.
        average: Moving average of the network's weights, where the recipe has one.

    Returns:
        How far the run came.

    Raises:
        Refusal: The checkpoint is damaged, was changed, or is of another network.
    """
    if not path.is_file():
        return Progress()
    content = _load(path)
    told, tensors = content["progress"], content["tensors"]
    try:
        net.load_state_dict(_part(tensors, "net."))
        if average is not None:
            average.load_state_dict(_part(tensors, "average."))
        groups = optimiser.state_dict()["param_groups"]  # not kept: the recipe gives them, each step the rate
        optimiser.load_state_dict({"state": _optimiser_state(tensors), "param_groups": groups})
        if scaling := told.pop("scaler"):  # none where the run was not scaled, as on a CPU: then it begins
            scaler.load_state_dict(scaling)
        best = told.pop("best")
        if best is not None:
            # cloned out of the mapped file
            state = {name: tensor.clone() for name, tensor in _part(tensors, "best.").items()}
            best = Best(state, best["epoch"], best["score"])
        return Progress(**told, best=best)
    except Exception:  # it is of another network
        raise _damaged(path) from None


def _part(tensors: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimiser_state(tensors: State) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for number, key, tensor in _optimiser_entries(tensors):
        state.setdefault(number, {})[key] = tensor
    return state


def _optimiser_entries(tensors: State) -> Iterator[tuple[int, str, torch.Tensor]]:
    for name, tensor in _part(tensors, "optimiser.").items():
        number, key = name.split(".", 1)
        yield int(number), key, tensor.clone()
