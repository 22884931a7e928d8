"""Patients stay together, labels are stratified, nothing depends on names."""

from __future__ import annotations

import numpy as np
import pytest

from common.preparation.folds import assign_folds, choose_validation
from common.refusal import Refusal


def _films(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(n) < 0.3, np.array([f"p{i}" for i in rng.integers(0, n * 2 // 3, n)])


def test_every_patient_is_in_one_fold() -> None:
    positive, patients = _films()
    folds = assign_folds(positive, patients)
    for patient in set(patients):
        assert len(set(folds[patients == patient])) == 1
    shares = [positive[folds == k].mean() for k in range(5)]
    assert np.ptp(shares) < 0.04
    assert np.ptp(np.bincount(folds)) < 20


def test_folds_are_the_same_with_every_version_of_the_libraries() -> None:
    positive = np.arange(30) % 3 == 0
    patients = np.array([f"p{i * i % 17}" for i in range(30)])
    folds = "".join(map(str, assign_folds(positive, patients)))
    assert folds == "214040132231040412140401322310"


@pytest.mark.parametrize("split", [assign_folds, choose_validation])
def test_names_do_not_matter_but_the_seed_does(split) -> None:
    positive, patients = _films()
    names = {p: f"x{hash((p, 'key')) % 10**9}" for p in set(patients)}
    renamed = np.array([names[p] for p in patients])
    assert (split(positive, patients) == split(positive, renamed)).all()
    assert (split(positive, patients, 0) != split(positive, patients, 1)).any()


def test_too_few_patients_are_refused() -> None:
    positive = np.array([True] * 8 + [False] * 20)
    patients = np.array([f"p{i // 2}" for i in range(8)] + [f"n{i}" for i in range(20)])
    with pytest.raises(Refusal, match="at least 5 patients with positive films"):
        assign_folds(positive, patients)


def test_validation_of_a_large_set_has_the_published_size() -> None:
    positive = np.arange(12047) < 2669
    validation = choose_validation(positive, np.arange(12047).astype(str))
    assert (validation & positive).sum() == 200
    assert (validation & ~positive).sum() == 800


@pytest.mark.parametrize(("positives", "negatives"), [(999, 9000), (2000, 3999), (50, 83), (3, 2)])
def test_validation_of_a_small_set_is_a_fifth(positives: int, negatives: int) -> None:
    positive = np.arange(positives + negatives) < positives
    validation = choose_validation(positive, np.arange(len(positive)).astype(str))
    assert (validation & positive).sum() == max(positives // 5, 1)
    assert (validation & ~positive).sum() == max(negatives // 5, 1)


def test_validation_keeps_patients_together() -> None:
    positive, patients = _films()
    validation = choose_validation(positive, patients)
    assert not set(patients[validation]) & set(patients[~validation])


def test_validation_is_as_near_to_its_size_as_whole_patients_allow() -> None:
    """As in SIIM-ACR, where one patient has 58 of the positives: he must not make the others superfluous."""
    rng = np.random.default_rng(0)
    patients = np.sort(rng.zipf(1.6, 12_000) % 1500)
    positive = rng.random(1500)[patients] < 0.25
    positive &= rng.random(12_000) < 0.7
    positive |= np.isin(patients, [1498, 1499])
    for seed in range(3):
        validation = choose_validation(positive, patients, seed)
        assert (validation & positive).sum() == 200
        assert (validation & ~positive).sum() == 800
        assert not set(patients[validation]) & set(patients[~validation])


@pytest.mark.parametrize(
    ("films", "held"),
    [
        ({"a": "+++", "b": "++++", "c": "-", "d": "-"}, ("ac", "ad")),  # a fifth is 1, and none has just 1
        ({"a": "+++-", "b": "++++--", "c": "++++---"}, ("a",)),  # every patient has both
        ({"a": "++++", "b": "++++++", "c": "-----", "d": "--", "e": "---"}, ("ad",)),
    ],
)
def test_patients_with_more_films_than_are_wanted(films: dict[str, str], held: tuple[str, ...]) -> None:
    patients = np.array([name for name, labels in films.items() for _ in labels])
    positive = np.array([label == "+" for label in "".join(films.values())])
    found = ["".join(sorted(set(patients[choose_validation(positive, patients, s)]))) for s in range(20)]
    assert set(found) == set(held)


def test_film_by_film_the_choice_is_the_one_of_version_0_1() -> None:
    positive = np.arange(40) % 3 == 0
    chosen = np.flatnonzero(choose_validation(positive, np.arange(40).astype(str)))
    order = np.random.default_rng([0, 0]).permutation(40)
    expected = [*order[positive[order]][:2], *order[~positive[order]][:5]]
    assert chosen.tolist() == sorted(expected)


def test_one_positive_is_refused() -> None:
    with pytest.raises(Refusal, match="too few films"):
        choose_validation(np.array([True, False, False]), np.array(["a", "b", "c"]))
