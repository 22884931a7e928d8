"""Processes that share the films of an archive: each film once, and the very files that one would write."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import PREDICTION, Scripts, made_once

from benchmarks.hostile_systems import write_system
from benchmarks.listener import THRESHOLD, write_films
from common import start
from common.command_line import parse_prediction
from common.files import in_turn
from common.journal import read_journal
from common.prediction.folder import _AT_ONCE
from common.prediction.predictor import FilmPredictor
from common.prediction.written_files import MANIFEST, SHARDS, WrittenFiles
from common.preparation import crash_safe_pool
from common.preparation.film_task import Task
from common.refusal import Refusal
from common.shards import Shard

pytestmark = pytest.mark.usefixtures("one_thread")

FILMS = 2 * _AT_ONCE + 5
Predict = Callable[..., int]


# --- who takes which film --------------------------------------------------------------------------


@pytest.mark.parametrize("films", [0, 1, 16, 37, 160])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_film_is_in_one_shard_and_groups_stay_whole(films: int, count: int) -> None:
    shares = [Shard(index, count).share(range(films), 16) for index in range(count)]
    assert sorted(film for share in shares for film in share) == [*range(films)]
    groups = [tuple(share[i : i + 16]) for share in shares for i in range(0, len(share), 16)]
    assert sorted(groups) == [tuple(range(films)[i : i + 16]) for i in range(0, films, 16)]


def test_processes_of_a_shard_divide_it_further() -> None:
    shards = [Shard(index, 2).among(rank, 3) for index in range(2) for rank in range(3)]
    assert sorted(str(each) for each in shards) == [f"{index}/6" for index in range(6)]
    assert Shard.named(None).among(1, 2) == Shard(1, 2)


@pytest.mark.parametrize("text", ["4/4", "1/0", "1", "a/b", "-1/4", "1/4/2", " 0/4", "1/-1", ""])
def test_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="there is no such shard") as refused:
        parse_prediction("", ["in", "out", f"--shard={text}"])
    assert "0/4" in str(refused.value)


def test_fresh_is_refused_with_a_shard() -> None:
    with pytest.raises(Refusal, match="other shards"):
        parse_prediction("", ["in", "out", "--shard", "0/2", "--fresh"])


@pytest.mark.parametrize(
    ("held", "comes", "admitted"),
    [
        ("0/1", "0/1", False),
        ("0/1", "0/2", False),
        ("1/2", "0/1", False),
        ("1/2", "1/2", False),
        ("1/2", "0/2", True),
        ("1/2", "0/3", False),
        ("11/12", "0/2", False),
    ],
)
def test_only_shards_of_one_count_work_in_a_folder_together(
    tmp_path: Path, held: str, comes: str, admitted: bool
) -> None:
    own, other = Shard.named(comes if comes != "0/1" else None), Shard.named(held if held != "0/1" else None)
    with other.claim(tmp_path, "busy"):
        if admitted:
            own.claim(tmp_path, "busy").close()
        else:
            with pytest.raises(Refusal, match="busy"):
                own.claim(tmp_path, "busy")
    own.claim(tmp_path, "busy").close()  # it left its lock free, and its file behind


def test_manifests_of_shards_become_one(tmp_path: Path) -> None:
    shards = [WrittenFiles(tmp_path, Shard(index, 2)) for index in range(2)]
    for index, each in enumerate(shards):
        each.write({tmp_path / f"{index}": b"1"})
    assert WrittenFiles.known_in(tmp_path)
    assert not (tmp_path / MANIFEST).exists()
    WrittenFiles(tmp_path).gather()
    assert not [*(tmp_path / SHARDS).iterdir()]
    assert all(WrittenFiles(tmp_path).is_ours(tmp_path / name) for name in "01")
    assert not [path for path in WrittenFiles(tmp_path).remove_all()]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [MANIFEST]


# --- the same files as one process -----------------------------------------------------------------


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """A workspace with a system of random networks."""
    made = made_once(
        tmp_path_factory,
        "random",
        lambda folder: write_system(folder, thresholds={"cls_threshold": THRESHOLD}),
    )
    return Scripts(made, {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More films than are computed at once; two entries are none."""
    folder = tmp_path_factory.mktemp("archive")
    write_films(folder, FILMS)
    (folder / "films" / "0003.txt").write_text("not a film")
    (folder / "films" / "0007").symlink_to("nowhere")
    return folder / "films"


