"""Which recipe does a stage obey: the one that is named, else the one that its first weights record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from common.recipes.presets import PRESETS, read_preset
from common.recipes.recipe import Network, Recipe
from common.recipes.recipe_file import Recipes, base_of, load_table, recipes_of, recipes_text
from common.refusal import Refusal
from common.stages import STAGES, Stage

OWN = "own"


@dataclass(frozen=True)
class ChosenRecipe:
    """A whole set of recipes, and what it is called.

    Attributes:
        name: The preset that it is or is based on; `own` where its file names none.
        recipes: The recipes of all stages, and the networks.
        file: What stands in the user's own file; None for a preset.
        called: How messages name it: `preset demo`, `my.toml`.
    """

    name: str
    recipes: Recipes
    file: dict[str, Any] | None
    called: str

    @classmethod
    def of_preset(cls, name: str) -> ChosenRecipe:
        return cls(name, read_preset(name), None, f"preset {name}")

    @classmethod
    def of_file(cls, path: Path) -> ChosenRecipe:
        """The user's own.

        Raises:
            Refusal: As `recipe_file.read_recipes`.
        """
        file = load_table(path)
        recipes, name = recipes_of(file, path), base_of(file) or OWN
        if name != OWN and recipes == read_preset(name):  # given back unchanged: it is the preset
            return cls.of_preset(name)
        return cls(name, recipes, file, f"recipe {path}")

    @classmethod
    def of_weights(cls, metadata: Mapping[str, Any], path: Path) -> ChosenRecipe:
        """What a weights file records.

        Args:
            metadata: The file's metadata.
            path: The file, for refusals.

        Raises:
            Refusal: It records a preset that this version does not have.
        """
        file = metadata.get("own_recipe")
        if file is not None:
            name = base_of(file) or OWN
            return cls(name, recipes_of(file, path), file, f"an own recipe, based on {name}")
        name = metadata["preset"]
        if name not in PRESETS:
            raise Refusal(
                f"{path} records a recipe that is not known here",
                found=name,
                do="name the recipe: --preset NAME or --recipe FILE",
            )
        return cls.of_preset(name)

    def resolved(self, stage: Stage, system: str, recipe: Recipe, network: Network) -> str:
        """The text of a recipe file by which a run is made again.

        Args:
            stage: Stage of the run.
            system: System of the run.
            recipe: Recipe of the run, with what flags and weights changed.
            network: Network of the run, with what flags and weights changed.
        """
        stages = dict(self.recipes.stages)
        for key in STAGES:  # networks stay at the size that they have learned
            if stage.key in _way_to(key):
                stages[key, system] = replace(stages[key, system], image_size=recipe.image_size)
        stages[stage.key, system] = recipe
        students = dict(self.recipes.students)
        if stage.teachers:
            known, taught_by = students[stage.key, system], stages[stage.teachers, system]
            students[stage.key, system] = {
                item.name: getattr(recipe, item.name)
                for item in fields(Recipe)
                if item.name in known or getattr(recipe, item.name) != getattr(taught_by, item.name)
            }
        networks = self.recipes.networks | {system: network}
        resolved = replace(self.recipes, networks=networks, stages=stages, students=students)
        return recipes_text(resolved, self.name if self.name != OWN else None)


def _way_to(key: str | None) -> list[str]:
    """The stages that lead to one, itself first."""
    return [key, *_way_to(STAGES[key].parent)] if key else []
