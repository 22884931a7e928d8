"""Shortcuts: what is no lesion and yet tells positives from negatives."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from common.inference.shortcuts import SIDE, header_facts, shortcut_probabilities
from common.statistics.auroc import auroc

FACTS = {"age": 60, "sex": "F", "view": "AP", "position": "", "manufacturer": "A", "width": 2000,
         "height": 2500, "spacing_row": 0.14, "spacing_column": 0.14}  # fmt: skip


@dataclass
class Films:
    """What shortcuts may see of a set: no label of test films."""

    pixels: np.ndarray
    cases: pd.DataFrame

    def film(self, row: int, side: int) -> np.ndarray:
        assert side == SIDE
        return self.pixels[row]


class TrainingFilms(Films):
    has_mask: np.ndarray


def made_up(positive: np.ndarray, seed: int, bright: float = 0.0, **facts: list) -> TrainingFilms:
    """Noise, brighter by so much where positive; headers as in FACTS but for `facts`."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 20, (len(positive), SIDE, SIDE)) + bright * positive[:, None, None]
    table = pd.DataFrame({name: [value] * len(positive) for name, value in FACTS.items()} | facts)
    films = TrainingFilms(pixels.clip(0, 255).astype(np.uint8), table)
    films.has_mask = positive
    return films


def two_sets(bright: float = 0.0, **facts) -> tuple[np.ndarray, TrainingFilms, Films]:
    """Truth of the test films; training and test films. `facts`: name -> value of positives, of negatives."""
    rng = np.random.default_rng(0)
    sets = []
    for seed, count in ((1, 120), (2, 80)):
        positive = rng.random(count) < 0.4
        own = {name: np.where(positive, *values).tolist() for name, values in facts.items()}
        sets.append(made_up(positive, seed, bright, **own))
    training, test = sets
    truth = test.has_mask
    return truth, training, Films(test.pixels, test.cases)


def test_films_that_differ_as_a_whole():
    truth, training, test = two_sets(bright=8)
    found = shortcut_probabilities(training, test)
    assert found.keys() == {"thumbnail"}  # all headers are alike
    assert auroc(truth, found["thumbnail"]) > 0.95
    truth, training, test = two_sets()
    assert 0.3 < auroc(truth, shortcut_probabilities(training, test)["thumbnail"]) < 0.7


@pytest.mark.parametrize(
    "facts",
    [
        {"spacing_row": (0.14, 0.17)},
        {"spacing_row": (np.nan, 0.14)},
        {"view": ("AP", "PA")},
        {"manufacturer": ("A", "")},
        {"width": (2000, 2001)},
        {"age": (30.0, np.nan)},
    ],
)
def test_headers_that_differ(facts):
    truth, training, test = two_sets(**facts)
    probability = shortcut_probabilities(training, test)["header"]
    assert auroc(truth, probability) == 1
    assert np.all((probability > 0) & (probability < 1))


def test_what_only_test_films_have_is_not_used():
    truth, training, test = two_sets(view=("AP", "PA"))
    test.cases.loc[::2, "view"] = "LL"
    test.cases["manufacturer"] = np.where(truth, "B", "C")
    probability = shortcut_probabilities(training, test)["header"]
    assert len(set(np.round(probability[::2], 12))) == 1
    assert "manufacturer B" not in header_facts(training.cases)


def test_test_films_that_are_all_alike_are_judged_by_what_they_are():
    _, training, test = two_sets(view=("AP", "PA"))
    for view, high in (("AP", True), ("PA", False)):
        test.cases["view"] = view
        assert np.all((shortcut_probabilities(training, test)["header"] > 0.5) == high)


@pytest.mark.parametrize("positive", [True, False])
def test_training_films_of_one_class_give_none(positive):
    training = made_up(np.full(20, positive), 0)
    assert shortcut_probabilities(training, training) == {}


def test_the_same_films_give_the_same_bits():
    _, training, test = two_sets(bright=3, view=("AP", "PA"))
    first, second = (shortcut_probabilities(training, test) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in ("thumbnail", "header"))
