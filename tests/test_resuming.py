"""A run that is stopped at any moment and started again ends as if it had never stopped, or is refused."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PATIENCE, REPOSITORY, STEP_1_1, STEP_1_2, Held, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common import start
from common.compute import seed_torch
from common.distributed import Processes
from common.files import whole_file
from common.inference.film_sheets import films_sheet
from common.inference.run_networks import Predictor, Validation
from common.networks import weights
from common.networks.weights import tensors_digest
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared
from common.recipes.presets import preset_network, preset_recipe
from common.recipes.recipe import Recipe
from common.refusal import Refusal, run_script
from common.stages import STAGES
from common.training import checkpoint, loop
from common.training import log as training_log
from common.training.background import Background
from common.training.batches import EpochSampler, TrainingFilms, training_loader
from common.training.log import TrainingLog
from common.training.loop import Fit
from common.training.schedule import learning_rate, rate_of
from common.training.step import Learner

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # the reader warns of what it purges

EPOCHS, STEPS = 3, 3  # of a run in this process, and its steps an epoch
RECIPE = replace(
    preset_recipe("demo", STAGES["siim_classification"], "vit"),
    image_size=64, epochs=EPOCHS, batch_size=4, films_per_epoch=4 * STEPS,
)  # fmt: skip


@pytest.fixture(scope="module")
def home(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with prepared films and nothing else. Do not change it: copy it."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTX_WORKSPACE", str(root))
        open_prepared("siim", str(sources / "siim"), "test")
    return root


@pytest.fixture(scope="module")
def films(home: Path) -> PreparedSet:
    return PreparedSet(home / "data" / "prepared" / "siim")


@pytest.fixture(autouse=True)
def quick_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than all the rest of a run in this process."""

    def draw(path: Path, *_: object) -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"curves")

    monkeypatch.setattr(training_log, "curves_picture", draw)


