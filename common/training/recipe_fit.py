"""Does the recipe that was asked for fit the weights that a stage starts from?"""

from __future__ import annotations

from typing import Any

from common.networks.weights import network_facts
from common.paths import shown, weights_file
from common.recipes.chosen import ChosenRecipe
from common.recipes.recipe import Network
from common.refusal import Refusal
from common.stages import STAGES, Stage


def refuse_misfit(
    stage: Stage, system: str, asked: ChosenRecipe, recorded: ChosenRecipe, metadata: dict[str, Any]
) -> None:
    """Refuse where the recipe asked for is for other networks or another working size than the weights have.

    What flags of step 1.1 changed (`--encoder`, `--image-size`) is no misfit: there the recipe was this one.

    Args:
        asked: The recipe that the stage is to obey.
        recorded: The recipe that the weights record.
        metadata: What the weights say that the stage starts from.

    Raises:
        Refusal: It does not fit; both are named.
    """
    parent = STAGES[metadata["stage"]]
    wanted = _shape(
        network_facts(asked.recipes.networks[system]),
        asked.recipes.stages[parent.key, system].image_size,
    )
    found = _shape(metadata["network"], metadata["recipe"]["image_size"])
    named = _shape(
        network_facts(recorded.recipes.networks[system]),
        recorded.recipes.stages[parent.key, system].image_size,
    )
    differing = [key for key in wanted if wanted[key] not in (found[key], named[key])]
    if not differing:
        return
    path = weights_file(parent, system)
    raise Refusal(
        f"{stage.title}: {asked.called} does not fit the {system} weights that it starts from",
        asked=f"{asked.called}: " + ", ".join(f"{key} {wanted[key]}" for key in differing),
        found=f"{recorded.called}: " + ", ".join(f"{key} {found[key]}" for key in differing),
        weights=shown(path),
        do="leave --preset and --recipe off to go on as the weights record, or train the weights anew: "
        f"{parent.command} --fresh",
    )


def keeps_size(stage: Stage, system: str, asked: ChosenRecipe) -> bool:
    """Whether the network stays at the size of its weights: the recipe has one size for both stages."""
    assert stage.parent is not None  # first networks have no size before
    stages = asked.recipes.stages
    return stages[stage.key, system].image_size == stages[stage.parent, system].image_size


def network_of(metadata: dict[str, Any]) -> Network:
    """The network that metadata describe."""
    described = metadata["network"]
    return Network(**described | {"decoder_channels": tuple(described["decoder_channels"])})


def _shape(network: dict[str, Any], image_size: int) -> dict[str, Any]:
    """What later stages cannot change; what the first one started from does not matter to them."""
    kept = {key: value for key, value in network.items() if key != "initial_weights"}
    return kept | {"working size": image_size}
