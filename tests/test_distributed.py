"""Several processes that train together: the same result as one, and an end that says why."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PATIENCE, REPOSITORY, STEP_1_1, TINY, Held, Scripts, wait_for
from distributed_worker import (
    CASES,
    CPU,
    RATE,
    VALIDATIONS,
    batches,
    gradients_of,
    network,
    recipe,
    steady,
    trained,
    training,
    validated,
)

from common.distributed import Processes
from common.networks.weights import read_metadata
from common.training.batches import EpochSampler
from common.training.step import Learner

pytestmark = pytest.mark.usefixtures("one_thread")

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as Linux ends processes")
ONE = Processes(CPU)


# --- who takes which film --------------------------------------------------------------------------


@pytest.mark.parametrize("films", [0, 40])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_draw_is_in_one_share(films: int, count: int) -> None:
    """Shares of all processes, put together again, are the batches of one process."""
    positives, negatives = np.arange(100, 131), np.arange(50)

    def sampler(processes: Processes | None) -> EpochSampler:
        made = EpochSampler(positives, negatives, 12, films, seed=3, processes=processes)
        made.start(epoch=2, share=0.6, done=1)
        return made

    whole = sampler(None)
    shares = [sampler(Processes(CPU, rank, count)) for rank in range(count)]
    assert {len(share) for share in shares} == {len(whole)} == {(films or 31) // 12}  # the rest is dropped
    steps = [list(share) for share in shares]
    assert len(list(whole)) == len(whole) - 1
    for number, batch in enumerate(whole):
        own = [share[number] for share in steps]
        assert {len(part) for part in own} == {12 // count}
        assert [part[i] for i in range(12 // count) for part in own] == batch
        assert len({draw for part in own for _, draw, _ in part}) == 12


# --- the same result as one process ----------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("equality")
    with _launched("equality", folder) as process:
        output = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_processes_have_the_same_network(two: list[dict[str, Any]], case: str) -> None:
    first, second = (found[case] for found in two)
    assert torch.equal(first["losses"], second["losses"])
    for name, gradient in first["gradients"].items():
        assert torch.equal(gradient, second["gradients"][name]), name
        assert torch.equal(first["state"][name], second["state"][name]), name
    for name, buffer in first["buffers"].items():
        assert torch.equal(buffer, second["buffers"][name]), name


@pytest.mark.parametrize("case", [case for case, (_, _, frozen, *_) in CASES.items() if frozen])
def test_two_processes_equal_one(two: list[dict[str, Any]], case: str) -> None:
    """Where no film's result depends on another's: without BatchNorm's statistics and without dropout."""
    _same(two[0][case], trained(case.removesuffix(", accumulated"), ONE))


@pytest.mark.parametrize("case", [case for case, (_, _, frozen, *_) in CASES.items() if not frozen])
def test_batch_norm_sees_the_half_of_its_process(two: list[dict[str, Any]], case: str) -> None:
    """On CPUs; on GPUs it sees the whole batch. The statistics that are kept are the first process's."""
    system, task, *_ = CASES[case]
    learner = Learner(network(system, task), recipe(task), ONE)
    training(learner.net, frozen=False)
    steady(learner)
    losses, gradients = [], {}
    for batch in batches():
        learner.optimiser.zero_grad()
        found = []
        for rank in (1, 0):
            kept = [buffer.clone() for buffer in learner.net.buffers()]
            half = {name: tensor[rank::2] for name, tensor in batch.items()}
            loss = learner.loss_of(learner.net(half["film"]), half["mask"], half["label"])
            (loss / 2).backward()
            found.append(torch.stack([loss.detach(), half["label"].mean()]))
            if rank == 1:
                for buffer, value in zip(learner.net.buffers(), kept, strict=True):
                    buffer.copy_(value)
        torch.nn.utils.clip_grad_norm_(learner.net.parameters(), recipe(task).clip_norm)
        gradients = gradients or gradients_of(learner.net)
        for group in learner.optimiser.param_groups:
            group["lr"] = RATE
        learner.optimiser.step()
        losses.append(sum(found) / 2)
    expected = {
        "losses": torch.stack(losses),
        "gradients": gradients,
        "state": dict(learner.net.state_dict()),
    }
    _same(two[0][case], expected)


def _same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part in ("losses", "gradients", "state"):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", VALIDATIONS)
def test_every_validation_film_is_scored_once(two: list[dict[str, Any]], case: str) -> None:
    _, positives, negatives = VALIDATIONS[case]
    alone = validated(case, ONE)
    assert alone["dice"] > 0
    for found in two:
        assert found[case]["dice"] == pytest.approx(alone["dice"], abs=1e-6)
        assert found[case]["auroc"] == pytest.approx(alone["auroc"], abs=1e-6)
    films = range(positives + negatives)
    assert sorted(alone["seen"]) == [*films]
    assert sorted(row for found in two for row in found[case]["seen"]) == [*films]
    assert abs(len(two[0][case]["seen"]) - len(two[1][case]["seen"])) <= 2  # the work is divided