@pytest.fixture
def predict(system: Scripts, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Run predict in this process; its exit status."""
    monkeypatch.setenv("PTX_WORKSPACE", str(system.workspace))

    def run(*arguments: object) -> int:
        try:
            start.predict("", ["--gpu", "cpu", *map(str, arguments)])
        except SystemExit as end:
            return int(str(end.code))
        return 0

    return run


@pytest.fixture(scope="module")
def alone(system: Scripts, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("alone") / "out"
    system.run(PREDICTION, "bash", "predict.sh", str(films), str(output), "cpu", expect=3)
    assert {row["decision"] for row in _rows(output)} >= {"positive", "negative"}
    return output


def _rows(output: Path) -> list[dict[str, str]]:
    with open(output / "findings.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _some(films: Path, count: int, folder: Path) -> Path:
    """A folder of copies of the first films."""
    some = folder / "films"
    some.mkdir()
    for path in sorted(films.glob("*.dcm"))[:count]:
        shutil.copyfile(path, some / path.name)
    return some


def _written(output: Path) -> dict[str, bytes]:
    """Content of all files in an output folder, but for what says which process wrote them."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name[0] != "." and path.name != MANIFEST and path.parent.name != SHARDS
    }


def _noted(output: Path) -> set[str]:
    return set((output / MANIFEST).read_text().splitlines())


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    system: Scripts, films: Path, alone: Path, tmp_path: Path
) -> None:
    done = system.run(PREDICTION, "bash", "predict.sh", str(films), str(tmp_path), "cpu,cpu", expect=3)
    assert done.stdout.count("2 not read") == 1  # one of them speaks
    assert _written(tmp_path) == _written(alone)
    assert not (tmp_path / SHARDS).exists()
    assert _noted(tmp_path) >= _noted(alone)


# Kills the second process when it has written its third finding
_KILL = """
import os, signal
done = []
def replace(source, target, rename=os.replace):
    rename(source, target)
    done.extend([1] * (os.path.basename(os.path.dirname(target)) == "findings"))
    if os.environ.get("RANK") == "1" and len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
"""


@pytest.mark.all
def test_killed_process_costs_nothing_and_any_number_goes_on(
    system: Scripts, films: Path, alone: Path, tmp_path: Path, predict: Predict
) -> None:
    output = tmp_path / "out"
    (tmp_path / "sitecustomize.py").write_text(_KILL)
    killed = Scripts(system.workspace, system.environment | {"PYTHONPATH": str(tmp_path)})
    done = killed.run(PREDICTION, "bash", "predict.sh", str(films), str(output), "cpu,cpu", expect=1)
    assert "process 1 was killed by signal 9" in done.stderr
    finished = (output / "findings").glob("[!.]*")  # without what was half written
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert 3 <= len(before) < FILMS
    assert not (output / "findings.csv").exists()
    for index in (2, 0, 1):
        predict(films, output, "--shard", f"{index}/3")
        assert (output / "findings.csv").exists() == (index == 1)
    assert _written(output) == _written(alone)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # none of them was predicted again
    assert predict(films, output) == 3  # and one process, which brings all notes together
    assert _written(output) == _written(alone)
    assert not (output / SHARDS).exists()
    assert _noted(output) >= _noted(alone)


