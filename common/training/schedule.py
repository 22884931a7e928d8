"""What changes while training goes on: the learning rate and the share of positives."""

from __future__ import annotations

from common.recipes.recipe import Recipe


def warmup(steps: int, full: int) -> int:
    """Steps of warm-up in a run of `steps`: `full` when the run has twice as many, else a tenth."""
    # A shorter run would spend most of its steps below the rate that was asked for.
    return full if steps >= 2 * full else steps // 10


def learning_rate(step: int, steps: int, highest: float, floor: float, full_warmup: int) -> float:
    """The learning rate at a step: linear warm-up, then linear decay to the floor.

    Args:
        step: Number of the step in the run, 1 to `steps`.
        steps: Number of steps of the whole run.
        highest: Learning rate at the end of the warm-up.
        floor: Learning rate at the last step.
        full_warmup: Number of warm-up steps of a run that is long enough.
    """
    rise = warmup(steps, full_warmup)
    if step < rise:
        return highest * step / rise
    if steps == rise:  # only without any step: the decay below would divide by 0
        return highest
    return floor + (highest - floor) * (1 - (step - rise) / (steps - rise))


def positive_share(epoch: int, epochs: int, first: float, drop: float) -> float:
    """Expected share of positives drawn in epoch 0 ... `epochs` - 1, on whatever set it is.

    Args:
        epoch: Number of the epoch, from 0.
        epochs: Number of epochs of the run.
        first: Share of positives in the first epoch, 0-1.
        drop: Fall of the share over the whole run, 0-1.
    """
    # The published formula: by `epochs`, not `epochs - 1`, so the last epoch falls just short of `drop`.
    return first - drop * epoch / epochs


def rate_of(recipe: Recipe, step: int, epoch_steps: int) -> float:
    """Learning rate of a run by its recipe.

    Args:
        recipe: Numbers of the run.
        step: Number of the step in the run, from 1.
        epoch_steps: Number of steps of an epoch.
    """
    steps, floor = recipe.epochs * epoch_steps, recipe.learning_rate_floor
    return learning_rate(step, steps, recipe.learning_rate, floor, recipe.warmup_steps)
