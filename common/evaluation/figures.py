"""Pictures: learning curves, sheets of films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")  # no screen is needed
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image, ImageDraw, ImageFont

from common.artefacts import whole_file
from common.data.store import resample
from common.evaluation.overlap import MAP_THRESHOLD, dice


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes each time, and close it."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)


# --- a training run --------------------------------------------------------------------------------


def curves_picture(path: Path, title: str, log: Sequence[Mapping[str, Any]]) -> None:
    """Draw a run's loss, learning rate, share of positives and validation figures against the epoch.

    Args:
        path: PNG to write.
        title: Of the picture.
        log: Rows of `log.csv`, one or more; `dice` and `auroc` are None where they were not measured.
    """
    best = max(log, key=lambda row: row["score"])  # the first of equals, as the run keeps
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
    validation.axvline(best["epoch"], color="0.55", linestyle=":")
    reached = []
    for column, name, colour in (("dice", "Dice", "C2"), ("auroc", "AUROC", "C1")):
        _curve(validation, log, column, colour, label=name)
        if best[column] is not None:
            reached.append(f"{name} {best[column]:.3f}")
            validation.plot(best["epoch"], best[column], "o", color=colour, markersize=10, fillstyle="none")
    validation.set_title(f"validation (best epoch {best['epoch']}: {', '.join(reached)})")
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
    save_figure(figure, path)


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


@dataclass(frozen=True)
class Example:
    """A validation film as a network sees it at some epoch.

    Attributes:
        film: (s, s) uint8.
        truth: (s, s) bool, the annotated pneumothorax; empty in a negative film.
        found: (s, s) float32, 0-1, the map of pneumothorax.
        probability: Of pneumothorax in the film, 0-1; None: the network does not tell.
    """

    film: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    probability: float | None


TILE, CAPTION, HEADER, GAP, ACROSS = 320, 28, 64, 8, 4  # of a sheet of films: pixels, and tiles in a row
TRUTH, FOUND = (40, 220, 120), (255, 95, 20)  # colours of the outlines, RGB
_PAPER, _INK = (24, 24, 24), (235, 235, 235)


def films_sheet(heading: str, examples: Sequence[Example]) -> np.ndarray:
    """Draw films with the outlines of the truth and of what was found, and their captions.

    The sheet tells nothing of a patient: a caption is the film's Dice, or `negative`, and the probability.

    Args:
        heading: At the top, left of the legend.
        examples: One or more, four in a row.

    Returns:
        (height, width, 3) uint8, RGB. Tile i begins at `tile_origin(i)` and is `TILE` pixels wide and high.
    """
    columns = min(max(len(examples), 2), ACROSS)  # the heading needs the width of two
    rows = -(-len(examples) // ACROSS)
    height = HEADER + rows * (TILE + CAPTION + GAP)
    sheet = np.full((height, GAP + columns * (TILE + GAP), 3), _PAPER, np.uint8)
    for index, example in enumerate(examples):
        y, x = tile_origin(index)
        sheet[y : y + TILE, x : x + TILE] = _outlined(example)
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    draw.text((GAP + 2, 20), heading, _INK, _font(17), anchor="lm")
    x = GAP + 2
    for name, colour in (("annotated", TRUTH), (f"found (map above {MAP_THRESHOLD:g})", FOUND)):
        draw.line((x, 47, x + 22, 47), colour, 3)
        draw.text((x + 30, 47), name, _INK, _font(14), anchor="lm")
        x += 56 + round(draw.textlength(name, _font(14)))
    for index, example in enumerate(examples):
        y, x = tile_origin(index)
        middle = y + TILE + CAPTION // 2
        overlap = dice(example.found > MAP_THRESHOLD, example.truth)
        left = f"Dice {overlap:.2f}" if example.truth.any() else "negative"
        draw.text((x + 2, middle), left, _INK, _font(15), anchor="lm")
        if example.probability is not None:
            right = f"probability {example.probability:.2f}"
            draw.text((x + TILE - 2, middle), right, _INK, _font(15), anchor="rm")
    return np.asarray(image)


def tile_origin(index: int) -> tuple[int, int]:
    """Row and column, in pixels of a sheet, of the upper left corner of a tile."""
    row, column = divmod(index, ACROSS)
    return HEADER + row * (TILE + CAPTION + GAP), GAP + column * (TILE + GAP)


def _outlined(example: Example) -> np.ndarray:
    """A film at the size of a tile with both outlines, (TILE, TILE, 3) uint8, RGB."""
    large = cv2.cvtColor(resample(example.film, 2 * TILE), cv2.COLOR_GRAY2RGB)  # halved in the end: smooth
    # the truth is the broader line and the lower one: where both run together, both are seen
    for soft, threshold, colour, width in (
        (example.truth.astype(np.float32), 0.5, TRUTH, 9),
        (example.found.astype(np.float32), MAP_THRESHOLD, FOUND, 3),
    ):
        area = (resample(soft, 2 * TILE) > threshold).astype(np.uint8)
        contours, _ = cv2.findContours(area, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(large, contours, -1, colour, width, cv2.LINE_AA)
    return resample(large, TILE)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the other pictures, which comes with matplotlib."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
