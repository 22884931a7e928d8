"""Masks that cannot be a pneumothorax of their film are refused; real ones are not."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.films.decode import read_film
from common.films.fault import FilmFault
from common.films.mask_files import MaskFile
from common.films.resample import resample, resample_mask
from common.preparation.lesion_check import refuse_impossible

SIDE = 1024


def _film(border: int = 0, left: int = 0) -> np.ndarray:
    """A smooth film with noise, in a border of black."""
    draw = np.random.default_rng(0)
    film = cv2.resize(draw.uniform(20, 235, (6, 6)).astype(np.float32), (SIDE, SIDE)) + draw.normal(
        0, 3, (SIDE, SIDE)
    )
    film = np.clip(film, 0, 255).astype(np.uint8)
    film[:border], film[SIDE - border :], film[:, :left] = 0, 0, 0
    return film


def _ellipses(*places: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of ellipses: column, row, half width, half height."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for column, row, wide, high in places:
        cv2.ellipse(mask, (column, row), (wide, high), 0, 0, 360, 1, -1)
    return mask.astype(bool)


LUNGS = _ellipses((280, 500, 130, 290), (740, 500, 130, 290))
LESION = _ellipses((250, 300, 80, 200))


@pytest.mark.parametrize(
    ("mask", "film", "said"),
    [
        (~LESION, _film(), "more of the film than"),
        (_ellipses((500, 500, 400, 400)), _film(), "more of the film than"),
        (LUNGS, _film(), "both lungs"),
        (LESION, _film(left=400), "outside"),
        (_ellipses((500, 60, 300, 30)), 255 - _film(border=150), "outside"),
    ],
)
def test_impossible_masks_are_a_fault(mask: np.ndarray, film: np.ndarray, said: str) -> None:
    with pytest.raises(FilmFault, match=said):
        refuse_impossible(mask, film, boxes=False)


@pytest.mark.parametrize(
    ("mask", "film"),
    [
        (LESION, _film()),
        (LESION, _film(border=150)),
        (_ellipses((280, 500, 150, 320)), _film()),  # a whole lung
        (_ellipses((250, 300, 60, 200), (750, 300, 60, 200)), _film()),  # on both sides
        (LESION, np.where(LESION, 0, _film()).astype(np.uint8)),  # black as air, but inside
    ],
)
def test_possible_masks_are_none(mask: np.ndarray, film: np.ndarray) -> None:
    refuse_impossible(mask, film, boxes=False)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_border_on_any_side_is_one(turns: int) -> None:
    film = _film()
    film[50:900, :400] = 0  # it touches this side only
    with pytest.raises(FilmFault, match="outside"):
        refuse_impossible(np.rot90(LESION, turns), np.rot90(film, turns), boxes=False)


@pytest.mark.parametrize("greys", [(128, 128), (0, 12)])
def test_what_is_grey_or_uneven_is_no_border(greys: tuple[int, int]) -> None:
    """Overexposed skin, and air at the edge of a film."""
    film = _film()
    film[:, :400] = np.random.default_rng(1).integers(*greys, (SIDE, 400), endpoint=True)
    refuse_impossible(LESION, film, boxes=False)


@pytest.mark.parametrize(("left", "is_fault"), [(220, False), (290, True)])
def test_a_part_of_the_lesion_may_lie_on_the_border(left: int, is_fault: bool) -> None:
    """A fifth may; not three quarters."""
    if is_fault:
        with pytest.raises(FilmFault, match="outside"):
            refuse_impossible(LESION, _film(left=left), boxes=False)
    else:
        refuse_impossible(LESION, _film(left=left), boxes=False)


def test_rectangles_may_be_twice_as_large() -> None:
    box = np.zeros((SIDE, SIDE), bool)
    box[100:900, 50:450] = True
    refuse_impossible(box, _film(), boxes=True)
    with pytest.raises(FilmFault):
        refuse_impossible(box, _film(), boxes=False)
    with pytest.raises(FilmFault):
        refuse_impossible(box | box[:, ::-1], _film(), boxes=True)


def test_real_masks_are_no_fault(real: Path) -> None:
    """Every tenth; all 613 of them, and 128 of painted lesions, were tried when the limits were chosen."""
    folder = real / "pneumothorax"
    rows = [row for row in csv.DictReader((folder / "cases.csv").open()) if row["mask"]][::10]
    notes: list[str] = []
    for row in rows:
        film = read_film(folder / row["image"]).pixels
        mask = MaskFile(folder / row["mask"]).mask(film.shape[1], film.shape[0], notes.append)
        refuse_impossible(resample_mask(mask, SIDE), resample(film, SIDE), boxes=False)
    assert len(rows) > 50
    assert notes == []
