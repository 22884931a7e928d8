"""Commands in refusals repeat the flags that were given."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import start
from common.command_line import flags_of_scripts, given, parse_thresholds, parse_train
from common.hints import again, remember, with_flags
from common.refusal import Refusal
from common.stages import INFERENCE_COMMAND, PREPARE_COMMAND, STAGES, THRESHOLDS_COMMAND

TRAIN = STAGES["siim_segmentation"].command


@pytest.fixture
def train() -> None:
    line = "--gpu cpu --system vit --preset demo --image-size 64 --epochs 3 --folds 1 --fresh"
    request = parse_train(STAGES["ntuh_segmentation"], "", [*line.split(), "--ntuh", "my films"])
    remember(given(request.options) | request.changes, flags_of_scripts())


@pytest.mark.usefixtures("train")
def test_commands_repeat_what_holds_for_them() -> None:
    films = f"--ntuh '{Path('my films').resolve()}'"
    assert with_flags(f"none\n  made by: {TRAIN}\n  found:   x").split("\n") == [
        "none",
        f"  made by: {TRAIN} cpu {films} --system vit --preset demo --image-size 64",
        "  found:   x",
    ]
    assert with_flags(f"{TRAIN} --fresh").endswith("--image-size 64 --fresh")
    assert with_flags(THRESHOLDS_COMMAND) == f"{THRESHOLDS_COMMAND} cpu {films} --system vit --preset demo"
    assert with_flags("bash train.sh 0,1 (so)").startswith("bash train.sh 0,1 --ntuh")
    assert with_flags(PREPARE_COMMAND) == f"{PREPARE_COMMAND} {films}"  # which has neither GPU nor system
    for said in ("--ntuh PATH", "--unlabelled PATH --fresh"):  # given there, and of other films than these
        assert with_flags(f"{PREPARE_COMMAND} {said}") == f"{PREPARE_COMMAND} {said}"


@pytest.mark.usefixtures("train")
def test_the_same_step_again_is_with_all_that_was_given() -> None:
    """Without its numbers the command would train something else, to be refused by the next one."""
    films = f"--ntuh '{Path('my films').resolve()}'"
    assert with_flags(f"{again(TRAIN)} --fresh") == (
        f"{TRAIN} cpu {films} --system vit --preset demo --image-size 64 --epochs 3 --folds 1 --fresh"
    )
    line = "--checkpointing --flip False --system eff"
    request = parse_train(STAGES["siim_segmentation"], "", line.split())
    remember(given(request.options) | request.changes, flags_of_scripts())
    repeated = with_flags(again(TRAIN)).removeprefix(TRAIN).split()
    assert parse_train(STAGES["siim_segmentation"], "", repeated) == request


def test_nothing_was_given() -> None:
    remember(given(parse_thresholds("", [])), flags_of_scripts())
    assert with_flags(INFERENCE_COMMAND) == INFERENCE_COMMAND


def test_students_are_made_by_the_name_of_their_teachers(workspace: Path) -> None:
    with pytest.raises(Refusal) as refusal:
        start.bootstrap("", ["--system", "vit_student"])
    assert "vit_student" in str(refusal.value)
    assert f"{INFERENCE_COMMAND} --system vit" in with_flags(str(refusal.value))
    assert "--system vit_student" not in with_flags(str(refusal.value))
