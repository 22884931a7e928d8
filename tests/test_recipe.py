"""The presets hold the published numbers."""

from __future__ import annotations

import dataclasses

import pytest

from common.networks.unet import PneumothoraxNet
from common.networks.weights import parameters
from common.recipes.presets import preset_network, preset_recipe, read_preset
from common.recipes.recipe import recipe_facts
from common.refusal import Refusal
from common.stages import STAGES

# stage: epochs, batch, learning rate, floor, films an epoch (0: every positive once), weight of Dice
PUBLISHED = {
    "siim_segmentation": (100, 4, 1e-4, 1e-7, 0, 1.0),
    "siim_classification": (20, 8, 5e-5, 1e-8, 5000, 0.5),
    "ntuh_segmentation": (100, 4, 1e-5, 1e-7, 0, 1.0),
    "ntuh_classification": (50, 8, 1e-5, 1e-8, 1000, 0.5),
}


@pytest.mark.parametrize("system", ["eff", "vit"])
@pytest.mark.parametrize("key", PUBLISHED)
def test_published_recipe(key: str, system: str) -> None:
    recipe = preset_recipe("published", STAGES[key], system)
    assert (
        recipe.epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.learning_rate_floor,
        recipe.films_per_epoch,
        recipe.dice_weight,
    ) == PUBLISHED[key]
    assert recipe.image_size == 512
    assert recipe.weight_decay == {"eff": 0.01, "vit": 0.05}[system]
    assert (recipe.share_first, recipe.share_drop) == (0.8, 0.5)
    assert (recipe.clip_norm, recipe.warmup_steps, recipe.seed) == (5, 1500, 0)


@pytest.mark.parametrize("preset", ["published", "demo"])
def test_metadata_of_earlier_recipes_are_as_they_were(preset: str) -> None:
    """Else a run that was begun before would be refused as begun otherwise."""
    for key in STAGES:
        facts = recipe_facts(preset_recipe(preset, STAGES[key], "eff"))
        assert list(facts) == [
            *("image_size", "epochs", "batch_size", "learning_rate", "learning_rate_floor", "weight_decay"),
            *("films_per_epoch", "share_first", "share_drop", "dice_weight", "warmup_steps", "clip_norm"),
            *("accumulation", "precision", "seed"),
            *(["flip", "map_threshold"] if preset == "demo" else []),
            "augmentation",
        ]


def test_strong_learns_from_negatives_and_mostly_from_the_hospital() -> None:
    steps = {}
    for key, stage in STAGES.items():
        recipe = preset_recipe("strong", stage, "eff")
        steps[key] = recipe.epochs * recipe.films_per_epoch
        facts = recipe_facts(recipe)
        assert (facts["ema_decay"], facts["flip"], facts["map_threshold"]) == (0.999, True, "out-of-fold")
        assert (recipe.share_first, recipe.share_drop) == (0.8, 0.4)
        learns_pixels = (facts.get("bce_weight"), facts.get("dice_films")) == (3.0, "positives")
        assert learns_pixels == (stage.task == "seg")
    for task in ("segmentation", "classification"):
        assert 5 * steps[f"ntuh_{task}"] > 5 * steps[f"siim_{task}"]


def test_published_augmentation() -> None:
    assert dataclasses.asdict(read_preset("published").augmentation) == {
        "zoom": (0.8, 1.2),
        "zoom_probability": 0.2,
        "crop": (0.625, 1.0),
        "blur_sigma": (0.5, 1.15),
        "blur_probability": 0.15,
        "scale": 0.3,
        "scale_probability": 0.5,
        "shift": 0.1,
        "shift_probability": 0.5,
        "gamma": (0.7, 1.3),
        "gamma_probability": 0.5,
        "noise": pytest.approx(0.8 / 255),
        "noise_probability": 0.15,
        "rotation": 15.0,
        "rotation_probability": 0.5,
        "flip_probability": 0.5,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "encoder", "millions"),
    [
        ("eff", "tf_efficientnetv2_s.in21k_ft_in1k", 22.1),
        ("vit", "tiny_vit_21m_512.dist_in22k_ft_in1k", 24.4),
    ],
)
def test_published_networks(system: str, encoder: str, millions: float) -> None:
    network = preset_network("published", system)
    assert network.encoder == encoder
    assert network.head_dropout == 0.2
    assert network.initial_weights == "imagenet"
    net = PneumothoraxNet(network, "cls")
    assert parameters(net) / 1e6 == pytest.approx(millions, abs=0.05)
    head = net.unet.classification_head
    assert [type(part).__name__ for part in head][:4] == ["AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"]
    assert head[2].p == 0.2
    assert head[3].out_features == 1


@pytest.mark.slow
def test_published_transformer_has_its_windows_and_drop_path() -> None:
    net = PneumothoraxNet(preset_network("published", "vit"), "seg")
    windows, drop_paths = {}, []
    for name, module in net.unet.encoder.model.named_modules():
        if hasattr(module, "window_size"):
            windows[name.split(".")[0]] = module.window_size
        drop_paths.append(getattr(module, "drop_prob", None) or 0)
    assert windows == {"stages_1": 16, "stages_2": 32, "stages_3": 16}  # stage 0 is convolutional
    assert max(drop_paths) == pytest.approx(0.1)


def test_unknown_encoder_is_refused() -> None:
    network = dataclasses.replace(preset_network("published", "eff"), encoder="no_such_encoder")
    with pytest.raises(Refusal, match="no_such_encoder"):
        PneumothoraxNet(network, "seg")
