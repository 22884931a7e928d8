"""Whether a film is of the kind that the system was made for, and which side of the patient is which.

Nothing here changes a film: one that is turned, mirrored or inverted stays so, and the finding says it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.command_line import Rules
from common.films.decode import Film
from common.films.header import CHEST
from common.films.plausible import implausible
from common.inference.unlike_training import TURNED, UPSIDE_DOWN, TrainingLikeness

RADIOGRAPHS = ("CR", "DX", "RG", "RF")  # modalities
SHORTEST_SIDE = 512  # pixels
LONGEST_SHAPE = 2  # longer over shorter side
ONE_IN = 10  # of the area: the least share of a side that counts
_NOT_FRONTAL = {  # views
    **dict.fromkeys(("LAT", "LL", "RL"), "lateral"),
    **dict.fromkeys(("OBL", "LAO", "LLO", "LPO", "RAO", "RLO", "RPO"), "oblique"),
    **dict.fromkeys(("LLD", "RLD"), "decubitus"),
}
_NOT_SUPINE = ("ERECT", "SEMIERECT", "PRONE")
_MIRRORED, _OTHER_PLANE = "mirrored", "not frontal"


@dataclass(frozen=True)
class Concern:
    """Something about a film that whoever reads the finding must know.

    Attributes:
        text: Short clause that repeats nothing of the header but codes.
        serious: Whether the system was not made for such a film, so that there is no answer.
    """

    text: str
    serious: bool


def concerns_of(film: Film, square: np.ndarray, likeness: TrainingLikeness) -> list[Concern]:
    """What is to be known about a film, the serious first.

    Serious are: another modality than CR, DX, RG and RF; a body part other than the chest; a lateral, oblique
    or decubitus view; a PatientOrientation that is not upright and frontal; a picture that is unlike the
    training films, or seems turned or inverted. What a header does not say is never serious.

    Args:
        film: Pixels as they were read and facts of the header.
        square: (1024, 1024) uint8, air dark: the film as a prepared set would hold it.
        likeness: Description of what the training films look like.
    """
    serious = [*_against_by_header(film), *_against_by_picture(film, square, likeness)]
    return [Concern(text, True) for text in serious] + [Concern(text, False) for text in _remarks(film)]


def patient_side(outline: np.ndarray, film: Film) -> str:
    """The side of the patient that an outline lies on: `left`, `right`, `both`, or `""`: unknown.

    The patient's left is on the right of the picture, as radiographs are hung, unless PatientOrientation says
    that the film is mirrored. The middle of the picture parts the sides; of an odd number of columns the
    middle one belongs to neither. It is `both` when the lesser side holds at least a tenth of the area of the
    two. It is unknown of an empty outline, and where PatientOrientation says that the film is turned or not
    frontal.

    Args:
        outline: (rows, columns) bool, as the film lies in its file.
        film: Film with the facts of its header.
    """
    pose, columns = _pose(film), outline.shape[1]
    on_left = int(np.count_nonzero(outline[:, : columns // 2]))
    on_right = int(np.count_nonzero(outline[:, (columns + 1) // 2 :]))
    if pose not in ("", _MIRRORED) or not on_left + on_right:
        return ""
    if ONE_IN * min(on_left, on_right) >= on_left + on_right:  # in whole numbers: a tenth exactly counts
        return "both"
    return "left" if (on_right > on_left) == (pose == "") else "right"


def _pose(film: Film) -> str:
    """How a film lies by PatientOrientation; `""`: upright, not mirrored, or unknown."""
    if film.orientation is None:
        return ""
    across, down = (direction[0] for direction in film.orientation)  # the first letter leads
    if across in "LR" and down in "HF":
        return UPSIDE_DOWN if down == "H" else _MIRRORED if across == "R" else ""
    return TURNED if across in "HF" and down in "LR" else _OTHER_PLANE


def _against_by_header(film: Film) -> list[str]:
    found = []
    if film.modality is not None and film.modality not in RADIOGRAPHS:
        found.append(f"modality {film.modality}, not a radiograph")
    if film.body_part not in (None, CHEST):
        found.append(f"body part {film.body_part}, not the chest")
    if film.view in _NOT_FRONTAL:
        found.append(f"{_NOT_FRONTAL[film.view]} view ({film.view})")
    if _pose(film) not in ("", _MIRRORED):
        found.append(f"{_pose(film)} (PatientOrientation)")
    return found


def _against_by_picture(film: Film, square: np.ndarray, likeness: TrainingLikeness) -> list[str]:
    if reason := implausible(film.pixels):
        return [reason]
    return likeness.objections(square)


def _remarks(film: Film) -> list[str]:
    height, width = film.pixels.shape
    minimum_age = Rules().minimum_age
    found = []
    if film.modality is None or film.body_part is None:
        found.append("the header does not say that this is a chest radiograph")
    if film.age is not None and film.age < minimum_age:
        found.append(f"age under {minimum_age:g}")
    if film.view == "PA" or film.position in _NOT_SUPINE:
        this = " ".join(word for word in (film.view, film.position) if word)
        found.append(f"made for supine AP films, this one is {this}")
    if _pose(film) == _MIRRORED:
        found.append("mirrored (PatientOrientation), which the side allows for")
    if film.for_processing:
        found.append("grey levels for processing, not for presentation")
    if film.burned_in:
        found.append("text burned into the picture")
    if min(height, width) < SHORTEST_SIDE:
        found.append(f"low resolution ({width} x {height} pixels)")
    if max(height, width) > LONGEST_SHAPE * min(height, width):
        found.append(f"long and narrow ({width} x {height} pixels)")
    if film.spacing is None:
        found.append("spacing unknown, so no area in cm2")
    return found + list(film.notes)
