"""What decides a training run: the networks and recipes of the presets.

`published` is the recipe of Wang et al., J Med Syst 2023;48:1 (doi 10.1007/s10916-023-02023-1), number by
number. `demo` differs from it only in what it names here, so that the whole pipeline runs on a CPU in
minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from common.stages import Stage

PRESETS = ("published", "demo")


@dataclass(frozen=True)
class Network:
    """A U-Net on a timm encoder; the classification model is the same with a head on the encoder.

    Attributes:
        encoder: timm's model name.
        encoder_args: Further arguments of timm's constructor.
        encoder_depth: Halvings of the film's side in the encoder; the head stands on its last features.
        decoder_channels: Width of the decoder blocks, one for each halving, deepest first.
        head_dropout: Dropout before the head's only logit.
        initial_weights: What the encoder of step 1.1 starts from: `imagenet` or `random`.
    """

    encoder: str
    encoder_args: dict[str, Any] = field(default_factory=dict)
    encoder_depth: int = 5
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    head_dropout: float = 0.2
    initial_weights: str = "imagenet"


@dataclass(frozen=True)
class Augmentation:
    """Ranges and probabilities of the training augmentation (fractions of full range unless stated)."""

    zoom: tuple[float, float] = (0.8, 1.2)
    zoom_probability: float = 0.2
    crop: tuple[float, float] = (640 / 1024, 1.0)  # each side, as a share of the film's
    blur_sigma: tuple[float, float] = (0.5, 1.15)  # pixels at the working size
    blur_probability: float = 0.15
    scale: float = 0.3
    scale_probability: float = 0.5
    shift: float = 0.1
    shift_probability: float = 0.5
    gamma: tuple[float, float] = (0.7, 1.3)
    gamma_probability: float = 0.5
    noise: float = 0.8 / 255  # largest standard deviation
    noise_probability: float = 0.15
    rotation: float = 15.0  # degrees
    rotation_probability: float = 0.5
    flip_probability: float = 0.5


def _number(help_text: str, **default: Any) -> Any:
    """A field of Recipe, with the sentence that `--help` shows."""
    return field(metadata={"help": help_text}, **default)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what one training run computes, besides the network and the data."""

    image_size: int = _number("working size in pixels: films are squares of this side")
    epochs: int = _number("passes; the best one by validation is kept")
    batch_size: int = _number("films a step")
    learning_rate: float = _number("highest learning rate, reached after the warm-up")
    learning_rate_floor: float = _number("learning rate after the last step")
    weight_decay: float = _number("AdamW's weight decay")
    films_per_epoch: int = _number("films drawn an epoch, with replacement; 0: every positive once")
    share_first: float = _number("expected share of positives in the first epoch", default=0.8)
    share_drop: float = _number(
        "fall of that share: epoch e of E draws share_first - share_drop * e / E", default=0.5
    )
    dice_weight: float = _number("weight of the Dice loss", default=1.0)
    warmup_steps: int = _number(
        "steps of linear warm-up in a run of at least twice as many; a shorter run takes a tenth",
        default=1500,
    )
    clip_norm: float = _number("largest gradient norm", default=5.0)
    accumulation: int = _number(
        "pieces in which a batch is computed, to need less memory; BatchNorm sees a piece at a time",
        default=1,
    )
    precision: Literal["auto", "fp32"] = _number(
        "auto: bf16 or fp16 on a GPU, fp32 on a CPU; fp32: everywhere", default="auto"
    )
    seed: int = _number("seed of weights, order and augmentation", default=0)
    augmentation: Augmentation = field(default_factory=Augmentation)  # turned as a whole, by no flag


_NETWORKS = {
    "published": {
        "eff": Network("tf_efficientnetv2_s.in21k_ft_in1k"),
        "vit": Network("tiny_vit_21m_512.dist_in22k_ft_in1k", encoder_args={"drop_path_rate": 0.1}),
    },
    "demo": {
        "eff": Network(
            "tf_efficientnetv2_b0",
            encoder_args={"channel_multiplier": 0.5},
            encoder_depth=4,
            decoder_channels=(64, 32, 16, 16),
            initial_weights="random",
        ),
        "vit": Network(
            "tiny_vit_5m_224",
            encoder_args={
                "embed_dims": [32, 64, 80, 160],
                "depths": [1, 1, 2, 1],
                "num_heads": [1, 2, 2, 5],
                "window_sizes": [4, 4, 4, 4],
            },
            encoder_depth=4,
            decoder_channels=(64, 32, 16, 16),
            initial_weights="random",
        ),
    },
}
_WEIGHT_DECAY = {"eff": 0.01, "vit": 0.05}
_PUBLISHED = {
    "siim_segmentation": {
        "epochs": 100,
        "batch_size": 4,
        "learning_rate": 1e-4,
        "learning_rate_floor": 1e-7,
        "films_per_epoch": 0,
    },
    "siim_classification": {
        "epochs": 20,
        "batch_size": 8,
        "learning_rate": 5e-5,
        "learning_rate_floor": 1e-8,
        "films_per_epoch": 5000,
        "dice_weight": 0.5,
    },
    "ntuh_segmentation": {
        "epochs": 100,
        "batch_size": 4,
        "learning_rate": 1e-5,
        "learning_rate_floor": 1e-7,
        "films_per_epoch": 0,
    },
    "ntuh_classification": {
        "epochs": 50,
        "batch_size": 8,
        "learning_rate": 1e-5,
        "learning_rate_floor": 1e-8,
        "films_per_epoch": 1000,
        "dice_weight": 0.5,
    },
}
# Few films, few minutes and no ImageNet: a small working size, short runs, higher learning rates, and crops
# that keep most of the film (one that loses the lesion is a wrong label; few steps cannot average it out).
_DEMO_AUGMENTATION = Augmentation(crop=(0.85, 1.0))
_DEMO = {
    "siim_segmentation": {"epochs": 20, "batch_size": 8, "learning_rate": 2e-3},
    "siim_classification": {"epochs": 8, "learning_rate": 2e-3, "films_per_epoch": 480},
    "ntuh_segmentation": {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3},
    "ntuh_classification": {"epochs": 8, "learning_rate": 1e-3, "films_per_epoch": 200},
}
_IMAGE_SIZE = {"published": 512, "demo": 96}


def preset_network(preset: str, system: str) -> Network:
    """The network of a system in a preset."""
    return _NETWORKS[preset][system]


def preset_recipe(preset: str, stage: Stage, system: str) -> Recipe:
    """The recipe of a stage for a system in a preset."""
    numbers: dict[str, Any] = dict(_PUBLISHED[stage.key])
    if preset == "demo":
        numbers |= _DEMO[stage.key] | {"augmentation": _DEMO_AUGMENTATION}
    return Recipe(image_size=_IMAGE_SIZE[preset], weight_decay=_WEIGHT_DECAY[system], **numbers)
