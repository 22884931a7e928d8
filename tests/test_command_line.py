"""The command line: what it changes, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from common.command_line import parse_train
from common.recipe import preset_recipe
from common.refusal import Refusal
from common.stages import STAGES


def test_command_line_changes_single_numbers() -> None:
    stage = STAGES["ntuh_segmentation"]
    line = "--system vit --folds 0 1 --image-size 384 --epochs 3"
    request = parse_train(stage, "", line.split())
    assert request.options.system == ("vit",)
    assert request.options.folds == (0, 1)
    recipe = request.recipe(stage, "vit")
    assert (recipe.image_size, recipe.epochs) == (384, 3)
    assert dataclasses.replace(recipe, image_size=512, epochs=100) == preset_recipe("published", stage, "vit")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--folds 5", "no such fold"),
        ("--epochs 0", "must be positive"),
        ("--image-size 100", "multiple of 32"),
        ("--encoder resnet18", "one system"),
    ],
)
def test_impossible_values_are_refused(line: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        parse_train(STAGES["ntuh_segmentation"], "", line.split())