@pytest.mark.all
def test_array_tasks_share_the_films(
    system: Scripts,
    films: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    predict: Predict,
) -> None:
    predicted: list[int] = []
    real = FilmPredictor.findings
    monkeypatch.setattr(
        FilmPredictor, "findings", lambda self, given: predicted.append(len(given)) or real(self, given)
    )
    said = [predict(films, tmp_path, "--shard", f"{index}/4") for index in range(3)]
    assert said == [3, 0, 0]  # the first has the film that cannot be read; the last has none at all
    assert sum(predicted) == FILMS
    assert not (tmp_path / "findings.csv").exists()
    slurm = system.environment | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "GPU": "cpu"}
    task = Scripts(system.workspace, slurm)
    task.run(".", "bash", "common/cluster/predict.sbatch", str(films), str(tmp_path), expect=3)
    assert _written(tmp_path) == _written(alone)
    predict(films, tmp_path, "--shard", "1/4")  # requeued by mistake: it finds all done
    assert sum(predicted) == FILMS
    assert _written(tmp_path) == _written(alone)


@pytest.mark.all
def test_other_threads_give_the_same_decisions(
    films: Path, alone: Path, tmp_path: Path, predict: Predict
) -> None:
    some = _some(films, _AT_ONCE + 1, tmp_path)
    torch.set_num_threads(2)
    for index in range(2):
        predict(some, tmp_path / "out", "--shard", f"{index}/2")
    by_one = {row["case"]: row for row in _rows(alone)}  # named by their paths in the input
    found = _rows(tmp_path / "out")
    assert len(found) == _AT_ONCE + 1
    for row in found:
        assert row["decision"] == by_one[row["case"]]["decision"]
        assert float(row["probability"]) == pytest.approx(float(by_one[row["case"]]["probability"]), abs=1e-6)


@pytest.mark.slow
def test_array_of_one_task_of_several_is_refused(system: Scripts, films: Path, tmp_path: Path) -> None:
    slurm = system.environment | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1", "GPU": "cpu"}
    task = Scripts(system.workspace, slurm)
    done = task.run(".", "bash", "common/cluster/predict.sbatch", str(films), str(tmp_path / "out"), expect=2)
    assert done.stderr.startswith("error: --shard 3/1: there is no such shard")
    assert not (tmp_path / "out").exists()


@pytest.mark.all
def test_shards_of_other_films_make_no_table(films: Path, tmp_path: Path, predict: Predict) -> None:
    source, output = _some(films, _AT_ONCE + 1, tmp_path), tmp_path / "out"
    assert predict(source, output, "--shard", "0/2") == 0
    shutil.copyfile(films / "0020.dcm", source / "new.dcm")  # the archive grows before the second task begins
    assert predict(source, output, "--shard", "1/2") == 0
    assert not (output / "findings.csv").exists()
    assert predict(source, output, "--shard", "0/2") == 0
    assert len(_rows(output)) == _AT_ONCE + 2


@pytest.mark.slow
def test_film_that_changed_after_its_shard_gets_no_finding(
    films: Path, tmp_path: Path, predict: Predict
) -> None:
    source, output = _some(films, _AT_ONCE + 2, tmp_path), tmp_path / "out"
    predict(source, output, "--shard", "0/2")
    shutil.copyfile(films / "0030.dcm", source / "0000.dcm")
    os.utime(source / "0001.dcm")  # only touched
    (source / "0002.dcm").unlink()
    (source / "0002.dcm").symlink_to(source / "0003.dcm")
    assert predict(source, output, "--shard", "1/2") == 3
    assert len(_rows(output)) == _AT_ONCE
    reasons = (output / "unread.csv").read_text()
    assert reasons.count("its file was changed before the end") == 2


@pytest.mark.slow
def test_second_job_in_the_same_folder_is_refused(films: Path, tmp_path: Path, predict: Predict) -> None:
    with Shard(1, 2).claim(tmp_path, "busy"):
        for flags in ([], ["--shard", "1/2"], ["--shard", "0/3"]):
            with pytest.raises(Refusal, match="another process writes into"):
                predict(films, tmp_path, *flags)
    with suppress(FileNotFoundError):
        assert not [*(tmp_path / "findings").iterdir()]


