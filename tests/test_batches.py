"""Who is drawn and what a batch holds, whatever the number of workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from common.inference.run_networks import EvaluationFilms, evaluation_loader
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared
from common.recipes.presets import read_preset
from common.training.batches import EpochSampler, TrainingFilms, training_loader

PUBLISHED = read_preset("published").augmentation


@pytest.fixture
def prepared(workspace: Path, sources: Path) -> PreparedSet:
    return open_prepared("siim", str(sources / "siim"), "test")


def test_segmentation_draws_every_positive_once() -> None:
    sampler = EpochSampler(np.arange(10, 21), np.arange(10), 4, 0, seed=0)
    assert len(sampler) == 2  # 11 positives: the incomplete batch is dropped
    assert sorted(sampler.rows()) == list(range(10, 21))
    first = list(sampler)
    assert [draw for batch in first for _, draw, _ in batch] == list(range(8))
    sampler.start(1, 1.0)
    assert list(sampler) != first


def test_classification_draws_the_expected_share() -> None:
    sampler = EpochSampler(np.arange(10), np.arange(10, 1000), 8, 20000, seed=0)
    for epoch, share in ((0, 0.8), (1, 0.3)):
        sampler.start(epoch, share)
        rows = sampler.rows()
        assert (rows < 10).mean() == pytest.approx(share, abs=0.02)
        assert len(set(rows[rows >= 10])) > 900


def test_batches_do_not_depend_on_workers(prepared: PreparedSet) -> None:
    rows = np.arange(len(prepared.cases))
    sampler = EpochSampler(rows[prepared.has_mask], rows[~prepared.has_mask], 4, 12, seed=0)
    sampler.start(2, 0.5)
    films = TrainingFilms(prepared, 64, 0, PUBLISHED)
    alone, helped = (list(training_loader(films, sampler, workers, pin=False)) for workers in (0, 2))
    assert len(alone) == 3
    for one, two in zip(alone, helped, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_workers_stay_from_epoch_to_epoch(prepared: PreparedSet) -> None:
    rows = np.arange(len(prepared.cases))
    sampler = EpochSampler(rows[prepared.has_mask], rows[~prepared.has_mask], 4, 8, seed=0)
    loader = training_loader(TrainingFilms(prepared, 64, 0, PUBLISHED), sampler, 1, pin=False)
    read, workers = [], []
    for epoch in (0, 1):
        sampler.start(epoch, 0.5)
        read.append([row for batch in loader for row in batch["row"].tolist()])
        workers.append(loader._iterator._workers[0].pid)
    assert workers[0] == workers[1]
    assert read[0] != read[1]  # each epoch its own films
    assert read[1] == sampler.rows().tolist()


def test_a_film_drawn_twice_is_augmented_twice(prepared: PreparedSet) -> None:
    films = TrainingFilms(prepared, 64, 0, PUBLISHED)
    assert not torch.equal(films[0, 0, 3]["film"], films[0, 1, 3]["film"])
    assert torch.equal(films[0, 1, 3]["film"], films[0, 1, 3]["film"])


def test_evaluation_gives_each_film_once_as_it_is(prepared: PreparedSet) -> None:
    rows = [5, 3, 4]
    batches = list(evaluation_loader(EvaluationFilms(prepared, rows, 64), 2, 0, pin=False))
    assert [row for batch in batches for row in batch["row"].tolist()] == rows
    film = batches[0]["film"][1, 0].numpy()
    assert film.dtype == np.float32
    assert (film == prepared.film(3, 64).astype(np.float32) / 255).all()
    assert (batches[0]["mask"][1, 0].numpy() == prepared.mask(3, 64)).all()
    assert batches[0]["label"][1] == float(prepared.has_mask[3])


def test_training_and_evaluation_see_the_same_films(prepared: PreparedSet) -> None:
    """Without augmentation a training film is the evaluation film, but for rounding of grey levels."""
    never = dataclasses.replace(
        PUBLISHED,
        crop=(1.0, 1.0),
        **{field.name: 0 for field in dataclasses.fields(PUBLISHED) if field.name.endswith("_probability")},
    )
    for image_size in (64, 512):
        trained = TrainingFilms(prepared, image_size, 0, never)[0, 0, 2]["film"]
        tested = EvaluationFilms(prepared, [2], image_size)[0]["film"]
        assert (trained - tested).abs().max() <= 1.5 / 255
