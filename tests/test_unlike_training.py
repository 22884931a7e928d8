"""What the training films look like: features by hand, distances by scikit-learn, and what is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from common.films.decode import read_film
from common.films.resample import resample
from common.inference import unlike_training
from common.inference.unlike_training import INVERTED, TURNED, UPSIDE_DOWN, TrainingLikeness, features
from common.refusal import Refusal

N = 60


def _film(seed: int) -> np.ndarray:
    """Two dark lungs, a bright heart on the picture's right and a bright abdomen, (128, 128) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:128j, -1:1:128j] + rng.normal(0, 0.05, (2, 1, 1))
    film = 140 + rng.normal(0, 8) + 60 * (y > 0.5)
    for centre in (-0.45, 0.45):
        radius = rng.normal(0.35, 0.02)
        film -= 80 * (((x - centre) / radius) ** 2 + (y / (1.8 * radius)) ** 2 < 1)
    film += 70 * (np.hypot(x - 0.2, y - 0.3) < rng.normal(0.25, 0.02))
    return np.clip(film * rng.normal(1, 0.05) + rng.normal(0, 5, film.shape), 0, 255).astype(np.uint8)


def _set(films: Sequence[np.ndarray]) -> Any:
    """Stands for a prepared set."""
    return SimpleNamespace(part=np.arange(len(films)) % 5, film=lambda row: films[row])


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    return [_film(seed) for seed in range(N)]


@pytest.fixture(scope="module")
def known(films: list[np.ndarray]) -> TrainingLikeness:
    return TrainingLikeness.of_films(_set(films))


# --- features --------------------------------------------------------------------------------------


def test_features_of_two_halves() -> None:
    film = np.zeros((128, 128), np.uint8)
    film[:, 64:] = 255
    found = features(film)
    assert found.shape == (43,)
    assert found[:36].reshape(6, 6) == pytest.approx(np.tile([-1, -1, -1, 1, 1, 1], (6, 1)), abs=1e-6)
    mean, spread, black, white, symmetry, edges, _ = found[36:]
    assert (mean, spread, symmetry) == pytest.approx((0.5, 0.5, -1))
    assert (black, white) == pytest.approx((0.5**0.5, 0.5**0.5))
    assert edges == pytest.approx(np.log(2 * 4 / 128 / 0.5 + 0.001))  # Sobel of a step is 4, in two columns


def test_texture_equals_scipy(films: list[np.ndarray]) -> None:
    grey = films[0] / 255
    fine = np.abs(grey - gaussian_filter(grey, 2, mode="mirror")).mean() / grey.std()
    assert features(films[0])[-1] == pytest.approx(np.log(fine + 0.001), abs=1e-3)


def test_thumbnail_depends_on_the_order_of_grey_levels_only(films: list[np.ndarray]) -> None:
    table = np.sort(np.random.default_rng(0).choice(256, 128, replace=False)).astype(np.uint8)
    dim = films[0] // 2
    assert features(table[dim])[:36] == pytest.approx(features(dim)[:36], abs=1e-5)
    assert features(255 - dim)[:36] == pytest.approx(-features(dim)[:36], abs=1e-5)


@pytest.mark.parametrize("value", [0, 100, 255])
def test_features_of_a_blank_film_are_finite(value: int) -> None:
    found = features(np.full((1024, 1024), value, np.uint8))
    assert np.isfinite(found).all()
    assert (found[:36] == 0).all()


# --- the reference ---------------------------------------------------------------------------------


def _independent(films: Sequence[np.ndarray]) -> Callable[[np.ndarray], float]:
    """The distance by scikit-learn and SciPy, of films and their mirrored copies."""
    found = np.array(
        [features(copy) for film in films for copy in (film, np.ascontiguousarray(film[:, ::-1]))]
    )
    scale = found.std(axis=0) + 0.001
    fitted = LedoitWolf().fit(found / scale)
    return lambda film: mahalanobis(features(film) / scale, fitted.location_, fitted.precision_)


def test_distance_equals_scikit_learn(films: list[np.ndarray], known: TrainingLikeness) -> None:
    expected = _independent(films)
    for film in (*films[:3], _film(1000), np.rot90(films[0]), np.full((128, 128), 9, np.uint8)):
        assert known.distance(film) == pytest.approx(expected(film), rel=1e-3)


def test_threshold_is_of_films_that_were_held_out(films: list[np.ndarray], known: TrainingLikeness) -> None:
    outside = []
    for fold in range(5):
        expected = _independent([film for i, film in enumerate(films) if i % 5 != fold])
        outside += [expected(film) for film in films[fold::5]]
    assert known.threshold == pytest.approx(max(outside), rel=1e-3)  # 0.5% of 60 is none
    assert known.n_films == N
    within = max(known.distance(film) for film in films)
    assert within < 0.95 * known.threshold


def test_one_film_in_two_hundred_may_be_far(films: list[np.ndarray]) -> None:
    """So that one among the training films that is no film does not set the limit."""
    noise = np.random.default_rng(2).integers(0, 256, (2, 128, 128), dtype=np.uint8)
    found = TrainingLikeness.of_films(_set([*films, *(_film(seed) for seed in range(2000, 2140)), noise[0]]))
    assert (found.n_films, found.false_warning_rate) == (201, 1 / 201)
    assert found.is_far(noise[1])


