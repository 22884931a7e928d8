"""Where the GPU may stand on a command line, and which words the shell scripts take for it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from common.command_line import PredictOptions

_ECHO = '#!/bin/sh\nshift\nfor word in "$@"; do printf \'[%s]\' "$word"; done\n'


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment whose Python prints the words that it is given, and tells its version."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n{_ECHO[10:]}')
    python.chmod(0o755)
    return tmp_path


def _words(environment: Path, script: str, line: str) -> list[str]:
    command = ["bash", str(REPOSITORY / script), *line.split()]
    variables = {**os.environ, "VIRTUAL_ENV": str(environment)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return re.findall(r"\[(.*?)\]", done.stdout)


@pytest.mark.parametrize(
    ("line", "gpu", "rest"),
    [
        ("", "0", ""),
        ("1 --fresh", "1", "--fresh"),
        ("cpu --epochs 3", "cpu", "--epochs 3"),
        ("--epochs 3", "0", "--epochs 3"),
        ("--epochs 3 cpu", "cpu", "--epochs 3"),
        ("--epochs 3 cpu --fresh", "cpu", "--epochs 3 --fresh"),
        ("--folds 0 1", "0", "--folds 0 1"),
        ("--fresh --gpu cpu", "0", "--fresh --gpu cpu"),  # the flag of the script itself, which counts last
    ],
)
def test_gpu_stands_first_or_cpu_anywhere(environment: Path, line: str, gpu: str, rest: str) -> None:
    found = _words(environment, "step1_pretraining/step1_segmentation/train.sh", line)
    assert found == ["--gpu", gpu, *rest.split()]


@pytest.mark.parametrize("line", ["0,1 --fresh", "--fresh 0,1"])
def test_several_gpus_start_the_launcher(environment: Path, line: str) -> None:
    found = _words(environment, "step1_pretraining/step1_segmentation/train.sh", line)
    assert found == [str(REPOSITORY / "step1_pretraining/step1_segmentation/train.py"), "0,1", "--fresh"]


@pytest.mark.parametrize("line", ["0,1 --fresh", "--fresh 0,1", "--fresh 0,1 --help"])
def test_plan_is_one_process_however_many_gpus_it_names(environment: Path, line: str) -> None:
    rest = line.replace("0,1", "").split()
    gpu = [] if "--help" in line else ["--gpu", "0,1"]
    assert _words(environment, "run.sh", line) == [*gpu, *rest]
    assert _words(environment, "step1_pretraining/train.sh", line)[-2:] == ["--phase", "step1_pretraining"]


@pytest.mark.parametrize(
    ("line", "gpu", "rest"),
    [
        ("in out", "0", "in out"),
        ("in out cpu --fresh", "cpu", "in out --fresh"),
        ("cpu in out --fresh", "cpu", "in out --fresh"),
        ("1 in out", "1", "in out"),
        ("--bundle eff.bundle in out cpu", "cpu", "in out --bundle eff.bundle"),
        ("in --system vit out 1 --fresh", "1", "in out --system vit --fresh"),
    ],
)
def test_predict_takes_its_words_in_any_order(environment: Path, line: str, gpu: str, rest: str) -> None:
    assert _words(environment, "step3_testing/prediction/predict.sh", line) == ["--gpu", gpu, *rest.split()]


@pytest.mark.parametrize(
    "line", ["in out 0,1 --shard 1/2", "0,1 --shard 1/2 in out", "in --shard 1/2 out 0,1"]
)
def test_predict_takes_several_gpus_and_a_shard(environment: Path, line: str) -> None:
    found = _words(environment, "step3_testing/prediction/predict.sh", line)
    assert found[1:] == ["0,1", "in", "out", "--shard", "1/2"]


def test_predict_knows_which_of_its_flags_have_a_value() -> None:
    script = (REPOSITORY / "step3_testing" / "prediction" / "predict.sh").read_text()
    (named,) = re.findall(r"^ +(--.*)\) flags", script, re.MULTILINE)
    fields = [f for f in dataclasses.fields(PredictOptions) if f.name not in ("input", "output")]
    valued = {f"--{f.name}" for f in fields if f.default is not False}
    assert set(named.split(" | ")) == valued
