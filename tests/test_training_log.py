"""What a run leaves to be seen while it trains: log, TensorBoard events, curves and films."""

from __future__ import annotations

import csv
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from matplotlib.axes import Axes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.inference.film_sheets import FOUND, TILE, TRUTH, Example, films_sheet, tile_origin
from common.refusal import Refusal
from common.training.log import COLUMNS, TrainingLog

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # the reader warns of what it purges

TITLE = "fold_0_eff_seg_ntuh (validation n = 98)"
SIDE = 96


def _row(epoch: int, **changes: Any) -> dict[str, Any]:
    row = {
        "epoch": epoch,
        "step": 10 * epoch,
        "learning_rate": 1e-4 / 3,
        "share_expected": 0.8,
        "share_drawn": 0.1 + 0.2 * epoch,
        "loss": 1 / (epoch + 2),
        "dice": epoch / 7,
        "auroc": None,
        "score": epoch / 7,
        "best": changes.get("score", epoch / 7),
        "seconds": 4.75,
    }
    return row | changes


def _box(left: int, right: int) -> np.ndarray:
    """A mask of rows 24 to 71, (SIDE, SIDE) bool."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[24:72, left:right] = True
    return mask


def _example(truth: np.ndarray, found: np.ndarray, probability: float | None = None) -> Example:
    return Example(np.full((SIDE, SIDE), 100, np.uint8), truth, found.astype(np.float32), probability)


NOTHING = np.zeros((SIDE, SIDE), bool)
MISSED = _example(_box(24, 48), _box(60, 84) * 0.6)


def _run(folder: Path, epochs: int, **session: Any) -> TrainingLog:
    """Go on to the end of an epoch, ten steps each; the loss of a step is a thousandth of its number."""
    record = TrainingLog(folder, TITLE, **session)
    for epoch in range(len(record.log) + 1, epochs + 1):
        for step in range(10 * epoch - 9, 10 * epoch + 1):
            record.step(step, step / 1000, 1e-4)
        record.epoch(_row(epoch), [MISSED])
    return record


def _events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def _scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _events(folder).Scalars(tag)]


def _picture(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def _has(area: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether an RGB area holds the colour, give or take what smoothing mixes in."""
    return bool((np.abs(area.astype(int) - colour).max(axis=-1) <= 40).any())


