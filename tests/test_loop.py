"""The loop: what it logs, keeps and refuses."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss

from common.compute import seed_torch
from common.distributed import Processes
from common.inference.run_networks import Predictor, Validation
from common.networks import weights
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared
from common.recipes.presets import preset_network, preset_recipe
from common.refusal import Refusal
from common.stages import STAGES
from common.training import loop
from common.training.batches import EpochSampler, TrainingFilms, training_loader
from common.training.inputs import _differences
from common.training.log import epoch_in_words
from common.training.loop import Fit
from common.training.losses import TaskLoss
from common.training.schedule import learning_rate, positive_share
from common.training.step import Learner

RECIPE = replace(
    preset_recipe("demo", STAGES["siim_classification"], "vit"),
    image_size=64, epochs=3, batch_size=4, films_per_epoch=8,
)  # fmt: skip


class Judge(Predictor):
    """Gives the scores that it is told to give, and notes which weights it was asked about."""

    def __init__(self, prepared: PreparedSet, scores: list[float]) -> None:
        super().__init__(prepared, RECIPE.image_size, torch.device("cpu"))
        object.__setattr__(self, "verdicts", iter(scores))
        object.__setattr__(self, "seen", [])

    def validation(self, net, rows, processes=None) -> Validation:
        self.seen.append(weights.tensors_digest(net.state_dict()))
        return Validation(0.1, next(self.verdicts))


def _fit(sources: Path, folder: Path, scores: list[float], recipe=RECIPE, teachers=None, **options):
    prepared = open_prepared("siim", str(sources / "siim"), "test")
    rows = np.arange(len(prepared.cases))
    sampler = EpochSampler(
        rows[prepared.has_mask], rows[~prepared.has_mask], recipe.batch_size, recipe.films_per_epoch, 0
    )
    seed_torch(0)
    net = weights.build({"network": weights.network_facts(preset_network("demo", "vit")), "task": "cls"})
    films = TrainingFilms(prepared, recipe.image_size, 0, recipe.augmentation)
    processes = Processes(torch.device("cpu"))
    judge = Judge(prepared, scores)
    fit = Fit(
        learner=Learner(net, recipe, processes, teachers=teachers),
        loader=training_loader(films, sampler, 0, pin=False),
        sampler=sampler,
        predictor=judge,
        validation=rows,
        recipe=recipe,
        processes=processes,
        folder=folder,
        facts={},
        title="test",
        **options,
    )
    best = fit.run()
    return best, [*csv.DictReader((folder / "log.csv").open())], judge.seen


def test_last_epoch_of_a_student_is_kept(workspace: Path, sources: Path) -> None:
    teachers = SimpleNamespace(say=lambda film: torch.full((len(film),), 0.5))
    best, log, seen = _fit(sources, workspace / "run", [0.4, 0.7, 0.6], teachers=teachers)
    assert (best.epoch, best.score) == (3, 0.6)
    assert weights.tensors_digest(best.state) == seen[2]
    assert [float(row["best"]) for row in log] == [0.4, 0.7, 0.6]


def test_first_of_the_best_epochs_is_kept(workspace: Path, sources: Path) -> None:
    best, log, seen = _fit(sources, workspace / "run", [0.4, 0.7, 0.7])
    assert (best.epoch, best.score) == (2, 0.7)
    assert weights.tensors_digest(best.state) == seen[1] != seen[2]
    assert [row["best"] for row in log] == ["0.4", "0.7", "0.7"]


def test_log_holds_the_schedules(workspace: Path, sources: Path) -> None:
    _, log, _ = _fit(sources, workspace / "run", [0, 0, 0])
    steps = 3 * 2
    for epoch, row in enumerate(log):
        assert int(row["step"]) == 2 * (epoch + 1)
        assert float(row["learning_rate"]) == learning_rate(
            2 * (epoch + 1), steps, RECIPE.learning_rate, RECIPE.learning_rate_floor, RECIPE.warmup_steps
        )
        assert float(row["share_expected"]) == positive_share(epoch, 3, RECIPE.share_first, RECIPE.share_drop)
    assert len(log) == 3


def test_same_seed_same_bits(workspace: Path, sources: Path) -> None:
    one, two = (_fit(sources, workspace / name, [0, 1, 2])[2] for name in "ab")
    assert one == two
    other = _fit(
        sources, workspace / "c", [0, 1, 2], replace(RECIPE, learning_rate=RECIPE.learning_rate * 2)
    )[2]
    assert one != other


def test_loss_that_is_not_finite_stops_the_run(workspace: Path, sources: Path) -> None:
    with pytest.raises(Refusal, match="not finite"):
        _fit(sources, workspace / "run", [0, 0, 0], replace(RECIPE, learning_rate=1e30))


def test_task_loss_by_hand() -> None:
    masks = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    share = masks.softmax(1)
    both = torch.cat([1 - mask, mask], 1)
    per_film = 1 - (2 * (share * both).sum((2, 3)) + 1e-5) / (share.sum((2, 3)) + both.sum((2, 3)) + 1e-5)
    logits, label = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0])
    bce = (np.log1p(np.exp(-0.3)) + np.log1p(np.exp(-2.0))) / 2

    def loss(logits: torch.Tensor | None, **changes: object) -> float:
        return float(TaskLoss(replace(RECIPE, **changes))((masks, logits), mask, label))

    assert loss(None, dice_weight=1.0) == pytest.approx(float(per_film.mean()), rel=1e-5)
    assert loss(logits, dice_weight=0.5) == pytest.approx(0.5 * float(per_film.mean()) + bce, rel=1e-5)
    assert isinstance(TaskLoss(RECIPE).dice, DiceLoss)
    assert loss(None, dice_weight=1.0, dice_films="positives") == pytest.approx(
        float(per_film[0].mean()), rel=1e-5
    )
    pixels = -float((mask * share[:, 1:].log() + (1 - mask) * share[:, :1].log()).mean())
    assert loss(None, dice_weight=0.0, bce_weight=3.0) == pytest.approx(3 * pixels, rel=1e-5)


def test_batch_without_positives_learns_from_its_pixels_alone() -> None:
    masks, mask = torch.randn(2, 2, 8, 8, requires_grad=True), torch.zeros(2, 1, 8, 8)
    loss_of = TaskLoss(replace(RECIPE, dice_weight=1.0, bce_weight=1.0, dice_films="positives"))
    loss = loss_of((masks, None), mask, torch.zeros(2))
    loss.backward()
    background = masks.detach().softmax(1)[:, 0]
    assert float(loss.detach()) == pytest.approx(-float(background.log().mean()), rel=1e-5)
    assert bool((masks.grad != 0).all())
    TaskLoss(replace(RECIPE, dice_films="positives"))((masks, None), mask, torch.zeros(2)).backward()


def test_differences_are_named() -> None:
    made = {"recipe": {"epochs": 20, "seed": 0}, "content": "a", "lineage": [1]}
    asked = {"recipe": {"epochs": 3, "seed": 0}, "content": "b", "lineage": [1]}
    assert _differences(made, asked) == ["other films", "recipe.epochs: 20 -> 3"]
    assert _differences(made, made) == []


def test_loop_stays_readable_in_five_minutes() -> None:
    """The file in which draw, step, note, validate, keep the best and save stand in order."""
    lines = Path(loop.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150


def test_each_epoch_is_told(workspace: Path, sources: Path) -> None:
    told: list[int] = []
    best, log, _ = _fit(
        sources, workspace / "run", [0.4, 0.7, 0.7], after_epoch=lambda log: told.append(len(log))
    )
    assert told == [1, 2, 3]
    rows = [{key: float(value) if value else None for key, value in row.items()} for row in log]
    rows[-1] |= {"epoch": 3, "step": 6, "loss": 0.51234, "seconds": 7.4}
    assert best.epoch == 2
    assert epoch_in_words("eff_cls_siim", "cls", 3, rows, "4 s left") == (
        "eff_cls_siim epoch 3/3: step 6, loss 0.512, AUROC 0.700, best 0.700 at epoch 2.0, 7 s; 4 s left"
    )
