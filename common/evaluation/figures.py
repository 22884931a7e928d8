"""Pictures: ROC curves, learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt
from sklearn.metrics import roc_curve

from common.artefacts import whole_file
from common.evaluation.thresholds import ClassificationThreshold


def _save(figure: plt.Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def roc_picture(
    path: Path, title: str, positive: np.ndarray, probability: np.ndarray, chosen: ClassificationThreshold
) -> None:
    """Draw the pooled out-of-fold ROC with the chosen point.

    Args:
        path: PNG to write.
        title: Of the picture.
        positive: (n,) bool.
        probability: (n,) float64, 0-1.
        chosen: The operating point.
    """
    false_rate, true_rate, _ = roc_curve(positive, probability)
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.plot(false_rate, true_rate, label=f"AUROC {chosen.auc:.3f}")
    axes.plot(
        chosen.false_positive_rate,
        chosen.sensitivity,
        "o",
        label=f"threshold {chosen.threshold:.3f}:\nsensitivity {chosen.sensitivity:.3f}, "
        f"specificity {1 - chosen.false_positive_rate:.3f}",
    )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=title, aspect="equal")
    axes.text(0.98, 0.02, f"n = {len(positive)} ({positive.sum()} positive)", ha="right", va="bottom")
    axes.legend(loc="center right", frameon=False)
    _save(figure, path)


def curves_picture(path: Path, title: str, log: list[dict[str, Any]], metric: str) -> None:
    """Draw a run's loss, validation score and learning rate against the epoch (columns of `log.csv`)."""
    epochs = [row["epoch"] for row in log]
    panels = {"loss": "loss", "score": f"validation {metric}", "learning_rate": "learning rate"}
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3), layout="constrained")
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        axis.plot(epochs, [row[column] for row in log], marker=".")
        axis.set(xlabel="epoch", title=label)
    figure.suptitle(title)
    _save(figure, path)
