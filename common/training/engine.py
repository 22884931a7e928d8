"""The only training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.artefacts import shown, write_csv
from common.config import Recipe
from common.data.dataset import EpochSampler
from common.models.unet import PneumothoraxNet
from common.refusal import Refusal
from common.runtime import autocast, gradient_scaler, seed_torch
from common.training.losses import TaskLoss
from common.training.schedule import learning_rate, positive_share

LOG_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "share_expected",
    "share_drawn",
    "loss",
    "score",
    "best",
    "seconds",
)


@dataclass(frozen=True)
class Best:
    """The epoch that is kept: its weights (CPU), number (from 1) and validation score."""

    state: dict[str, torch.Tensor]
    epoch: int
    score: float


def fit(
    net: PneumothoraxNet,
    loader: DataLoader,
    sampler: EpochSampler,
    validate: Callable[[PneumothoraxNet], float],
    recipe: Recipe,
    device: torch.device,
    folder: Path,
    title: str,
) -> tuple[Best, list[dict[str, Any]]]:
    """Train a network and keep the epoch with the best validation score (the first of equals).

    Args:
        net: On `device`, with its first weights.
        loader: Batches in `sampler`'s order.
        sampler: Chooses the films of each epoch.
        validate: The score of the network, higher is better.
        recipe: Numbers of the run.
        device: Where to compute.
        folder: Of the run; `log.csv` is written there, a row an epoch.
        title: Of the progress bars.

    Returns:
        The best epoch, and the rows of the log.

    Raises:
        Refusal: The loss is not finite.
    """
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scaler = gradient_scaler(device, recipe.precision)
    loss_of = TaskLoss(recipe.dice_weight)
    steps = recipe.epochs * len(sampler)
    best: Best | None = None
    log: list[dict[str, Any]] = []
    for epoch in range(recipe.epochs):
        start = time.monotonic()
        share = positive_share(epoch, recipe.epochs, recipe.share_first, recipe.share_drop)
        sampler.start(epoch, share if sampler.films else 1.0)
        net.train()
        losses, positives = [], 0.0
        bar = tqdm(
            loader, desc=f"{title} epoch {epoch + 1}/{recipe.epochs}", leave=False, disable=None, unit="step"
        )
        for index, batch in enumerate(bar):
            step = epoch * len(sampler) + index + 1
            rate = learning_rate(
                step, steps, recipe.learning_rate, recipe.learning_rate_floor, recipe.warmup_steps
            )
            for group in optimiser.param_groups:
                group["lr"] = rate
            seed_torch(recipe.seed, epoch, step)
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            optimiser.zero_grad(set_to_none=True)
            with autocast(device, recipe.precision):
                output = net(batch["film"])
            loss = loss_of(output, batch["mask"], batch["label"])
            value = float(loss.detach())
            if not np.isfinite(value):
                raise Refusal(
                    f"{title}: the loss is not finite ({value})",
                    found=f"step {step} of {steps}, learning rate {rate:g}, log in {shown(folder)}",
                    do="lower --learning-rate, or use --precision fp32",
                )
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
            scaler.step(optimiser)
            scaler.update()
            losses.append(value)
            positives += float(batch["label"].mean())
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", refresh=False)
        score = validate(net)
        if best is None or score > best.score:
            state = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}
            best = Best(state, epoch + 1, score)
        log.append(
            {
                "epoch": epoch + 1,
                "step": step,
                "learning_rate": rate,
                "share_expected": sampler.share,
                "share_drawn": positives / len(losses),
                "loss": float(np.mean(losses)),
                "score": score,
                "best": best.score,
                "seconds": round(time.monotonic() - start, 2),
            }
        )
        write_csv(folder / "log.csv", LOG_COLUMNS, log)
    return best, log