def test_joined_parts_are_in_order(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["joined"] == [[float(number)] for number in range(7)]


# --- an end that says why --------------------------------------------------------------------------


class _launched:
    """A launcher with two processes of `distributed_worker.py`, ended with all it started."""

    def __init__(self, check: str, folder: Path) -> None:
        self.command = ["common/launch.py", "tests/distributed_worker.py", "cpu,cpu", check, str(folder)]

    def __enter__(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, *self.command],
            cwd=REPOSITORY,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def _said(stderr: str) -> str:
    """What a person must read, without warnings of torch's C++ (`[W...`), which depend on the network."""
    return "".join(
        line for line in stderr.splitlines(keepends=True) if not re.match(r"(\[rank\d+\]:)?\[W\d", line)
    )


def _environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
    return {**clean, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _ids(folder: Path, process: subprocess.Popen) -> list[int]:
    """Ids of the two processes, once both are at work."""
    files = [folder / f"{rank}.pid" for rank in range(2)]
    wait_for(lambda: all(file.is_file() for file in files), process)
    return [int(file.read_text()) for file in files]


def _ended(check: str, folder: Path) -> tuple[int, str]:
    """Exit status and stderr of a job that ends by itself, and leaves no process behind."""
    with _launched(check, folder) as process:
        ids = _ids(folder, process)
        said, complained = process.communicate(timeout=PATIENCE)
    assert said == ""
    assert not any(_lives(pid) for pid in ids)
    return process.returncode, _said(complained)


@pytest.mark.slow
@LINUX
def test_processes_that_finished_cannot_fail_on_their_way_out(tmp_path: Path) -> None:
    with _launched("finish", tmp_path) as process:
        said, complained = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said, _said(complained)) == (0, "finished\n", "")


@pytest.mark.slow
@LINUX
def test_refusal_of_any_process_is_said_once(tmp_path: Path) -> None:
    status, complained = _ended("refuse", tmp_path)
    assert (status, complained) == (2, "error: the second process says no\n  do:      nothing\n")


@pytest.mark.slow
@LINUX
def test_fault_of_any_process_is_shown_with_its_place(tmp_path: Path) -> None:
    status, complained = _ended("fail", tmp_path)
    assert status == 1
    lines = complained.splitlines()
    assert lines[-1] == "error: process 1 failed, so the others were ended too"
    assert lines[-2].endswith("ValueError: a fault of the second process")
    assert complained.count("Traceback") == 1
    assert "distributed_worker.py" in complained
    assert "rank0" not in complained
    assert "elastic" not in complained  # no report of torchrun's
    assert len(lines) < 25


@pytest.mark.slow
@LINUX
def test_killed_process_is_named_with_its_signal(tmp_path: Path) -> None:
    status, complained = _ended("kill", tmp_path)
    assert status == 1
    assert complained == "error: process 1 was killed by signal 9, so the others were ended too\n"


@pytest.mark.slow
@LINUX
def test_killed_launcher_leaves_no_process(tmp_path: Path) -> None:
    with _launched("work", tmp_path) as process:
        ids = _ids(tmp_path, process)
        assert all(_lives(pid) for pid in ids)
        os.kill(process.pid, signal.SIGKILL)
        try:
            wait_for(lambda: not any(_lives(pid) for pid in ids))
        finally:
            for pid in filter(_lives, ids):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@LINUX
def test_interruption_is_said_once(tmp_path: Path) -> None:
    with _launched("work", tmp_path) as process:
        ids = _ids(tmp_path, process)
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
        said, complained = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said, _said(complained)) == (
        130,
        "",
        "\ninterrupted; the same command goes on from here\n",
    )
    assert not any(_lives(pid) for pid in ids)


# --- the scripts -----------------------------------------------------------------------------------

NAME = "vit_seg_siim"