@pytest.fixture(autouse=True)
def in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What strikes in the background strikes at once: a kill does not wait for the next step.

    The run that is never interrupted has been made before this: it writes in the background.
    """

    def do(background: Background, *works: Callable[[], object]) -> None:
        for work in works:
            work()

    monkeypatch.setattr(Background, "do", do)


# --- a run in this process -------------------------------------------------------------------------

NETWORK = replace(
    preset_network("demo", "vit"),
    encoder_args={
        "embed_dims": [16, 16, 32, 32],
        "depths": [1] * 4,
        "num_heads": [1] * 4,
        "window_sizes": [4] * 4,
    },
    decoder_channels=(16, 16, 8, 8),
)


class Stop(BaseException):
    """Stands for a kill: it strikes in the middle, and no `except` of the project takes it for its own."""


class Judge(Predictor):
    """Validates as always, but the score follows from every bit of the network: the best epoch does, too."""

    def validation(self, net, rows, processes=None) -> Validation:
        dice = super().validation(net, rows, processes).dice
        return Validation(dice, int(tensors_digest(net.state_dict())[:8], 16) / 2**32)


class Watched(Learner):
    """Notes the steps that it has done, and the learning rate that the optimiser had in each."""

    rates: list[tuple[int, float]]

    def step(self, batch: dict[str, torch.Tensor], rate: float, key: tuple[int, ...]) -> torch.Tensor:
        found = super().step(batch, rate, key)
        self.rates.append((key[-1], self.optimiser.param_groups[0]["lr"]))
        return found


def _fit(
    films: PreparedSet,
    folder: Path,
    recipe: Recipe = RECIPE,
    dataset: type[TrainingFilms] = TrainingFilms,
    learner: type[Watched] = Watched,
    **options: Any,
) -> Fit:
    """A run as a stage assembles it."""
    held_out = films.part == 1
    positives, negatives = (np.flatnonzero(~held_out & (films.has_mask == label)) for label in (True, False))
    sampler = EpochSampler(positives, negatives, recipe.batch_size, recipe.films_per_epoch, recipe.seed)
    seed_torch(0)
    net = weights.build({"network": weights.network_facts(NETWORK), "task": "cls"})
    processes = Processes(torch.device("cpu"))
    learning = learner(net, recipe, processes)
    learning.rates = []
    return Fit(
        learner=learning,
        loader=training_loader(
            dataset(films, recipe.image_size, recipe.seed, recipe.augmentation), sampler, 0, pin=False
        ),
        sampler=sampler,
        predictor=Judge(films, recipe.image_size, torch.device("cpu")),
        validation=np.flatnonzero(held_out),
        recipe=recipe,
        processes=processes,
        folder=folder,
        facts={"recipe": {"epochs": recipe.epochs}},
        title="test",
        **options,
    )


def _log(folder: Path) -> list[dict[str, str]]:
    """`log.csv` without what no two runs have in common."""
    with open(folder / "log.csv", encoding="utf-8") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


def _end(fit: Fit) -> dict[str, Any]:
    """Run to the end; everything that must not depend on interruptions."""
    best = fit.run()
    moments = fit.learner.optimiser.state_dict()["state"]
    return {
        "best": (tensors_digest(best.state), best.epoch, best.score),
        "last": tensors_digest(fit.learner.net.state_dict()),
        "optimiser": tensors_digest(
            {f"{n}.{key}": t for n, each in moments.items() for key, t in each.items()}
        ),
        "log": _log(fit.folder),
    }


@pytest.fixture(scope="module")
def uninterrupted(films: PreparedSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    fit = _fit(films, tmp_path_factory.mktemp("uninterrupted"))
    end = _end(fit)
    assert [step for step, _ in fit.learner.rates] == [*range(1, EPOCHS * STEPS + 1)]
    assert [row["epoch"] for row in end["log"]] == ["1", "2", "3"]
    return end


def _stopping(call: Callable[..., Any], time: int, after: bool = False, name: str = "") -> Callable[..., Any]:
    """A function that stops the run at its `time`-th call (that writes the file `name`)."""
    times = itertools.count(1)

    def wrapped(*args: Any, **options: Any) -> Any:
        now = (not name or Path(args[1]).name == name) and next(times) == time
        if now and not after:
            raise Stop
        result = call(*args, **options)
        if now:
            raise Stop
        return result

    return wrapped


def _half_written(time: int) -> Callable[[object, Any], None]:
    save, times = torch.save, itertools.count(1)

    def wrapped(content: object, file: Any) -> None:
        if next(times) < time:
            return save(content, file)
        memory = io.BytesIO()
        save(content, memory)
        file.write(memory.getvalue()[: memory.tell() // 2])
        raise Stop

    return wrapped


# Where a run is stopped. Each moment is said for both ways of saving: after every epoch, and after every step
# also (then the checkpoints of an epoch are STEPS + 1).
Arm = Callable[[pytest.MonkeyPatch, Fit, bool], None]
MOMENTS: dict[str, Arm] = {
    "before the first step": lambda patch, fit, _: patch.setattr(
        fit.learner, "step", _stopping(fit.learner.step, 1)
    ),
    "in the first step": lambda patch, fit, _: patch.setattr(
        fit.learner.scaler, "step", _stopping(fit.learner.scaler.step, 1, after=True)
    ),
    "in a step": lambda patch, fit, _: patch.setattr(
        fit.learner.scaler, "step", _stopping(fit.learner.scaler.step, 5, after=True)
    ),
    "after a step": lambda patch, fit, _: patch.setattr(TrainingLog, "step", _stopping(TrainingLog.step, 5)),
    "after the last step of an epoch": lambda patch, fit, _: patch.setattr(
        TrainingLog, "step", _stopping(TrainingLog.step, 6, after=True)
    ),
    "in a validation": lambda patch, fit, _: patch.setattr(
        Predictor,
        "_seen",
        _stopping(Predictor._seen, 3),  # each epoch: once, and once for the examples
    ),
    "in the last validation": lambda patch, fit, _: patch.setattr(
        Judge, "validation", _stopping(Judge.validation, 3, after=True)
    ),
    "in the first checkpoint": lambda patch, fit, _: patch.setattr(torch, "save", _half_written(1)),
    "in a checkpoint": lambda patch, fit, often: patch.setattr(
        torch, "save", _half_written(6 if often else 2)
    ),
    "before the hard link": lambda patch, fit, often: patch.setattr(
        os, "link", _stopping(os.link, 6 if often else 1)
    ),
    "between the hard link and the rename": lambda patch, fit, often: patch.setattr(
        os, "replace", _stopping(os.replace, 8 if often else 2, name="last.pt")
    ),
    "after a rename": lambda patch, fit, often: patch.setattr(
        os, "replace", _stopping(os.replace, 8 if often else 2, after=True, name="last.pt")
    ),
    "after the last rename": lambda patch, fit, often: patch.setattr(
        os, "replace", _stopping(os.replace, 12 if often else 3, after=True, name="last.pt")
    ),
    **{
        f"{when} {name} is written": lambda patch, fit, _, time=time, after=after, name=name: patch.setattr(
            os, "replace", _stopping(os.replace, time, after, name)
        )
        for name, time in (("log.csv", 3), ("curves.png", 2), ("films.png", 2))
        for when, after in (("before", False), ("after", True))
    },
}


@pytest.mark.parametrize(("seconds", "drawn"), [(0.0, [1, 2, 3]), (3600.0, [1, 3])])
def test_pictures_are_drawn_first_last_and_now_and_then(
    films: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, drawn: list[int]
) -> None:
    seen: dict[str, list[int]] = {"curves": [], "films": []}
    monkeypatch.setattr("common.training.log.PICTURE_SECONDS", seconds)
    monkeypatch.setattr(
        "common.training.log.curves_picture", lambda path, title, log: seen["curves"].append(len(log))
    )
    sheet = films_sheet

    def watched(title: str, *args: Any) -> np.ndarray:
        seen["films"].append(int(title.split()[-1]))
        return sheet(title, *args)

    monkeypatch.setattr("common.training.log.films_sheet", watched)
    _fit(films, tmp_path).run()
    assert seen == {"curves": drawn, "films": drawn}


# How often checkpoints are written is no matter at these moments
BOTH_WAYS = [
    moment for moment in MOMENTS if not any(word in moment for word in ("first", "written", "last val"))
]


@pytest.mark.parametrize(
    ("moment", "often"), [*((moment, False) for moment in MOMENTS), *((moment, True) for moment in BOTH_WAYS)]
)
def test_run_that_is_stopped_ends_as_if_it_were_not(
    films: PreparedSet, uninterrupted: dict[str, Any], tmp_path: Path, moment: str, often: bool
) -> None:
    options = {"save_minutes": 0.0} if often else {}
    fit = _fit(films, tmp_path, **options)
    with pytest.MonkeyPatch.context() as patch:
        MOMENTS[moment](patch, fit, often)
        with pytest.raises(Stop):
            fit.run()
    done = checkpoint.read_progress(tmp_path / "last.pt") or (0, 0)
    log = _log(tmp_path)
    assert log == uninterrupted["log"][: len(log)]
    assert len(log) >= done[0]
    again = _fit(films, tmp_path, **options)
    assert _end(again) == uninterrupted
    steps = len(fit.learner.rates) + len(again.learner.rates)
    assert [step for step, _ in again.learner.rates] == [
        *range(done[0] * STEPS + done[1] + 1, EPOCHS * STEPS + 1)
    ]
    assert steps - EPOCHS * STEPS <= (1 if often else STEPS)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_run_that_is_stopped_after_every_step(
    films: PreparedSet, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    steps = []
    for _ in range(EPOCHS * STEPS):
        fit = _fit(films, tmp_path, save_minutes=0.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit.learner, "step", _stopping(fit.learner.step, 2))
            with contextlib.suppress(Stop):
                fit.run()
        steps += [step for step, _ in fit.learner.rates]
    assert steps == [*range(1, EPOCHS * STEPS + 1)]
    assert _end(_fit(films, tmp_path, save_minutes=0.0)) == uninterrupted


AVERAGED = replace(RECIPE, ema_decay=0.9)


@pytest.mark.parametrize("moment", ["in a step", "in a validation", "in a checkpoint"])
def test_moving_average_goes_on_as_if_it_were_not_stopped(
    films: PreparedSet, uninterrupted: dict[str, Any], tmp_path: Path, moment: str
) -> None:
    whole = _fit(films, tmp_path / "whole", AVERAGED)
    (tmp_path / "whole").mkdir()
    end = _end(whole)
    assert end["best"][0] != uninterrupted["best"][0]  # the average is kept
    assert end["last"] == uninterrupted["last"]  # and is learned from by no step
    fit = _fit(films, tmp_path, AVERAGED, save_minutes=0.0)
    with pytest.MonkeyPatch.context() as patch:
        MOMENTS[moment](patch, fit, True)
        with pytest.raises(Stop):
            fit.run()
    again = _fit(films, tmp_path, AVERAGED, save_minutes=0.0)
    assert _end(again) == end
    averages = [each.learner.average.state_dict() for each in (whole, again)]
    assert tensors_digest(averages[0]) == tensors_digest(averages[1])


# --- a loss that is not finite ---------------------------------------------------------------------


class Spoiled(TrainingFilms):
    """The films of one step are not finite. Its number and what was drawn in it are noted."""

    step = 0
    drawn: list[int]

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, torch.Tensor]:
        epoch, draw, row = key
        item = super().__getitem__(key)
        if epoch * STEPS + draw // RECIPE.batch_size + 1 == self.step:
            self.drawn.append(row)
            item["film"] = item["film"] * float("nan")
        return item


def _names(films: PreparedSet, step: int) -> list[str]:
    """The films of a step, by the sampler."""
    sampler = _fit(films, Path("nowhere")).sampler
    epoch = (step - 1) // STEPS
    sampler.start(epoch, 0.8 - 0.5 * epoch / EPOCHS)
    return [films.cases["case"][row] for _, _, row in [*sampler][(step - 1) % STEPS]]


def _is_finite(path: Path) -> bool:
    tensors = torch.load(path, weights_only=True)["tensors"].values()
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return (
        [(event.step, event.value) for event in events.Scalars(tag)]
        if tag in events.Tags()["scalars"]
        else []
    )


@pytest.mark.parametrize("often", [False, True], ids=["every epoch", "every step"])
@pytest.mark.parametrize("step", [1, 5, 6])
def test_loss_that_is_not_finite_is_refused_with_its_films(
    films: PreparedSet, uninterrupted: dict[str, Any], tmp_path: Path, step: int, often: bool
) -> None:
    options = {"save_minutes": 0.0} if often else {}
    fit = _fit(films, tmp_path, dataset=Spoiled, **options)
    fit.loader.dataset.step, fit.loader.dataset.drawn = step, []
    with pytest.raises(Refusal, match="not finite") as caught:
        fit.run()
    said = str(caught.value)
    rate = rate_of(RECIPE, step, STEPS)
    assert f"step {step} (epoch {(step - 1) // STEPS + 1}), learning rate {rate:g}" in said
    named = next(line for line in said.splitlines() if line.strip().startswith("films:"))
    assert named.split(maxsplit=1)[1].split(", ") == _names(films, step)
    assert films.cases["case"].iloc[fit.loader.dataset.drawn].tolist() == _names(films, step)
    assert "--fresh" in said
    # what was written is of the steps before, and the run can go on from it
    path = tmp_path / "last.pt"
    kept = step - 1 if often else (step - 1) // STEPS * STEPS
    assert path.is_file() == (f"{path}: the state before" in said) == (kept > 0)
    if kept:
        epochs, steps = checkpoint.read_progress(path)
        assert epochs * STEPS + steps == kept
        assert _is_finite(path)
    assert _log(tmp_path) == uninterrupted["log"][: (step - 1) // STEPS]
    losses = _scalars(tmp_path, "train/loss")
    assert [number for number, _ in losses] == [*range(1, step)]
    assert all(math.isfinite(loss) for _, loss in losses)
    if step == 5:
        assert _end(_fit(films, tmp_path)) == uninterrupted


@pytest.mark.parametrize("step", [2, STEPS])
@pytest.mark.parametrize("often", [False, True], ids=["every epoch", "every step"])
def test_gradient_that_is_not_finite_is_refused_with_its_films(
    films: PreparedSet, tmp_path: Path, step: int, often: bool
) -> None:
    """The loss of such a step is finite, but its weights are not: nothing of them may be kept."""
    fit = _fit(films, tmp_path, **({"save_minutes": 0.0} if often else {}))
    weight = next(fit.learner.net.parameters())
    weight.register_hook(
        lambda gradient: gradient * (float("inf") if len(fit.learner.rates) == step - 1 else 1)
    )
    with pytest.raises(Refusal, match="not finite") as caught:
        fit.run()
    said = str(caught.value)
    assert f"step {step} (epoch 1)" in said
    assert ", ".join(_names(films, step)) in said
    path = tmp_path / "last.pt"
    assert path.is_file() == often
    assert not often or (_is_finite(path) and checkpoint.read_progress(path) == (0, step - 1))
    assert _log(tmp_path) == []


# --- the published schedules, as a run records them ------------------------------------------------


class Idle(Watched):
    """Learns nothing, quickly."""

    def step(self, batch: dict[str, torch.Tensor], rate: float, key: tuple[int, ...]) -> torch.Tensor:
        self.rates.append((key[-1], rate))
        return torch.tensor([1 / key[-1], 0.5])


class NoFilms(TrainingFilms):
    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, torch.Tensor]:
        return {"row": torch.tensor(key[2])}


def _check_schedules(
    folder: Path, recipe: Recipe, steps: int, rise: int, rates: list[tuple[int, float]]
) -> None:
    total = recipe.epochs * steps
    recorded = _scalars(folder, "train/learning_rate")
    assert [step for step, _ in recorded] == [*range(1, total + 1)]
    highest, floor = recipe.learning_rate, recipe.learning_rate_floor
    for (step, value), (_, used) in zip(recorded, rates, strict=True):
        assert used == learning_rate(step, total, highest, floor, recipe.warmup_steps)
        assert value == np.float32(used)
        by_hand = np.interp(step, [0, rise, total], [0, highest, floor])
        assert used == pytest.approx(by_hand, rel=1e-9)
    for epoch, row in enumerate(_log(folder)):
        assert float(row["share_expected"]) == 0.8 - 0.5 * epoch / recipe.epochs
        assert int(row["step"]) == (epoch + 1) * steps
        assert float(row["learning_rate"]) == rates[(epoch + 1) * steps - 1][1]
    assert len(_log(folder)) == recipe.epochs


def test_short_run_records_the_schedules(films: PreparedSet, tmp_path: Path) -> None:
    """5 epochs of 4 steps, stopped in step 11: a tenth of the steps is the warm-up."""
    recipe = replace(RECIPE, epochs=5, films_per_epoch=16)
    fit = _fit(films, tmp_path, recipe, save_minutes=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit.learner, "step", _stopping(fit.learner.step, 11))
        with pytest.raises(Stop):
            fit.run()
    again = _fit(films, tmp_path, recipe, save_minutes=0.0)
    again.run()
    _check_schedules(tmp_path, recipe, 4, 2, fit.learner.rates + again.learner.rates)


def test_long_run_records_the_published_schedules(
    films: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 epochs of 750 steps, the fewest that have the full warm-up of 1,500, stopped in step 1,200."""
    monkeypatch.setattr(loop, "examples", lambda *_: [])
    monkeypatch.setattr(Judge, "validation", lambda *_: Validation(0.5, 0.5))
    published = preset_recipe("published", STAGES["ntuh_classification"], "vit")
    recipe = replace(published, epochs=4, films_per_epoch=750 * published.batch_size)
    fit = _fit(films, tmp_path, recipe, NoFilms, Idle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit.learner, "step", _stopping(fit.learner.step, 1200))
        with pytest.raises(Stop):
            fit.run()
    again = _fit(films, tmp_path, recipe, NoFilms, Idle)
    again.run()
    assert again.learner.rates[0][0] == 751  # the steps of the epoch were done again, and recorded once
    _check_schedules(tmp_path, recipe, 750, 1500, fit.learner.rates[:750] + again.learner.rates)


