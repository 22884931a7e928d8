"""The curves of a training run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from common.plotting import save_plot


def curves_picture(path: Path, title: str, log: Sequence[Mapping[str, Any]]) -> None:
    """Draw a run's loss, learning rate, share of positives and validation scores against the epoch.

    Args:
        path: PNG to write.
        title: Title of the picture.
        log: Rows of `log.csv`, one or more; `dice` and `auroc` are None where they were not measured.
    """
    kept = next(row for row in log if row["score"] == log[-1]["best"])  # the first of equals, as the run does
    figure = Figure(figsize=(10, 6.4))
    (loss, rate), (share, validation) = figure.subplots(2, 2)
    # fixed margins: this is drawn after every epoch, and a layout engine takes half as long again
    figure.subplots_adjust(left=0.075, right=0.98, bottom=0.08, top=0.88, hspace=0.38, wspace=0.18)
    loss.set_title("training loss")
    _curve(loss, log, "loss", "C0")
    rate.set_title("learning rate")
    _curve(rate, log, "learning_rate", "C0")
    rate.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    share.set_title("share of positive films in training")
    # broad and pale below the drawn share: both are seen where they are equal
    _curve(share, log, "share_expected", "0.8", width=5, label="expected")
    _curve(share, log, "share_drawn", "C0", label="drawn")
    validation.axvline(kept["epoch"], color="0.55", linestyle=":")
    reached = []
    for column, name, colour in (("dice", "Dice", "C2"), ("auroc", "AUROC", "C1")):
        _curve(validation, log, column, colour, label=name)
        if kept[column] is not None:
            reached.append(f"{name} {kept[column]:.3f}")
            validation.plot(kept["epoch"], kept[column], "o", color=colour, markersize=10, fillstyle="none")
    validation.set_title(f"validation (kept epoch {kept['epoch']}: {', '.join(reached)})")
    for axis in (share, validation):
        axis.set_ylim(-0.03, 1.03)
        axis.legend(loc="best", edgecolor="none", fontsize=9)
    for axis in figure.axes:
        axis.set_xlabel("epoch")
        axis.set_xlim(log[0]["epoch"] - 0.5, log[-1]["epoch"] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    save_plot(figure, path)


def _curve(
    axis: Axes,
    log: Sequence[Mapping[str, Any]],
    column: str,
    colour: str,
    label: str | None = None,
    width: float = 1.5,
) -> None:
    """Draw a column of a log; epochs at which it was not measured are passed over."""
    points = [(row["epoch"], row[column]) for row in log if row[column] is not None]
    if points:
        size = width + 2.5 if len(points) <= 40 else 0  # a mark each would hide a long curve
        epochs, values = zip(*points, strict=True)
        axis.plot(epochs, values, color=colour, label=label, linewidth=width, marker="o", markersize=size)
