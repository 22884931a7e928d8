"""Pictures of the thresholds: the operating point on the ROC, and the Dice against the map's threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common.inference.threshold_rules import MAP_THRESHOLDS, Roc, RocPoint
from common.plotting import save_plot

_MARKS = ("o", "s", "^")


def roc_picture(
    path: Path,
    title: str,
    positive: np.ndarray,
    probability: np.ndarray,
    auroc: float,
    points: Mapping[str, RocPoint],
    rule: str,
) -> None:
    """Draw the pooled out-of-fold ROC with the chosen point and the alternatives.

    Args:
        path: PNG to write.
        title: Title of the picture.
        positive: (n,) bool, whether the film is positive.
        probability: (n,) float64, probability of pneumothorax, 0-1.
        auroc: Area under the ROC curve, 0-1.
        points: Operating point by rule, at most one for each of RULES.
        rule: Rule that was chosen, a key of RULES.
    """
    roc = Roc.of(positive, probability)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.plot(
        np.append(0, roc.false_positive_rate[0]), np.append(0, roc.sensitivity[0]), label=f"AUROC {auroc:.3f}"
    )
    for (name, point), mark in zip(points.items(), _MARKS, strict=False):
        chosen = name == rule
        axes.plot(
            point.false_positive_rate,
            point.sensitivity,
            mark,
            color="C1" if chosen else "0.35",
            fillstyle="full" if chosen else "none",  # a hollow mark hides none that lies at the same place
            markersize=8 if chosen else 12,
            label=f"{name}{' (chosen)' if chosen else ''}: threshold {point.threshold:.3f},\n"
            f"sensitivity {point.sensitivity:.3f}, specificity {point.specificity:.3f}",
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=title, aspect="equal")
    axes.text(0.98, 0.02, f"n = {len(positive):,} ({positive.sum():,} positive)", ha="right", va="bottom")
    axes.legend(loc="center right", edgecolor="none", framealpha=1, fontsize=9)
    save_plot(figure, path)


def dice_picture(path: Path, title: str, dice: np.ndarray, threshold: float) -> None:
    """Draw the mean Dice of the positive films against the threshold of the map, with the one in use marked.

    Args:
        path: PNG to write.
        title: Title of the picture.
        dice: (positives, 256) float64, Dice at each of MAP_THRESHOLDS, 0-1.
        threshold: The one in use.
    """
    mean = dice.mean(axis=0)
    used = int(np.searchsorted(MAP_THRESHOLDS, threshold))
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(MAP_THRESHOLDS, mean, color="C0")
    axes.axvline(threshold, color="0.7", linestyle=":", zorder=0)
    axes.plot(threshold, mean[used], "o", color="C1", label=f"in use: {threshold:.3g}, Dice {mean[used]:.3f}")
    best = int(mean.argmax())
    axes.plot(
        MAP_THRESHOLDS[best],
        mean[best],
        "s",
        color="0.35",
        fillstyle="none",
        markersize=10,
        label=f"highest: {MAP_THRESHOLDS[best]:.2f}, Dice {mean[best]:.3f}",
    )
    axes.set(
        xlabel="a pixel is found when its map is above",
        ylabel="mean Dice of the positive films",
        title=title,
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.text(0.98, 0.02, f"n = {len(dice):,} positive films", ha="right", va="bottom")
    axes.legend(loc="center", edgecolor="none", fontsize=9)
    axes.grid(color="0.92")
    save_plot(figure, path)
