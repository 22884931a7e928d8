"""What a header and a picture say against an answer, and which side of the patient an outline lies on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.films.decode import Film
from common.inference.unlike_training import INVERTED, TrainingLikeness
from common.prediction.suitability import Concern, concerns_of, patient_side


def _picture(height: int, width: int) -> np.ndarray:
    return np.tile(np.linspace(0, 255, width), (height, 1)).astype(np.uint8)


# Nothing is to be said of this film
CHEST = Film(
    _picture(1200, 1000),
    age=50,
    view="AP",
    spacing=(0.2, 0.2),
    position="SUPINE",
    modality="DX",
    body_part="CHEST",
    orientation=("L", "F"),
)


class _Pictures(TrainingLikeness):
    """Stands for what the training films look like: finds what it is told to."""

    threshold = 10.0

    def __init__(self, distance: float = 5.0, seems: str = "") -> None:
        self._distance, self._seems = distance, seems

    def distance(self, square: np.ndarray) -> float:
        return self._distance

    def seems(self, square: np.ndarray) -> str:
        return self._seems


def _concerns(pictures: _Pictures | None = None, **facts: Any) -> list[Concern]:
    return concerns_of(replace(CHEST, **facts), np.zeros((1024, 1024), np.uint8), pictures or _Pictures())


def test_a_supine_chest_film_raises_no_concern() -> None:
    assert _concerns() == []
    # nor does what a header leaves open, but for what it must say
    assert _concerns(age=None, view=None, position=None, orientation=None) == []


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"modality": "CT"}, "modality CT, not a radiograph"),
        ({"modality": "MG"}, "modality MG, not a radiograph"),
        ({"body_part": "HAND"}, "body part HAND, not the chest"),
        ({"body_part": "OTHER"}, "body part OTHER, not the chest"),
        ({"view": "LL"}, "lateral view (LL)"),
        ({"view": "LAT"}, "lateral view (LAT)"),
        ({"view": "RAO"}, "oblique view (RAO)"),
        ({"view": "LLD"}, "decubitus view (LLD)"),
        ({"orientation": ("F", "L")}, "turned by 90 degrees (PatientOrientation)"),
        ({"orientation": ("H", "R")}, "turned by 90 degrees (PatientOrientation)"),
        ({"orientation": ("R", "H")}, "upside down (PatientOrientation)"),
        ({"orientation": ("LA", "HP")}, "upside down (PatientOrientation)"),
        ({"orientation": ("A", "F")}, "not frontal (PatientOrientation)"),
        ({"orientation": ("L", "P")}, "not frontal (PatientOrientation)"),
    ],
)
def test_by_header_there_is_no_answer(facts: dict[str, Any], text: str) -> None:
    assert _concerns(**facts) == [Concern(text, serious=True)]


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "RF"])
def test_radiographs(modality: str) -> None:
    assert _concerns(modality=modality) == []


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"modality": None}, "the header does not say that this is a chest radiograph"),
        ({"body_part": None}, "the header does not say that this is a chest radiograph"),
        ({"age": 19.9}, "age under 20"),
        ({"view": "PA"}, "made for supine AP films, this one is PA SUPINE"),
        ({"view": "PA", "position": None}, "made for supine AP films, this one is PA"),
        ({"position": "ERECT"}, "made for supine AP films, this one is AP ERECT"),
        ({"view": None, "position": "SEMIERECT"}, "made for supine AP films, this one is SEMIERECT"),
        ({"orientation": ("R", "F")}, "mirrored (PatientOrientation), which the side allows for"),
        ({"for_processing": True}, "grey levels for processing, not for presentation"),
        ({"burned_in": True}, "text burned into the picture"),
        ({"pixels": _picture(600, 511)}, "low resolution (511 x 600 pixels)"),
        ({"pixels": _picture(512, 1025)}, "long and narrow (1025 x 512 pixels)"),
        ({"notes": ("an impossible PatientAge",)}, "an impossible PatientAge"),
        ({"spacing": None}, "spacing unknown, so no area in cm2"),
    ],
)
def test_what_is_only_noted(facts: dict[str, Any], text: str) -> None:
    assert _concerns(**facts) == [Concern(text, serious=False)]


@pytest.mark.parametrize("facts", [{"age": 20}, {"pixels": _picture(512, 1024)}, {"position": "HFS"}])
def test_limits_that_are_kept(facts: dict[str, Any]) -> None:
    assert _concerns(**facts) == []


def test_by_the_picture_there_is_no_answer() -> None:
    assert _concerns(_Pictures(distance=10.0)) == []
    far = Concern("unlike the training films (distance 10.1, limit 10.0)", serious=True)
    inverted = Concern("seems inverted (air bright)", serious=True)
    assert _concerns(_Pictures(distance=10.1)) == [far]
    assert _concerns(_Pictures(seems=INVERTED)) == [inverted]
    assert _concerns(_Pictures(distance=10.1, seems=INVERTED)) == [far, inverted]


def test_what_is_no_film_at_all_gets_no_answer() -> None:
    blank = Concern("is of nearly one grey value", serious=True)
    assert _concerns(pixels=np.full((1200, 1000), 7, np.uint8)) == [blank]


def test_the_serious_come_first() -> None:
    found = _concerns(_Pictures(distance=99), modality="US", age=3, burned_in=True)
    assert [concern.serious for concern in found] == [True, True, False, False]


# --- side ------------------------------------------------------------------------------------------


def _outline(left: int, right: int, middle: int = 0, columns: int = 7) -> np.ndarray:
    """So many pixels on the left and on the right of the picture, and in its middle column."""
    outline = np.zeros((40, columns), bool)
    outline[:left, 1] = outline[:right, -2] = True
    outline[:middle, columns // 2] = True
    return outline


@pytest.mark.parametrize(
    ("left", "right", "side"),
    [
        (30, 0, "right"),  # the patient's right is on the picture's left
        (0, 30, "left"),
        (27, 3, "both"),  # 10% of the area
        (28, 3, "right"),
        (3, 27, "both"),
        (3, 28, "left"),
        (15, 15, "both"),
        (0, 0, ""),
    ],
)
@pytest.mark.parametrize("columns", [6, 7])
def test_side(left: int, right: int, side: str, columns: int) -> None:
    outline, other = _outline(left, right, columns=columns), {"left": "right", "right": "left"}
    for orientation in (None, ("L", "F"), ("LA", "FP")):
        assert patient_side(outline, replace(CHEST, orientation=orientation)) == side
    mirrored = replace(CHEST, orientation=("R", "F"))
    assert patient_side(outline, mirrored) == other.get(side, side)


@pytest.mark.parametrize(
    "orientation", [("F", "L"), ("H", "R"), ("R", "H"), ("L", "H"), ("A", "F"), ("L", "P")]
)
def test_side_of_a_turned_film_is_unknown(orientation: tuple[str, str]) -> None:
    assert patient_side(_outline(30, 0), replace(CHEST, orientation=orientation)) == ""


def test_an_odd_middle_column_is_on_neither_side() -> None:
    assert patient_side(_outline(1, 0, middle=40), CHEST) == "right"
    assert patient_side(_outline(0, 0, middle=40), CHEST) == ""
    assert patient_side(np.ones((5, 1), bool), CHEST) == ""


def test_columns_beside_the_middle() -> None:
    outline = np.zeros((4, 6), bool)
    outline[:, 2] = True
    assert patient_side(outline, CHEST) == "right"
    assert patient_side(outline[:, ::-1], CHEST) == "left"
    assert patient_side(outline[:, :5], CHEST) == ""
