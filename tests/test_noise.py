"""Films that are noise beside their set are rejected, of whatever grain; real ones are not."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_masks_and_labels import SIDE, TRAINED, hospital, picture, prepare, rejected

from common.films.decode import read_film
from common.films.plausible import implausible
from common.films.resample import resample
from common.paths import prepared_folder
from common.preparation.fingerprints import read
from common.preparation.noise import NOISE, ROUGH, are_noise, roughness
from common.refusal import Refusal

DRAW = np.random.default_rng(0)
WHITE = DRAW.normal(0, 1, (1024, 1024)).astype(np.float32)
COARSE = cv2.GaussianBlur(WHITE, (0, 0), 2.5) * 2.5 * 2 * np.sqrt(np.pi)  # as strong as WHITE
FILM = cv2.resize(picture(3), (1024, 1024), interpolation=cv2.INTER_CUBIC)
SET = [roughness(cv2.resize(picture(number), (1024, 1024))) for number in range(12)]


def _grey(values: np.ndarray) -> np.ndarray:
    return cv2.normalize(values, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def _half_noise() -> np.ndarray:
    film = FILM.copy()
    film[700:] = DRAW.integers(0, 256, (324, 1024))
    return film


def _tiles() -> np.ndarray:
    """The squares of a film in any order, as a decoder leaves them."""
    squares = FILM.reshape(32, 32, 32, 32).transpose(0, 2, 1, 3).reshape(1024, 32, 32)
    return DRAW.permutation(squares).reshape(32, 32, 32, 32).transpose(0, 2, 1, 3).reshape(1024, 1024)


KINDS = {
    "white": _grey(WHITE),
    **{f"of a grain of {grain} pixels": _grey(cv2.GaussianBlur(WHITE, (0, 0), grain)) for grain in (1, 3, 8)},
    "squares": np.kron(DRAW.integers(0, 256, (32, 32)), np.ones((32, 32))).astype(np.uint8),
    "the lower third of a film": _half_noise(),
    "as strong as the film": np.clip(FILM + WHITE * FILM.std(), 0, 255).astype(np.uint8),
    "fine, half as strong": np.clip(FILM + WHITE * FILM.std() * 0.45, 0, 255).astype(np.uint8),
    "coarse, less strong": np.clip(FILM + COARSE * FILM.std() * 0.75, 0, 255).astype(np.uint8),
    "lines in any order": DRAW.permutation(FILM),
    "squares in any order": _tiles(),
}


def test_roughness_of_noise_and_of_a_slope() -> None:
    assert roughness(KINDS["white"]) == pytest.approx((1, 1, 1), abs=0.05)
    slope = np.tile(np.arange(1024) // 4, (1024, 1)).astype(np.uint8)
    expected = [
        float(d**2) / 16 / (2 * slope.var()) for d in (8, 32)
    ]  # across; along, there is no difference
    assert roughness(slope)[1:] == pytest.approx([value / 2 for value in expected], rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_among_films(kind: str) -> None:
    assert are_noise([*SET, roughness(KINDS[kind])]).tolist() == [False] * 12 + [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_that_is_all_like_that_is_no_noise(kind: str) -> None:
    """Then nothing tells which is the noise; what no film can be is `plausible.py`'s to say."""
    assert not are_noise([roughness(KINDS[kind])] * 12).any()


def test_a_rougher_film_of_another_device_is_none() -> None:
    grainy = np.clip(FILM + WHITE * FILM.std() / 4, 0, 255).astype(np.uint8)
    assert roughness(grainy)[0] > 10 * max(each[0] for each in SET)
    assert not are_noise([*SET, roughness(grainy)]).any()


def test_few_films_are_no_set() -> None:
    assert not are_noise([*SET[:8], roughness(KINDS["white"])]).any()
    assert are_noise([*SET[:9], roughness(KINDS["white"])]).sum() == 1
    assert are_noise([]).tolist() == []


def test_noise_is_rejected_listed_and_counted(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = cv2.resize(KINDS["of a grain of 8 pixels"], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert not implausible(noise)

    def change(i: int, cells: dict[str, str]) -> None:
        if i in (5, 15):  # a training film and a test film, both judged against all films of the hospital
            cv2.imwrite(str(tmp_path / "films" / cells["image"]), noise + np.uint8(i % 2))

    with pytest.raises(Refusal, match="1 of 4 films have a fault"):
        prepare(hospital(tmp_path / "films", change))
    prepared = prepare(tmp_path / "films", max_fault_share=0.3)  # goes on where it stopped
    assert len(prepared.cases) == TRAINED - 1
    assert rejected()[["origin", "reason"]].to_numpy().tolist() == [["cases.csv, row 7", NOISE]]
    assert rejected("ntuh_test")["origin"].tolist() == ["cases.csv, row 17"]
    flow = json.loads((prepared_folder("ntuh_train") / "flow.json").read_text())
    assert flow["rejected"] == {NOISE: 1}
    assert f"rejected: 1 film: {NOISE} (cases.csv, row 7)" in capsys.readouterr().out
    known = read(prepared.folder)
    assert (known["picture"] == "").sum() == 1
    paths = [tmp_path / "films" / f"f{i}.png" for i in range(TRAINED) if i != 5]
    expected = {resample(read_film(path).pixels, 1024).tobytes() for path in paths}
    assert {prepared.film(row).tobytes() for row in range(TRAINED - 1)} == expected
    assert isinstance(known, pd.DataFrame)


@pytest.mark.real
def test_real_films_are_none(real: Path) -> None:
    """All 1,087 were tried when the limits were chosen; here every eighth, as one set and in any other."""
    paths = sorted((real / "semisynthetic").rglob("*.dcm")) + sorted((real / "dicom").glob("*.dcm"))
    paths += sorted((real / "pneumothorax" / "images").iterdir())
    rough = [roughness(resample(read_film(path).pixels, 1024)) for path in paths[::8]]
    assert len(rough) > 100
    assert not are_noise(rough).any()
    assert (np.array(rough) < ROUGH).all()
