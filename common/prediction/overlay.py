"""The picture of a finding: the film with the outline, and what was found in words below it."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.films.own_outputs import RESEARCH_ONLY
from common.inference.two_stage_rule import POSITIVE
from common.prediction.finding import NO_ANSWER, Finding
from common.preparation.film_store import SIDE

_LINE, _HALO = (255, 96, 0), (0, 0, 0)  # RGB, of the outline and of its dark border
_INK, _LOUD = (235, 235, 235), (255, 176, 64)
_LETTER, _MARGIN = 22, 12  # pixels


def overlay(film: np.ndarray, finding: Finding, system: str) -> np.ndarray:
    """Draw a finding.

    Args:
        film: (height, width) uint8, air dark.
        finding: Finding of this film.
        system: Name of the system in the picture.

    Returns:
        (h, w, 3) uint8 RGB: the film, its longer side 1024 pixels, in its own proportions and orientation,
        and under it a strip of text; no text lies on the film.
    """
    height, width = film.shape
    shown = max(1, round(width * SIDE / max(film.shape))), max(1, round(height * SIDE / max(film.shape)))
    shrinks = shown[0] < width
    grey = cv2.resize(film, shown, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    # Nearest, so that it stays 0 or 1.
    outline = cv2.resize(finding.outline.astype(np.uint8), shown, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in ((_HALO, 4), (_LINE, 2)):
        cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)
    return np.vstack([picture, _strip(finding, system, shown[0])])


def _strip(finding: Finding, system: str, width: int) -> np.ndarray:
    """The words, on as many lines as they need in this width."""
    font = _font()
    lines = [
        (line, colour)
        for text, colour in _sentences(finding, system)
        for line in _wrapped(text, font, width - 2 * _MARGIN)
    ]
    step = _LETTER + 6
    strip = Image.new("RGB", (width, 2 * _MARGIN + step * len(lines)))
    draw = ImageDraw.Draw(strip)
    for i, (line, colour) in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + i * step), line, fill=colour, font=font)
    return np.asarray(strip)


def _sentences(finding: Finding, system: str) -> list[tuple[str, tuple[int, int, int]]]:
    if finding.decision == NO_ANSWER:
        said = [("NO ANSWER: this film must be read by a human", _LOUD)]
    else:
        found = "PNEUMOTHORAX" if finding.decision == POSITIVE else "no pneumothorax found"
        words = f"{found}   probability {finding.probability:.3f}"
        if finding.spread is not None:
            words += f" (folds {min(finding.folds):.3f}-{max(finding.folds):.3f})"
        said = [(words, _LOUD if finding.decision == POSITIVE else _INK)]
    if finding.area_fraction is not None:
        in_cm2 = "" if finding.area_cm2 is None else f", {finding.area_cm2:.1f} cm2"
        side = (
            {"both": "both sides"}.get(finding.side, f"{finding.side} side")
            if finding.side
            else "side unknown"
        )
        said.append((f"{side}, {100 * finding.area_fraction:.1f}% of the film{in_cm2}", _INK))
    if finding.borderline:
        said.append(("borderline: on another machine the decision could differ", _LOUD))
    said += [(concern.text, _LOUD if concern.serious else _INK) for concern in finding.concerns]
    return [*said, (f"{system}   {RESEARCH_ONLY}", _INK)]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_LETTER)  # Pillow's own, so the same on every machine
