"""The films that a reader wants to see: one of each kind, and the worst misses, outlines and false alarms."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common.inference.film_sheets import TILE, Example, films_sheet, tile_origin
from common.statistics.tested_films import Cases

MOST = 6  # films of a kind
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class ShownFilm:
    """A film as the report shows it.

    Attributes:
        case: Pseudonym of the film.
        jpeg: The film with the outlines of the truth and of what was found; None: its pictures are not there.
        facts: Facts that are told of the film, by name.
    """

    case: str
    jpeg: bytes | None
    facts: dict[str, str]


def worst_films(cases: Cases) -> dict[str, np.ndarray]:
    """The films that went most wrong, under the mask reference and the two-stage decision.

    Returns:
        Rows of at most MOST films of each kind, the worst first: `missed`, positives called negative, by
        lowest probability; `low_dice`, positives called positive, by lowest Dice; `false_alarms`, negatives
        called positive, by highest probability. Between equals, the earlier film.
    """
    positive, called = cases.has_mask, cases.two_stage
    kinds = {
        "missed": (positive & ~called, cases.probability),
        "low_dice": (positive & called, cases.dice_segmentation),
        "false_alarms": (~positive & called, -cases.probability),
    }
    found = {}
    for kind, (members, badness) in kinds.items():
        rows = np.flatnonzero(members)
        found[kind] = rows[np.argsort(badness[rows], kind="stable")][:MOST]
    return found


def telling_films(cases: Cases, threshold: float) -> dict[str, int]:
    """One film of each kind, chosen by rule, under the mask reference and the two-stage decision.

    Args:
        threshold: Threshold of the probability by which the films were called, 0-1.

    Returns:
        Row of each kind, where there is such a film: `found`, the positive called positive whose Dice is the
        median (of an even number, the lower one): neither the best nor the worst outline; `missed` and
        `false_alarm`, the first of `worst_films`; `borderline`, of the other films that stage 2 saw the one
        whose probability lies nearest to the threshold.
    """
    worst = worst_films(cases)
    chosen = {}
    found = np.flatnonzero(cases.has_mask & cases.two_stage)
    if len(found):
        by_dice = found[np.argsort(cases.dice_segmentation[found], kind="stable")]
        chosen["found"] = int(by_dice[(len(by_dice) - 1) // 2])
    for kind, of_kind in (("missed", worst["missed"]), ("false_alarm", worst["false_alarms"])):
        if len(of_kind):
            chosen[kind] = int(of_kind[0])
    # only these have a map, hence a picture
    seen = np.flatnonzero(cases.stage_1 | cases.has_mask)
    left = seen[~np.isin(seen, list(chosen.values()))]
    if len(left):
        chosen["borderline"] = int(left[np.argmin(np.abs(cases.probability[left] - threshold))])
    return chosen


def shown_films(cases: Cases, rows: np.ndarray, folder: Path, threshold: float) -> list[ShownFilm]:
    """The films of these rows, with the pictures that inference left in a result folder.

    Args:
        cases: Tested films.
        rows: Rows of the films to show.
        folder: Result folder.
        threshold: Threshold of the map, by which it is outlined.
    """
    return [
        ShownFilm(str(cases.case[row]), _picture(cases, row, folder, threshold), _facts(cases, row))
        for row in rows
    ]


def _facts(cases: Cases, row: int) -> dict[str, str]:
    facts = {"probability": f"{cases.probability[row]:.3f}"}
    if np.isfinite(cases.area_fraction[row]):
        facts["found area"] = f"{cases.area_fraction[row]:.2%} of the film"
    if cases.has_mask[row]:
        facts["true area"] = f"{cases.mask_area_fraction[row]:.2%}"
        facts["Dice"] = f"{cases.dice_segmentation[row]:.2f}"
        if not cases.two_stage[row]:
            facts["negative by"] = "area" if cases.stage_1[row] else "probability"
    elif cases.report[row]:
        facts["report"] = "positive, but no mask"
    return facts


def _picture(cases: Cases, row: int, folder: Path, threshold: float) -> bytes | None:
    case = cases.case[row]
    film, found, truth = (
        _grey(folder / kind / f"{case}{suffix}")
        for kind, suffix in (("films", ".jpg"), ("maps", ".png"), ("truth", ".png"))
    )
    if film is None or found is None or truth is None:
        return None
    probability = float(cases.probability[row])
    example = Example(film, truth > 0, found.astype(np.float32) / 255, probability, threshold)
    y, x = tile_origin(0)
    tile = films_sheet("", [example])[y : y + TILE, x : x + TILE]
    coded, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    return jpeg.tobytes() if coded else None


def _grey(path: Path) -> np.ndarray | None:
    """A picture as (height, width) uint8; None where there is none."""
    # Asked first, since OpenCV prints a warning of a file that is not there.
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if os.path.isfile(path) else None
