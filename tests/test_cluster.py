"""The job files for SLURM, run by a stand-in for it: what it would set and start, on CPUs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from conftest import STEP_1_1, STEP_2_1, TINY, Scripts

# SLURM's srun starts the command on every machine, which knows its number
SRUN = """#!/usr/bin/env bash
SLURM_NODEID=1 "$@" &
SLURM_NODEID=0 "$@"
status=$?
wait $! && exit $status
"""
SCONTROL = """#!/usr/bin/env bash
[ "$*" = "show hostnames two-machines" ] && echo 127.0.0.1 && sleep 0.2 && echo second  # one after the other
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Scripts:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "two-machines", "PET_MASTER_PORT": str(port)}
    scripts = Scripts(tmp_path / "workspace", {**environment, "GPU": "cpu", "OMP_NUM_THREADS": "1"})
    scripts.environment["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    return scripts


@pytest.mark.all
def test_two_machines_train_one_network(slurm: Scripts, sources: Path) -> None:
    flags = [*TINY, "--siim", str(sources / "siim"), "--system", "vit"]
    done = slurm.run(".", "bash", "common/cluster/machines.sbatch", STEP_1_1, *flags)
    assert done.stdout.count("Dice") == 3  # by the first process only: the epoch, the run's end, the summary
    assert (slurm.workspace / STEP_1_1 / "model_weights" / "vit_seg_siim.safetensors").is_file()


def test_an_array_task_trains_its_fold(chain: Scripts, slurm: Scripts, sources: Path, tmp_path: Path) -> None:
    other = chain.copy(tmp_path / "other")
    other.environment |= slurm.environment | {"SLURM_ARRAY_TASK_ID": "3"}
    folder = other.workspace / STEP_2_1 / "model_weights"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    flags = [*TINY, "--ntuh", str(sources / "ntuh"), "--system", "vit", "--fresh"]
    other.run(".", "bash", "common/cluster/folds.sbatch", STEP_2_1, *flags)
    changed = {name for name, time in before.items() if (folder / name).stat().st_mtime_ns != time}
    assert changed == {"fold_3_vit_seg_ntuh.safetensors"}
