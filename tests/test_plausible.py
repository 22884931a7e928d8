"""What can be no radiograph, whatever its header says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.command_line import Rules
from common.films.decode import read_film
from common.films.plausible import implausible
from common.preparation.film_task import REJECTED, Task, prepare_film
from common.sources.source_film import SourceFilm

DRAW = np.random.default_rng(0)
SMOOTH = cv2.resize(DRAW.uniform(0, 255, (6, 7)).astype(np.float32), (700, 600)).astype(np.uint8)


def test_a_smooth_picture_can_be_a_film() -> None:
    assert implausible(SMOOTH) == ""
    noisy = np.clip(SMOOTH + DRAW.normal(0, 15, SMOOTH.shape), 0, 255).astype(np.uint8)
    assert implausible(noisy) == ""
    assert implausible(cv2.resize(SMOOTH, (40, 30))) == ""


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        (np.zeros_like(SMOOTH), "is of nearly one grey value"),
        (
            np.where(np.indices(SMOOTH.shape)[0] < 20, SMOOTH, 255).astype(np.uint8),
            "is of nearly one grey value",
        ),
        (SMOOTH // 16 * 16, "has only 16 grey levels"),
        ((SMOOTH > 127).astype(np.uint8) * 255, "has only 2 grey levels"),
        (DRAW.integers(0, 256, SMOOTH.shape).astype(np.uint8), "is noise: neighbouring pixels are not alike"),
        (np.tile(DRAW.integers(0, 256, (600, 1)).astype(np.uint8), (1, 700)), "is noise"),
        (np.tile(DRAW.integers(0, 256, (1, 700)).astype(np.uint8), (600, 1)), "is noise"),
    ],
)
def test_what_can_be_none(film: np.ndarray, reason: str) -> None:
    assert implausible(film).startswith(reason)


@pytest.mark.parametrize(
    "film", [np.full_like(SMOOTH, 90), SMOOTH // 64 * 64, DRAW.integers(0, 255, (600, 700))]
)
def test_such_films_are_rejected_in_preparation(tmp_path: Path, film: np.ndarray) -> None:
    path = tmp_path / "film.png"
    cv2.imwrite(str(path), film.astype(np.uint8))
    task = Task(0, SourceFilm("a", path, "row 2", None, 0), tmp_path, Rules())
    outcome = prepare_film(task, lambda: None)
    assert (outcome.kind, outcome.reason) == (REJECTED, implausible(film.astype(np.uint8)))
    assert outcome.file


@pytest.mark.real
def test_real_films_can_be_films(real: Path) -> None:
    paths = sorted((real / "semisynthetic").rglob("*.dcm"))[::15] + sorted((real / "dicom").glob("*.dcm"))
    paths += sorted((real / "pneumothorax" / "images").iterdir())[::40]
    assert len(paths) > 40
    assert [path for path in paths if implausible(read_film(path).pixels)] == []
