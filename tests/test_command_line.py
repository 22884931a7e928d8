"""The command line: what it changes, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import pytest

from common.command_line import ThresholdOptions, parse_prediction, parse_thresholds, parse_train
from common.inference.threshold_rules import LOWEST_COST, RULES, YOUDEN
from common.recipes.presets import preset_recipe
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


def test_rules_of_the_command_line() -> None:
    assert get_args(get_type_hints(ThresholdOptions)["rule"]) == tuple(RULES)
    assert parse_thresholds("", []).rule == YOUDEN
    options = parse_thresholds("", ["--rule", "lowest-cost", "--prevalence", "0.1", "--cost-ratio", "5"])
    assert (options.rule, options.prevalence, options.cost_ratio) == (LOWEST_COST, 0.1, 5)
    assert parse_thresholds("", ["--prevalence", "0.1"]).rule == YOUDEN  # shown beside it


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--rule lowest-cost", "--rule lowest-cost needs the prevalence"),
        ("--cost-ratio 5", "--cost-ratio 5.0 needs the prevalence"),
        ("--prevalence 10", "--prevalence 10.0 must lie between 0 and 1"),
        ("--prevalence nan", "--prevalence nan must lie between 0 and 1"),
        ("--prevalence 0.1 --cost-ratio 0", "--cost-ratio 0.0 must be positive"),
        ("--prevalence 0.1 --cost-ratio inf", "--cost-ratio inf must be positive"),
    ],
)
def test_impossible_values_of_thresholds_are_refused(line: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        parse_thresholds("", line.split())


@pytest.mark.parametrize("output", ["cpu", "0", "0,1"])
def test_device_in_the_place_of_the_output_is_refused(output: str) -> None:
    """Who forgot the folder would find the results in a folder called cpu."""
    with pytest.raises(Refusal, match=f"{output} is where to compute.*\n.*\\./{output}"):
        parse_prediction("", ["films", output])
    assert parse_prediction("", ["films", f"./{output}"]).output == f"./{output}"
