"""Whether a film is of the kind that a system was made for: a frontal radiograph of the chest, upright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.config import Rules
from common.data.dicom import CHEST, Film
from common.evaluation.novelty import Novelty

RADIOGRAPHS = ("CR", "DX", "RG", "RF")
SHORTEST_SIDE = 512  # pixels
WIDEST = 2.0  # longer over shorter side
BOTH = 0.1  # share of the outline's area from which on its smaller half counts as a side
_NOT_FRONTAL = {
    **dict.fromkeys(("LL", "RL", "LAT"), "lateral"),
    **dict.fromkeys(("OBL", "LAO", "RAO", "LPO", "RPO", "LLO", "RLO"), "oblique"),
    **dict.fromkeys(("LLD", "RLD"), "decubitus"),
}
_UPRIGHT = ("ERECT", "SEMIERECT")


@dataclass(frozen=True)
class Concern:
    """Something about a film that its reader must know.

    Attributes:
        text: A short clause without free text of the header.
        serious: The film is not of the kind that the system was made for: there is no answer.
    """

    text: str
    serious: bool


def concerns_of(film: Film, square: np.ndarray, novelty: Novelty) -> list[Concern]:
    """What the header and the picture say against an answer, the serious ones first.

    Args:
        film: As it was read.
        square: (1024, 1024) uint8: the film as a prepared set would hold it.
        novelty: What the training films look like.
    """
    serious = [*_by_header(film), *_by_picture(square, novelty)]
    return [Concern(text, True) for text in serious] + [Concern(text, False) for text in _notes(film)]


def patient_side(outline: np.ndarray, film: Film) -> str:
    """The side of the patient that an outline lies on: `left`, `right`, `both`, or `""` where that is unknown.

    The middle of the picture parts the sides; a middle column belongs to neither. It is `both` when the
    smaller half holds at least a tenth of the area of the two. The patient's left is on the picture's right,
    as radiographs are shown, also where the header says nothing; PatientOrientation may say the reverse. Of a
    film that is empty, turned or not frontal by PatientOrientation the side is unknown.

    Args:
        outline: (rows, columns) bool, in the orientation of the file.
        film: Its header.
    """
    across = film.orientation[0][0] if film.orientation else "L"
    columns = outline.shape[1]
    halves = [outline[:, : columns // 2].sum(), outline[:, (columns + 1) // 2 :].sum()]  # as seen
    if _turned(film) or across not in "LR" or not sum(halves):
        return ""
    if min(halves) >= BOTH * sum(halves):
        return "both"
    return "left" if (halves[1] > halves[0]) == (across == "L") else "right"


def _turned(film: Film) -> str:
    """By PatientOrientation: how the film is turned, or `""`."""
    if film.orientation is None:
        return ""
    across, down = (direction[0] for direction in film.orientation)
    if across in "HF" or down in "LRAP":
        return "by 90 degrees"
    return "upside down" if down == "H" else ""


def _by_header(film: Film) -> list[str]:
    found = []
    if film.modality and film.modality not in RADIOGRAPHS:
        found.append(f"modality {film.modality}, not a radiograph")
    if film.body_part not in (None, CHEST):
        found.append(f"body part {film.body_part}, not the chest alone")
    if film.view in _NOT_FRONTAL:
        found.append(f"{_NOT_FRONTAL[film.view]} view ({film.view})")
    elif film.orientation and film.orientation[0][0] in "AP":
        found.append("lateral view (PatientOrientation)")
    if _turned(film):
        found.append(f"turned {_turned(film)} (PatientOrientation)")
    return found


    found = []
    if not (film.modality or film.body_part or film.view):
        found.append("the header does not say that this is a frontal chest radiograph")
    minimum_age = Rules().minimum_age
    if film.age is not None and film.age < minimum_age:
        found.append(f"age under {minimum_age:g}")
    if film.view == "PA" or film.position in _UPRIGHT:
        kind = ", ".join(each for each in (film.view, film.position) if each)
        found.append(f"{kind}: made for portable supine films (AP)")
    if film.orientation and film.orientation[0][0] == "R":
        found.append("mirrored (PatientOrientation): the side takes that into account")
    if film.for_processing:
        found.append("grey levels for processing, not for presentation")
    if film.burned_in:
        found.append("text burned into the picture")
    shorter, longer = sorted(film.pixels.shape)
    if shorter < SHORTEST_SIDE:
        found.append(f"low resolution ({film.pixels.shape[1]} x {film.pixels.shape[0]} pixels)")
    if longer > WIDEST * shorter:
        found.append("unusual proportions: it is stretched to a square")
    if film.spacing is None:
        found.append("pixel spacing unknown: no area in cm2")
    return found