# --- a stage, as its command runs it ---------------------------------------------------------------

NAME = "vit_seg_siim"
RUN = {"preset": "demo", "image-size": 64, "epochs": 6, "batch-size": 4, "system": "vit", "save-minutes": 0}


def _flags(**changes: object) -> list[str]:
    """Flags of step 1.1, with changes: None leaves a flag out, True gives it without a value."""
    flags = RUN | {name.replace("_", "-"): value for name, value in changes.items()}
    given = {f"--{name}": value for name, value in flags.items() if value is not None}
    return [
        part for name, value in given.items() for part in ([name] if value is True else [name, str(value)])
    ]


@dataclass
class Stage:
    """Runs a training stage in a workspace: in this process, or by its script."""

    workspace: Path
    folder: str = STEP_1_1
    key: str = "siim_segmentation"

    def __call__(self, expect: int = 0, **changes: object) -> str:
        """Run it in this process, which is seconds quicker than the script; all that it printed."""
        printed = io.StringIO()
        status = 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            patch.setenv("PTX_WORKSPACE", str(self.workspace))
            patch.setattr(sys, "argv", ["train.py", "--gpu", "cpu", *_flags(**changes)])
            try:
                run_script(lambda: start.train(self.key, "A stage."))
            except SystemExit as end:
                status = end.code
            finally:
                torch.use_deterministic_algorithms(False)
        assert status == expect, printed.getvalue()
        return printed.getvalue()

    def script(self, held: Held | None = None, **changes: object) -> subprocess.Popen[str]:
        """Start its script, as a process group of its own."""
        environment = {
            **os.environ,
            "PTX_WORKSPACE": str(self.workspace),
            "VIRTUAL_ENV": sys.prefix,
            "CUDA_VISIBLE_DEVICES": "",
            **(held.environment if held else {}),
        }
        return subprocess.Popen(
            ["bash", "train.sh", "cpu", *_flags(**changes)],
            cwd=REPOSITORY / self.folder,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stopped(self, time: int, **changes: object) -> None:
        """Run it in this process until its `time`-th validation."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Predictor, "validation", _stopping(Predictor.validation, time))
            with pytest.raises(Stop):
                self(**changes)

    def copy(self, workspace: Path) -> Stage:
        shutil.copytree(self.workspace, workspace, dirs_exist_ok=True)
        return replace(self, workspace=workspace)

    @property
    def run(self) -> Path:
        return self.workspace / self.folder / "runs" / NAME

    @property
    def weights(self) -> Path:
        return self.workspace / self.folder / "model_weights" / f"{NAME}.safetensors"

    def files(self) -> dict[str, bytes]:
        """Everything that the stage wrote, locks apart."""
        root = self.workspace / self.folder
        files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
        return {str(path.relative_to(root)): path.read_bytes() for path in files}


@dataclass
class Story:
    """What was seen of two runs of step 1.1 by its script, one of which was killed."""

    alone: Stage
    killed: Stage
    second: str = ""
    at: list[tuple[int, int]] = field(default_factory=list)


@pytest.fixture(scope="module")
def story(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Start two runs; hold one between two checkpoints, start it a second time, let it go on, and kill it."""
    root = tmp_path_factory.mktemp("story")
    story = Story(Stage(home).copy(root / "alone"), Stage(home).copy(root / "killed"))
    held = Held(root / "held", epochs=1)
    alone, process = story.alone.script(), story.killed.script(held)
    last = story.killed.run / "last.pt"
    try:
        wait_for(held.waits, process)
        before = last.stat().st_mtime_ns
        story.at.append(checkpoint.read_progress(last))
        story.second = story.killed(expect=2)
        assert last.stat().st_mtime_ns == before
        held.allow(4)
        wait_for(lambda: last.stat().st_mtime_ns > before, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    story.at.append(checkpoint.read_progress(last))
    assert process.returncode == -signal.SIGKILL
    said, wrong = alone.communicate(timeout=PATIENCE)
    assert alone.returncode == 0, said + wrong
    return story


def test_run_that_is_being_trained_is_refused(story: Story) -> None:
    assert f"\nerror: {NAME} is being trained by another process" in f"\n{story.second}"
    assert story.at[1] > story.at[0]  # and the first went on


def test_killed_run_is_resumed_by_the_same_command(story: Story, tmp_path: Path) -> None:
    stage = story.killed.copy(tmp_path)
    assert not stage.weights.exists()
    left = [stage.run / ".last.pt.123.tmp", stage.weights.with_name(f".{NAME}.safetensors.123.tmp")]
    for path in left:
        path.write_bytes(b"of a process that was killed")
    process = stage.script()
    said, wrong = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said + wrong
    epoch, step = story.at[1]
    assert f"; goes on at epoch {epoch + 1}, step {step + 1}" in said
    assert stage.weights.read_bytes() == story.alone.weights.read_bytes()
    assert _log(stage.run) == _log(story.alone.run)
    names = set(stage.files())
    assert not [name for name in names if name.endswith((".tmp", ".pt"))]
    assert names - set(story.alone.files()) == {f"runs/{NAME}/events.out.tfevents.000002"}


CHANGES = {
    "epochs": (3, "recipe.epochs: 6 -> 3"),
    "learning_rate": (0.5, "recipe.learning_rate: 0.0012 -> 0.5"),
    "seed": (7, "recipe.seed: 0 -> 7"),
    "image_size": (96, "recipe.image_size: 64 -> 96"),
    "batch_size": (2, "recipe.batch_size: 4 -> 2"),
    "clip_norm": (1, "recipe.clip_norm: 5.0 -> 1.0"),
}


def _refused_unchanged(stage: Stage, differences: list[str], **changes: object) -> None:
    """It must be refused before any work, and name each difference."""
    before = stage.files()
    said = stage(expect=2, **changes)
    assert "error: " in said
    assert "otherwise than is asked now" in said
    assert f"  differs: {'; '.join(differences)}\n" in said
    assert "--fresh" in said
    assert stage.files() == before


@pytest.mark.parametrize("finished", [False, True], ids=["interrupted", "finished"])
def test_changed_recipe_is_refused(story: Story, tmp_path: Path, finished: bool) -> None:
    stage = (story.alone if finished else story.killed).copy(tmp_path)
    for name, (value, difference) in CHANGES.items():
        _refused_unchanged(stage, [difference], **{name: value})
    together = {name: value for name, (value, _) in CHANGES.items()}
    _refused_unchanged(stage, sorted(difference for _, difference in CHANGES.values()), **together)


def test_changed_films_are_refused(story: Story, sources: Path, tmp_path: Path) -> None:
    """A reader has changed their mind about one film."""
    stage = story.killed.copy(tmp_path / "workspace")
    siim = tmp_path / "siim"
    siim.mkdir()
    (siim / "dicom-images-train").symlink_to(sources / "siim" / "dicom-images-train")
    header, *rows = (sources / "siim" / "train-rle.csv").read_text().splitlines()
    name = next(row.split(",")[0] for row in rows if not row.endswith("-1"))
    rows = [row for row in rows if not row.startswith(name)]
    (siim / "train-rle.csv").write_text("\n".join([header, *rows, f"{name}, -1"]) + "\n")
    shutil.rmtree(stage.workspace / "data" / "prepared")
    _refused_unchanged(stage, ["other films"], siim=siim)


def test_other_earlier_weights_are_refused(story: Story, tmp_path: Path) -> None:
    first = story.alone.copy(tmp_path)
    stage = Stage(tmp_path, STEP_1_2, "siim_classification")
    less = {"epochs": 2, "films_per_epoch": 8}
    stage.stopped(2, **less)
    state, metadata = weights.read_weights(first.weights, "")
    state["unet.segmentation_head.0.bias"] += 1e-6
    del metadata["sha256"]
    weights.save_weights(first.weights, state, metadata)
    _refused_unchanged(stage, ["other earlier weights"], **less)


def test_what_changes_no_result_may_change(story: Story, tmp_path: Path) -> None:
    stage = story.killed.copy(tmp_path)
    said = stage(workers=1, save_minutes=None, checkpointing=True)
    assert "goes on at epoch" in said
    assert stage.weights.read_bytes() == story.alone.weights.read_bytes()
    assert _log(stage.run) == _log(story.alone.run)


def test_fresh_starts_anew(story: Story, tmp_path: Path) -> None:
    """The finished weights stay until the new run ends, which may be interrupted, too, and gone on with."""
    stage = story.alone.copy(tmp_path)
    before = stage.weights.read_bytes()
    assert "finished before" in stage()
    stage.stopped(2, epochs=3, fresh=True)
    assert checkpoint.read_facts(stage.run / "last.pt")["recipe"]["epochs"] == 3
    assert stage.weights.read_bytes() == before
    stage.stopped(1, epochs=2, fresh=True)  # an interrupted run is dropped
    assert checkpoint.read_progress(stage.run / "last.pt") == (0, 2)
    assert stage.weights.read_bytes() == before
    assert "goes on at epoch 1, step 3" in stage(epochs=2)
    assert weights.read_metadata(stage.weights)["recipe"]["epochs"] == 2
    assert [row["epoch"] for row in _log(stage.run)] == ["1", "2"]
    assert not list(stage.run.glob("*.pt"))


@pytest.mark.parametrize("left", [["last.pt"], ["last.pt", "previous.pt"]])
def test_finished_run_whose_checkpoint_is_left_ends_the_same(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: list[str]
) -> None:
    """As after a kill between writing the weights and dropping the checkpoints, or between dropping these."""
    stage = story.killed.copy(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _stopping_at(Path.unlink, left))
        with pytest.raises(Stop):
            stage()
    assert sorted(path.name for path in stage.run.glob("*.pt")) == left
    expected = story.alone.weights.read_bytes()
    assert stage.weights.read_bytes() == expected
    assert "goes on at epoch 7, step 1" in stage()
    assert stage.weights.read_bytes() == expected
    assert _log(stage.run) == _log(story.alone.run)
    assert not list(stage.run.glob("*.pt"))


def test_finished_run_from_imagenet_whose_checkpoint_is_left_ends_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is built once more: the first weights are needed, although finished ones are there."""
    stage = Stage(home).copy(tmp_path)
    net = weights.build({"network": weights.network_facts(preset_network("demo", "vit")), "task": "seg"})
    state = net.unet.encoder.model.state_dict()
    torch.save({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "imagenet.pt")
    flags = {"epochs": 1, "initial_weights": "imagenet", "imagenet": tmp_path / "imagenet.pt"}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "drop", _stopping(checkpoint.drop, 1))
        with pytest.raises(Stop):
            stage(**flags)
    before = stage.weights.read_bytes()
    assert "goes on at epoch 2, step 1" in stage(**flags)
    assert stage.weights.read_bytes() == before
    assert not list(stage.run.glob("*.pt"))


def _stopping_at(unlink: Callable[..., None], left: list[str]) -> Callable[..., None]:
    """Stop before the first of the checkpoints that are to be left is deleted when the weights are there."""

    def wrapped(path: Path, missing_ok: bool = False) -> None:
        finished = list(path.parents[2].glob("model_weights/*.safetensors"))
        if finished and path.name == left[-1]:
            raise Stop
        unlink(path, missing_ok=missing_ok)

    return wrapped


# --- --check ---------------------------------------------------------------------------------------


def test_check_writes_nothing_and_says_what_a_run_costs(story: Story, home: Path, tmp_path: Path) -> None:
    stage = Stage(home).copy(tmp_path)
    said = stage(check=True)
    prepared = PreparedSet(home / "data" / "prepared" / "siim")
    positives = int((prepared.has_mask & (prepared.part != 1)).sum())
    validation = int((prepared.has_mask & (prepared.part == 1)).sum())
    parameters = sum(tensor.numel() for tensor in _trainable()) / 1e6
    steps = positives // RUN["batch-size"]
    assert (
        f"{NAME}: {positives} positive films, {validation} for validation, 6 epochs of {steps} steps of 4 at "
        f"64 px, {parameters:.1f} M parameters\n"
    ) in said
    assert "GB" in said.split("memory:")[1].splitlines()[0]
    assert "s a step" in said
    assert "time:   about" in said
    assert "Nothing was trained (--check)." in said
    assert not (tmp_path / STEP_1_1).exists()


def _trainable() -> list[torch.Tensor]:
    net = weights.build({"network": weights.network_facts(preset_network("demo", "vit")), "task": "seg"})
    return [*net.parameters()]


def test_check_of_an_interrupted_run_says_where_it_goes_on(story: Story, tmp_path: Path) -> None:
    stage = story.killed.copy(tmp_path)
    (stage.run / ".last.pt.123.tmp").write_bytes(b"of a process that may still be at work")
    before = stage.files()
    epoch, step = story.at[1]
    assert f"; goes on at epoch {epoch + 1}, step {step + 1}\n" in stage(check=True)
    assert "goes on" not in stage(check=True, fresh=True)
    assert stage.files() == before
    config = json.loads((stage.run / "config.json").read_text())
    assert config == checkpoint.read_facts(stage.run / "last.pt")
