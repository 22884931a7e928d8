"""Which numbers has a preset? Those of its TOML file beside this one."""

from __future__ import annotations

from functools import cache

from common.recipes.recipe import Network, Recipe
from common.recipes.recipe_file import PRESETS, Recipes, preset_file, read_recipes
from common.stages import Stage

__all__ = ["PRESETS", "preset_network", "preset_recipe", "read_preset"]


@cache
def read_preset(preset: str) -> Recipes:
    """Everything that a preset decides."""
    return read_recipes(preset_file(preset))


def preset_network(preset: str, system: str) -> Network:
    """The network of a system in a preset."""
    return read_preset(preset).networks[system]


def preset_recipe(preset: str, stage: Stage, system: str) -> Recipe:
    """The recipe of a stage for a system in a preset."""
    return read_preset(preset).stages[stage.key, system]