def test_turned_training_films_count_as_warned_of(films: list[np.ndarray]) -> None:
    found = TrainingLikeness.of_films(_set([*films[:-1], np.rot90(films[-1])]))
    assert found.false_warning_rate == 1 / N


def test_files_and_folds_decide_and_nothing_else(films: list[np.ndarray], known: TrainingLikeness) -> None:
    assert TrainingLikeness.of_films(_set(films)).to_json() == known.to_json()
    large = [np.repeat(np.repeat(film, 8, axis=0), 8, axis=1) for film in films[:10]]
    small = TrainingLikeness.of_films(_set(films[:10]))
    assert TrainingLikeness.of_films(_set(large)).to_json() == small.to_json()  # reduced by area to the same
    assert small.distance(large[0]) == small.distance(films[0])


# --- what is noticed -------------------------------------------------------------------------------


def test_new_films_of_the_kind_are_not_far(known: TrainingLikeness) -> None:
    new = [_film(seed) for seed in range(1000, 1040)]
    assert sum(map(known.is_far, new)) <= 1
    assert {known.seems(film) for film in new} == {""}
    assert known.false_warning_rate == 0
    for film in new:
        assert known.distance(film[:, ::-1]) == pytest.approx(known.distance(film), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "seems"),
    [
        (np.rot90, TURNED),
        (lambda film: np.rot90(film, 3), TURNED),
        (lambda film: film.T, TURNED),
        (lambda film: np.rot90(film, 2), UPSIDE_DOWN),
        (lambda film: film[::-1], UPSIDE_DOWN),
        (lambda film: 255 - film, INVERTED),
    ],
)
def test_turned_and_inverted_films_are_noticed(
    known: TrainingLikeness, change: Callable[[np.ndarray], np.ndarray], seems: str
) -> None:
    assert {known.seems(change(_film(seed))) for seed in range(1000, 1020)} == {seems}


def test_what_is_no_film_is_far_and_does_not_seem_turned(known: TrainingLikeness) -> None:
    rng = np.random.default_rng(1)
    ramp = np.tile(np.arange(128, dtype=np.uint8), (128, 1))
    noise = rng.integers(0, 256, (128, 128), dtype=np.uint8)
    for film in (ramp, noise, *(np.full((128, 128), value, np.uint8) for value in (0, 128, 255))):
        assert known.is_far(film)
        assert known.seems(film) == ""


# --- in the thresholds file ------------------------------------------------------------------------


def test_json_is_small_and_gives_the_same_back(films: list[np.ndarray], known: TrainingLikeness) -> None:
    text = json.dumps(known.to_json(), allow_nan=False)
    assert len(text) < 20_000
    back = TrainingLikeness.of_json(json.loads(text))
    assert back.to_json() == known.to_json()
    assert (back.covariance == known.covariance).all()
    for film in (films[0], np.rot90(films[0])):
        assert (back.distance(film), back.seems(film)) == (known.distance(film), known.seems(film))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.0] * 42},
        {"mean": ["a"] * 43},
        {"mean": None},
        {"covariance": [1.0] * 945},
        {"covariance": [1.0] * 946},  # cannot be inverted
        {"covariance": [float("nan")] * 946},
        {"threshold": float("nan")},
        {"threshold": 10**400},
        {"threshold": "far"},
        {"threshold": True},
        {"threshold": 0.0},
        {"threshold": 1e308},
        {"false_warning_rate": 1.5},
        {"n_films": None},
        {"n_films": 0},
        {"n_films": 3.5},
        {"features": "others"},
    ],
)
def test_malformed_json_is_refused(known: TrainingLikeness, change: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match=r"(?s)what the training films look like.*bash get_thresholds\.sh"):
        TrainingLikeness.of_json({**known.to_json(), **change})


@pytest.mark.parametrize("content", [None, [], "text", {}])
def test_missing_json_is_refused(content: Any) -> None:
    with pytest.raises(Refusal, match="make it again"):
        TrainingLikeness.of_json(content)


# --- real films ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_films(real: Path) -> None:
    """A reference of 80 chest films; others of them, hips and legs, and turned ones."""
    paths = sorted((real / "semisynthetic" / "hospital" / "images").glob("*.dcm"))[:100]
    chests = [resample(read_film(path).pixels, 1024) for path in paths]
    found = TrainingLikeness.of_films(_set(chests[:80]))
    for film in chests[80:]:
        assert found.seems(film) == ""
        assert found.seems(np.rot90(film)) == TURNED
        assert found.seems(255 - film) == INVERTED
    assert sum(map(found.is_far, chests[80:])) <= 1
    for name, far in (("RG1_J2KI", False), ("RG2_JPLL", True), ("RG3_JPLL", True)):  # chest, hip, lower leg
        film = resample(read_film(real / "dicom" / f"{name}.dcm").pixels, unlike_training._DETAIL)
        assert found.is_far(film) == far