# --- preparing -------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A workspace that shards prepare."""
    return _workspace(tmp_path / "parts")


@pytest.fixture(scope="module")
def whole(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The prepared sets of a hospital as one command makes them."""
    workspace = _workspace(tmp_path_factory.mktemp("whole"))
    Scripts(workspace).run(".", "bash", "common/prepare.sh", "--ntuh", str(sources / "ntuh"))
    return _prepared(workspace)


def _workspace(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "pseudonym.key").write_text("5a" * 32)
    return folder


def _prepared(workspace: Path) -> dict[str, bytes]:
    folder = workspace / "data" / "prepared"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def prepare(parts: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run prepare in this process; the number of films that it decodes."""
    monkeypatch.setenv("PTX_WORKSPACE", str(parts))
    decoded: list[Task] = []

    def in_workers(function: Callable, tasks: list[Task], count: int) -> object:
        decoded.extend(tasks)
        return crash_safe_pool.in_workers(function, tasks, count)

    monkeypatch.setattr("common.preparation.run.in_workers", in_workers)

    def run(*flags: str) -> int:
        decoded.clear()
        start.prepare("", ["--ntuh", str(sources / "ntuh"), *flags])
        return len(decoded)

    return run


def test_shards_prepare_what_one_command_prepares(
    whole: dict[str, bytes], parts: Path, sources: Path, prepare: Callable[..., int]
) -> None:
    first = prepare("--shard", "0/2")
    assert prepare("--shard", "0/2") == 0  # given again, it finds all done
    others = [prepare("--shard", f"{index}/3") for index in (2, 0)]  # another number goes on
    journals = [path for path in (parts / "data" / "prepared").glob("*/journal.*_of_*.jsonl")]
    noted = {(path.parent, entry["row"]) for path in journals for entry in read_journal(path)[1:]}
    assert len(noted) == first + sum(others)  # none was read twice
    assert not (parts / "data" / "prepared" / "ntuh_train" / "manifest.json").exists()
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3"}
    task = Scripts(parts, slurm)
    done = task.run(".", "bash", "common/cluster/prepare.sbatch", "--ntuh", str(sources / "ntuh"))
    assert "leakage: " in done.stdout  # the last one compares all films
    assert _prepared(parts) == whole
    assert prepare("--shard", "0/2") == 0  # requeued by mistake
    assert _prepared(parts) == whole


def test_film_that_another_machine_lost_is_read_again(
    whole: dict[str, bytes], parts: Path, prepare: Callable[..., int]
) -> None:
    prepare("--shard", "0/2")
    with open(parts / "data" / "prepared" / "ntuh_train" / "films.partial.npy", "rb+") as file:
        file.seek(4096)
        file.write(bytes(4096))
    prepare("--shard", "1/2")
    assert _prepared(parts) == whole


def test_last_shard_is_who_ends_last(
    whole: dict[str, bytes], parts: Path, prepare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare("--shard", "0/2")
    with in_turn(parts / "data" / ".prepare.lock", shared=True):  # another shard, which is still at work
        prepare("--shard", "1/2")
    assert "other shards are at work" in capsys.readouterr().out
    assert "ntuh_train/manifest.json" not in _prepared(parts)
    assert prepare() == 0
    assert _prepared(parts) == whole


def test_shard_deletes_nothing_that_others_began(parts: Path, prepare: Callable[..., int]) -> None:
    prepare("--shard", "0/2")
    before = _prepared(parts)
    with pytest.raises(Refusal, match="was begun by other rules"):
        prepare("--shard", "1/2", "--minimum-age", "50")
    after = _prepared(parts)
    assert {name: after[name] for name in before if "journal" in name} == {
        name: data for name, data in before.items() if "journal" in name
    }
    with (
        Shard(1, 2).claim(parts / "data" / ".prepare", "busy"),
        pytest.raises(Refusal, match="another process"),
    ):
        prepare("--shard", "1/2")
    with pytest.raises(Refusal, match="other shards"):
        prepare("--shard", "1/2", "--fresh")