@contextmanager
def _no_file_longer_than(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail as on a full disk: in part first, then with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- log.csv ---------------------------------------------------------------------------------------


def test_log_reads_back_exactly(tmp_path: Path) -> None:
    rows = [_row(1), _row(2, dice=None, auroc=np.float64(0.1) + 0.2)]
    record = TrainingLog(tmp_path, TITLE)
    for row in rows:
        record.epoch(row, [])
    assert record.log == rows
    with open(tmp_path / "log.csv", newline="") as file:
        reader = csv.DictReader(file)
        read = list(reader)
    assert tuple(reader.fieldnames) == COLUMNS
    assert [{name: float(cell) if cell else None for name, cell in row.items()} for row in read] == rows


@pytest.mark.slow
def test_log_is_cut_back(tmp_path: Path) -> None:
    before = _run(tmp_path, 3)
    whole = (tmp_path / "log.csv").read_bytes()
    record = TrainingLog(tmp_path, TITLE, before.log[:1], step=12)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    assert record.log == before.log[:1]
    assert len(before.log) == 3
    given = before.log[:1]
    _run(tmp_path, 3, log=given, step=12)
    assert len(given) == 1
    assert (tmp_path / "log.csv").read_bytes() == whole


def test_run_that_begins_again_leaves_nothing_of_the_earlier_one(tmp_path: Path) -> None:
    _run(tmp_path, 2)
    TrainingLog(tmp_path, TITLE).step(1, 0.5, 1e-4)
    assert (tmp_path / "log.csv").read_text().splitlines() == [",".join(COLUMNS)]
    assert not list(tmp_path.glob("*.png"))
    assert _scalars(tmp_path, "train/loss") == [(1, 0.5)]


def test_row_without_a_column(tmp_path: Path) -> None:
    row = _row(1)
    del row["dice"]
    record = TrainingLog(tmp_path, TITLE)
    with pytest.raises(KeyError, match="dice"):
        record.epoch(row, [])
    assert record.log == []


# --- TensorBoard -----------------------------------------------------------------------------------


def test_events_of_steps_and_epochs(tmp_path: Path) -> None:
    record = TrainingLog(tmp_path, TITLE)
    record.step(1, 0.75, 1e-3)
    record.step(2, 0.5, 2e-3)
    record.epoch(_row(1, step=2), [MISSED])
    events = _events(tmp_path)  # while the run goes on
    assert _scalars(tmp_path, "train/loss") == [(1, 0.75), (2, 0.5)]
    assert _scalars(tmp_path, "train/learning_rate") == [(1, pytest.approx(1e-3)), (2, pytest.approx(2e-3))]
    measured = {name for name, value in _row(1).items() if value is not None and name != "step"}
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/learning_rate"} | {
        f"epoch/{name}" for name in measured
    }
    for name in measured:
        assert _scalars(tmp_path, f"epoch/{name}") == [(2, pytest.approx(_row(1)[name]))]
    (film,) = events.Images("validation/films")
    shown = cv2.imdecode(np.frombuffer(film.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (film.step, film.height, film.width) == (2, *shown.shape[:2])
    assert np.abs(shown.astype(int) - _picture(tmp_path / "films.png")).mean() < 2  # it is a JPEG
    assert _has(_edge(shown, 24), TRUTH)
    assert _has(_edge(shown, 60), FOUND)


def test_steps_after_the_resumed_one_are_purged(tmp_path: Path) -> None:
    first = _run(tmp_path, 3)
    first.close()
    second = TrainingLog(tmp_path, TITLE, first.log[:1], step=14)
    for step in range(15, 18):
        second.step(step, -step, 0)
    second.close()
    expected = [(step, pytest.approx(step / 1000)) for step in range(1, 15)]
    assert _scalars(tmp_path, "train/loss") == [*expected, (15, -15), (16, -16), (17, -17)]
    assert [step for step, _ in _scalars(tmp_path, "epoch/loss")] == [10]
    assert [film.step for film in _events(tmp_path).Images("validation/films")] == [10]


def test_twelve_sessions_within_a_second_are_read_in_order(tmp_path: Path) -> None:
    for session in range(12):
        record = TrainingLog(tmp_path, TITLE, step=1 + session)
        record.step(2 + session, session, 0)
        record.step(3 + session, -1, 0)  # is purged by the next session
        record.close()
    assert _scalars(tmp_path, "train/loss") == [*((2 + s, s) for s in range(12)), (14, -1)]


@pytest.mark.slow
def test_killed_run_keeps_its_steps_quietly(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("print('TensorFlow is slow and speaks')")
    code = f"""
import os, signal
from pathlib import Path
from common.training.log import TrainingLog
record = TrainingLog(Path({str(tmp_path / "run")!r}), "title")
for step in range(1, 8):
    record.step(step, step, 0.1)
record.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "", "")
    assert _scalars(tmp_path / "run", "train/loss") == [(step, step) for step in range(1, 8)]


# --- pictures --------------------------------------------------------------------------------------


def _edge(sheet: np.ndarray, column: int, tile: int = 0) -> np.ndarray:
    """What a sheet shows around the middle of a film's column, (1, 9, 3)."""
    y, x = tile_origin(tile)
    y, x = y + TILE // 2, x + round(column * TILE / SIDE)
    return sheet[y : y + 1, x - 4 : x + 5]


def test_outlines_lie_where_the_masks_are(tmp_path: Path) -> None:
    record = TrainingLog(tmp_path, TITLE)
    record.epoch(_row(1), [_example(NOTHING, NOTHING, 0.1)] * 4 + [MISSED])
    sheet = _picture(tmp_path / "films.png")
    for column, colour, other in ((24, TRUTH, FOUND), (48, TRUTH, FOUND), (60, FOUND, TRUTH)):
        assert _has(_edge(sheet, column, 4), colour)
        assert not _has(_edge(sheet, column, 4), other)
    y, x = tile_origin(4)
    inside = sheet[y : y + TILE, x : x + TILE][TILE // 2 - 20 : TILE // 2 + 20]
    for column in (12, 36, 54, 72, 90):  # between the outlines nothing is covered
        assert (inside[:, round(column * TILE / SIDE)] == 100).all()
    y, x = tile_origin(3)
    assert (sheet[y : y + TILE, x : x + TILE] == 100).all()


def test_perfect_map_shows_both_outlines() -> None:
    mask = _box(24, 48)
    sheet = films_sheet("epoch 1", [_example(mask, mask)])
    for column in (24, 48):
        assert _has(_edge(sheet, column), TRUTH)
        assert _has(_edge(sheet, column), FOUND)


def test_map_of_exactly_the_threshold_finds_nothing() -> None:
    sheet = films_sheet("epoch 1", [_example(NOTHING, np.full((SIDE, SIDE), 0.5))])
    y, x = tile_origin(0)
    assert (sheet[y : y + TILE, x : x + TILE] == 100).all()


@pytest.mark.parametrize("side", [64, 320, 512, 640, 1024])
def test_films_of_any_size(side: int) -> None:
    mask = np.zeros((side, side), bool)
    mask[side // 4 : -side // 4, side // 4 : side // 2] = True
    film = np.full((side, side), 100, np.uint8)
    film.flags.writeable = mask.flags.writeable = False  # as the prepared set gives them
    sheet = films_sheet("epoch 1", [Example(film, mask, mask.astype(np.float32), 0.5)])
    y, x = tile_origin(0)
    edge = sheet[y + TILE // 2 : y + TILE // 2 + 1, x + TILE // 4 - 4 : x + TILE // 4 + 5]
    assert _has(edge, TRUTH)
    assert _has(edge, FOUND)


def test_captions_follow_dice_and_probability() -> None:
    def caption(example: Example) -> bytes:
        y, x = tile_origin(0)
        return films_sheet("epoch 1", [example])[y + TILE + 1 :, x : x + TILE].tobytes()

    mask, empty = _box(24, 48), NOTHING
    assert caption(_example(mask, mask)) != caption(_example(mask, _box(60, 84)))
    assert caption(_example(mask, mask, 0.2)) != caption(_example(mask, mask, 0.3))
    assert caption(_example(empty, empty)) == caption(_example(empty, mask))  # `negative` either way
    assert caption(_example(empty, empty)) != caption(_example(mask, mask))
    assert caption(_example(empty, empty, 0.2)) != caption(_example(empty, empty))


@pytest.mark.slow
def test_pictures_change_from_epoch_to_epoch(tmp_path: Path) -> None:
    record = TrainingLog(tmp_path, TITLE)
    seen = []
    for epoch in (1, 2):
        record.epoch(_row(epoch), [MISSED])
        seen.append([(tmp_path / name).read_bytes() for name in ("curves.png", "films.png")])
    assert all(one != two for one, two in zip(*seen, strict=True))
    record.epoch(_row(3), [])
    assert (tmp_path / "films.png").read_bytes() == seen[1][1]
    again = TrainingLog(tmp_path, TITLE, record.log[:1], step=10)
    assert (tmp_path / "curves.png").read_bytes() == seen[0][0]
    again.close()


@pytest.mark.parametrize(
    "log",
    [
        [_row(1)],
        [_row(e, auroc=0.5 + e / 20, dice=None if e % 3 else 0.4, score=0.5 + e / 20) for e in range(1, 9)],
        [_row(e, dice=0.5, auroc=0.9, score=0.9) for e in range(1, 121)],
    ],
    ids=["one epoch", "gaps", "long and flat"],
)
@pytest.mark.filterwarnings("error::UserWarning")  # as matplotlib's are
def test_curves_of_any_log(tmp_path: Path, log: list[dict[str, Any]]) -> None:
    TrainingLog(tmp_path, TITLE, log).close()
    picture = _picture(tmp_path / "curves.png")
    assert picture.shape == (768, 1200, 3)
    quarters = [picture[a : a + 330, b : b + 600] for a in (60, 420) for b in (0, 600)]
    assert all((quarter.std(axis=-1) > 30).any() for quarter in quarters)  # a coloured curve in each


@pytest.mark.parametrize("epochs", [1, 2, 3, 100])
def test_ticks_are_whole_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    figures = []
    monkeypatch.setattr(
        "common.training.learning_curves.save_plot", lambda figure, path: figures.append(figure)
    )
    TrainingLog(tmp_path, TITLE, [_row(e) for e in range(1, epochs + 1)]).close()
    for axis in figures[0].axes:
        first, last = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if first <= tick <= last]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)


def test_curve_goes_on_over_epochs_that_were_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, plot = {}, Axes.plot

    def noted(axis: Axes, *args: Any, **style: Any) -> Any:
        drawn[style.get("label")] = args
        return plot(axis, *args, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    log = [_row(e, dice=None if e % 3 else e / 10, auroc=0.9, score=0.9) for e in range(1, 8)]
    TrainingLog(tmp_path, TITLE, log).close()
    assert drawn["Dice"] == ((3, 6), (0.3, 0.6))
    assert drawn["AUROC"] == (tuple(range(1, 8)), (0.9,) * 7)


def test_best_epoch_is_the_first_of_equals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text: titles.append(text))
    scores = [0.2, 0.7, 0.7, 0.3]
    log = [_row(e, dice=s, auroc=0.9, score=s, best=max(scores[:e])) for e, s in enumerate(scores, start=1)]
    TrainingLog(tmp_path, TITLE, log).close()
    assert titles[-1] == "validation (kept epoch 2: Dice 0.700, AUROC 0.900)"
    TrainingLog(tmp_path, TITLE, [_row(e, dice=s, score=s) for e, s in enumerate(scores, start=1)]).close()
    assert titles[-1] == "validation (kept epoch 4: Dice 0.300)"  # of a student: the last one


# --- failing writes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("size", "name"), [(100, "log.csv"), (4_000, "curves.png"), (300_000, "films.png")])
def test_failed_write_is_refused_and_the_earlier_file_stays(tmp_path: Path, size: int, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    examples = [Example(noise, NOTHING, NOTHING.astype(np.float32), None)] * 8
    record = TrainingLog(tmp_path, TITLE)
    record.epoch(_row(1), examples)
    before = (tmp_path / name).read_bytes()
    with _no_file_longer_than(size), pytest.raises(Refusal, match=rf"cannot write .*{name}"):
        record.epoch(_row(2), examples)
    assert (tmp_path / name).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_full_disk_under_the_events_is_refused_at_once(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    record = TrainingLog(tmp_path, TITLE)
    record.step(1, 0.5, 0.1)
    (file,) = tmp_path.glob("events*")
    with (
        _no_file_longer_than(file.stat().st_size + 20),
        pytest.raises(Refusal, match=r"cannot write .*events"),
    ):
        record.step(2, 0.5, 0.1)
    record.close()
    resumed = TrainingLog(tmp_path, TITLE, step=1)
    resumed.step(2, 0.25, 0.1)
    resumed.close()
    assert _scalars(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25)]  # the torn record is passed over
    assert capfd.readouterr().err == ""


def test_failed_flush_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = TrainingLog(tmp_path, TITLE)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Refusal, match="Input/output error"):
        record.flush()