@pytest.fixture(scope="module")
def films(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """A workspace whose films the first job prepares."""
    workspace = tmp_path_factory.mktemp("several") / "workspace"
    workspace.mkdir()
    return Scripts(workspace)


def _train(scripts: Scripts, sources: Path, gpu: str, *flags: str, **environment: str) -> subprocess.Popen:
    tiny = [*TINY, "--siim", str(sources / "siim"), "--system", "vit", *flags]
    return subprocess.Popen(
        ["bash", "train.sh", gpu, *tiny],
        cwd=REPOSITORY / STEP_1_1,
        env=_environment(PTX_WORKSPACE=str(scripts.workspace), VIRTUAL_ENV=sys.prefix, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _log(scripts: Scripts) -> list[dict[str, str]]:
    try:
        with open(scripts.workspace / STEP_1_1 / "runs" / NAME / "log.csv", newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def _finished(process: subprocess.Popen) -> str:
    said, complained = process.communicate(timeout=PATIENCE)
    assert (process.returncode, _said(complained)) == (0, ""), complained  # whole: pytest shortens tuples
    return said


# Notes who renames which file into place: how all of the project's files are written
_NOTE_WRITES = """
import os
def replace(source, target, rename=os.replace):
    rename(source, target)
    with open({path!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{os.path.basename(target)}}\\n")
os.replace = replace
"""


def _weights(scripts: Scripts) -> Path:
    return scripts.workspace / STEP_1_1 / "model_weights" / f"{NAME}.safetensors"


@pytest.mark.all
@LINUX
def test_killed_run_goes_on_with_another_number_of_processes(
    films: Scripts, sources: Path, tmp_path: Path
) -> None:
    """Two processes, killed; one, killed; two again, to the end, of which one writes each file."""
    (tmp_path / "sitecustomize.py").write_text(_NOTE_WRITES.format(path=str(tmp_path / "written")))
    environments = [Held(tmp_path / f"held {epochs}", epochs).environment for epochs in (4, 7)]
    environments.append({"PYTHONPATH": str(tmp_path)})
    for number, gpu in enumerate(("cpu,cpu", "cpu", "cpu,cpu")):
        done = len(_log(films))
        process = _train(films, sources, gpu, "--epochs", "10", **environments[number])
        if number == 2:
            said = _finished(process)
            break
        wait_for(lambda done=done: len(_log(films)) > done + 1, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert done + 1 < len(_log(films)) < 10
        assert not _weights(films).exists()
    epoch = int(re.search(r"goes on at epoch (\d+), step 1\b", said)[1])
    assert done <= epoch <= done + 1  # the last line of the log may be ahead of the checkpoint
    assert said.count(f"{NAME}: Dice ") == 1
    written = [line.split() for line in (tmp_path / "written").read_text().splitlines()]
    assert [name for _, name in written].count(_weights(films).name) == 1
    assert [name for _, name in written].count("last.pt") == 11 - epoch
    assert len({pid for pid, _ in written}) == 1
    log = _log(films)
    assert [int(row["epoch"]) for row in log] == list(range(1, 11))
    assert [int(row["step"]) for row in log] == [2 * epoch for epoch in range(1, 11)]
    best = max(float(row["score"]) for row in log)
    assert read_metadata(_weights(films))["result"]["score"] == pytest.approx(best)
    assert {path.name for path in _weights(films).parent.iterdir()} == {_weights(films).name}
    left = {path.name for path in (films.workspace / STEP_1_1 / "runs" / NAME).iterdir()}
    assert not left & {"last.pt", "previous.pt"}
    assert not any(name.endswith(".tmp") for name in left)


@pytest.mark.all
def test_two_machines_train_together(films: Scripts, sources: Path) -> None:
    """Two launchers with one process each, which share the workspace."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    both = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    machines = [
        _train(films, sources, "cpu", "--epochs", "2", "--fresh", PET_NODE_RANK=str(node), **both)
        for node in range(2)
    ]
    try:
        second, first = (_finished(machine) for machine in reversed(machines))
    finally:
        for machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.communicate()
    assert first.count(f"{NAME}: Dice ") == 1
    assert second == ""
    assert [int(row["epoch"]) for row in _log(films)] == [1, 2]
    assert read_metadata(_weights(films))["recipe"]["epochs"] == 2


def test_what_several_processes_cannot_do_is_refused(films: Scripts, sources: Path) -> None:
    alone = _train(films, sources, "cpu", "--gpu", "cpu,cpu")  # the flag comes after launch.sh's
    shared = _train(films, sources, "cpu,cpu", "--batch-size", "6", "--accumulation", "2", "--fresh")
    _, complained = shared.communicate(timeout=PATIENCE)
    assert shared.returncode == 2
    assert _said(complained) == (
        "error: vit_seg_siim: a batch of 6 cannot be divided evenly\n"
        "  found:   2 GPUs, --accumulation 2\n"
        "  do:      choose them so that their product divides 6, or another --batch-size\n"
    )
    said, complained = alone.communicate(timeout=PATIENCE)
    assert (alone.returncode, said.count("\n")) == (2, 1)  # the first word
    flags = f"--siim '{sources / 'siim'}' --system vit --preset demo --image-size 64"
    assert complained == (
        "error: several devices (cpu,cpu) need the launcher\n"
        f"  do:      bash train.sh cpu,cpu {flags} (or the .sh of this step)\n"
    )
