"""Which values of a mask picture are lesion: soft edges are cut, classes and other pictures are a fault."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from common.films.fault import FilmFault
from common.films.mask_files import MaskFile
from common.films.mask_values import lesion_of_greys

HEIGHT, WIDTH = 180, 200
LESION = cv2.ellipse(np.zeros((HEIGHT, WIDTH), np.uint8), (70, 80), (18, 40), 20, 0, 360, 255, -1)
OTHER = cv2.ellipse(np.zeros((HEIGHT, WIDTH), np.uint8), (150, 80), (18, 40), 0, 0, 360, 255, -1)
NOISE = np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH), np.uint8)


def _read(folder: Path, pixels: np.ndarray | Image.Image, name: str = "m.png", **options: object):
    """The mask of a picture, and the notes."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(folder / name, **options)
    notes: list[str] = []
    return MaskFile(folder / name).mask(WIDTH, HEIGHT, notes.append), notes


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def _colour(grey: np.ndarray, red: float, green: float, blue: float) -> np.ndarray:
    return np.rint(grey[..., None] * np.array([red, green, blue])).astype(np.uint8)


def _resized(side: int) -> np.ndarray:
    return cv2.resize(cv2.resize(LESION, (side, side)), (WIDTH, HEIGHT))


SOFT = {
    "blurred a little": cv2.GaussianBlur(LESION, (0, 0), 1),
    "blurred": cv2.GaussianBlur(LESION, (0, 0), 4),
    "of 16 bits": cv2.GaussianBlur(LESION.astype(np.uint16) * 257, (0, 0), 3),
    "resized": _resized(64),
    "half as bright": cv2.GaussianBlur(LESION // 2, (0, 0), 2),
    **{f"once a JPEG of quality {q}": _jpeg(LESION, q) for q in (20, 30, 60, 80, 95, 100)},
    "blurred, of 11 greys": cv2.GaussianBlur(LESION, (0, 0), 3) // 25 * 25,
    "red, blurred": _colour(cv2.GaussianBlur(LESION, (0, 0), 3), 1, 0, 0),
    "a colour, once a JPEG": _jpeg(_colour(LESION, 1, 0.3, 0.2), 40),  # it leaves no pixel quite black
    "drawn with soft alpha": np.dstack(
        [np.full_like(LESION, 255)] * 3 + [cv2.GaussianBlur(LESION, (0, 0), 2)]
    ),
}


@pytest.mark.parametrize("kind", SOFT)
def test_soft_edges_are_cut_at_half_of_full_grey(tmp_path: Path, kind: str) -> None:
    mask, notes = _read(tmp_path, SOFT[kind])
    differing = (mask != (LESION > 0)).sum() / (LESION > 0).sum()
    assert differing < (0.08 if kind in ("blurred", "resized") else 0.05)
    assert notes == ["its mask has grey edges, which were cut at half of full grey"]


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_masks_as_jpeg_files(tmp_path: Path, quality: int) -> None:
    mask, notes = _read(tmp_path, LESION, "m.jpg", quality=quality)
    assert (mask != (LESION > 0)).sum() < 0.05 * (LESION > 0).sum()
    assert len(notes) == 1


@pytest.mark.parametrize("value", [1, 2, 9, 100, 128, 254, 255])
def test_any_one_grey_is_the_lesion(tmp_path: Path, value: int) -> None:
    mask, notes = _read(tmp_path, (LESION > 0) * np.uint8(value))
    assert (mask == (LESION > 0)).all()
    assert notes == []


def _palette(numbers: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(numbers.astype(np.uint8), "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


CLASSES = (LESION > 0) + 2 * ((OTHER > 0) & (LESION == 0))
FAULTY = {
    "two classes, 1 and 2": CLASSES.astype(np.uint8),
    "two classes, 127 and 255": CLASSES.astype(np.uint8) * 127,
    "a class and 255 for what is not annotated": np.where(CLASSES == 2, 255, CLASSES).astype(np.uint8),
    "many classes": np.where(OTHER > 0, 1 + np.arange(WIDTH) // 8 * 4, LESION).astype(np.uint8),
    "classes of 16 bits": CLASSES.astype(np.uint16) * 1000,
    "two colours": _colour(LESION, 1, 0, 0) + _colour(OTHER, 0, 1, 0),
    "two colours of a palette": _palette(CLASSES, (0, 0, 0), (128, 0, 0), (0, 128, 0)),
    "two colours, once a JPEG": _jpeg(_colour(LESION, 1, 0, 0) + _colour(OTHER, 0, 1, 0), 90),
    "white with a grey lesion": np.where(LESION > 0, 128, 255).astype(np.uint8),
    "classes 1 and 2 without 0": (1 + (LESION > 0)).astype(np.uint8),
    "a film": cv2.GaussianBlur(NOISE, (0, 0), 3) - np.uint8(40),
    "a film with the lesion in red": np.where(
        LESION[..., None] > 0, [255, 0, 0], NOISE[..., None] // 2
    ).astype(np.uint8),
    "all white": np.full_like(LESION, 255),
    "black on a transparent background": np.dstack([LESION * 0] * 3 + [LESION]),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_what_is_no_mask_of_one_lesion_is_a_fault(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FilmFault, match="its mask"):
        _read(tmp_path, FAULTY[kind])


def test_a_palette_of_one_colour_and_transparent_pixels(tmp_path: Path) -> None:
    mask, notes = _read(tmp_path, _palette(LESION > 0, (0, 0, 0), (200, 30, 30)))
    assert (mask == (LESION > 0)).all()
    clear = np.dstack([np.full_like(LESION, 255)] * 3 + [LESION])
    assert (_read(tmp_path, clear)[0] == (LESION > 0)).all()
    assert not _read(tmp_path, np.zeros((HEIGHT, WIDTH, 4), np.uint8))[0].any()
    assert notes == []


def test_all_black_is_no_lesion(tmp_path: Path) -> None:
    mask, notes = _read(tmp_path, np.zeros_like(LESION))
    assert not mask.any()
    assert notes == []


def test_negative_values_are_a_fault() -> None:
    with pytest.raises(FilmFault, match="no black background"):
        lesion_of_greys(np.array([[0, -1], [2, 1]], np.int16), lambda _: None)
