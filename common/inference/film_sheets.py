"""Sheets of films with the outlines of the truth and of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from common.films.resample import resample
from common.statistics.overlap import MAP_THRESHOLD, dice


@dataclass(frozen=True)
class Example:
    """A validation film as a network sees it at some epoch.

    Attributes:
        film: (s, s) uint8 grey levels, 0 to 255, air dark.
        truth: (s, s) bool, the annotated pneumothorax; empty in a negative film.
        found: (s, s) float32, 0-1, the map of pneumothorax.
        probability: Probability of pneumothorax in the film, 0-1; None: the network does not tell.
        threshold: What the map must exceed where something is found.
    """

    film: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    probability: float | None
    threshold: float = MAP_THRESHOLD


TILE, CAPTION, HEADER, GAP, ACROSS = 320, 28, 64, 8, 4  # of a sheet of films: pixels, and tiles in a row
TRUTH, FOUND = (40, 220, 120), (255, 95, 20)  # colours of the outlines, RGB
_PAPER, _INK = (24, 24, 24), (235, 235, 235)


def films_sheet(heading: str, examples: Sequence[Example]) -> np.ndarray:
    """Draw films with the outlines of the truth and of what was found, and their captions.

    The sheet tells nothing of a patient: a caption is the film's Dice, or `negative`, and the probability.

    Args:
        heading: Words at the top, left of the legend.
        examples: One or more films, drawn four in a row.

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
    for name, colour in (("annotated", TRUTH), (f"found (map above {examples[0].threshold:.3g})", FOUND)):
        draw.line((x, 47, x + 22, 47), colour, 3)
        draw.text((x + 30, 47), name, _INK, _font(14), anchor="lm")
        x += 56 + round(draw.textlength(name, _font(14)))
    for index, example in enumerate(examples):
        y, x = tile_origin(index)
        middle = y + TILE + CAPTION // 2
        overlap = dice(example.found > example.threshold, example.truth)
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
        (example.found.astype(np.float32), example.threshold, FOUND, 3),
    ):
        area = (resample(soft, 2 * TILE) > threshold).astype(np.uint8)
        contours, _ = cv2.findContours(area, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(large, contours, -1, colour, width, cv2.LINE_AA)
    return resample(large, TILE)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the other pictures, which comes with matplotlib."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
