"""What decides a training run: its network and its recipe, and what each of their names means.

The values stand in `published.toml`, the recipe of Wang et al., J Med Syst 2023;48:1 (doi
10.1007/s10916-023-02023-1), in `strong.toml`, its numbers for real films, and in `demo.toml`, a quick one for
a CPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal


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
    encoder_args: dict[str, Any]
    encoder_depth: int
    decoder_channels: tuple[int, ...]
    head_dropout: float
    initial_weights: Literal["imagenet", "random"]


@dataclass(frozen=True)
class Augmentation:
    """Ranges and probabilities of the training augmentation.

    Attributes:
        zoom: Smallest and largest factor.
        crop: Smallest and largest share of the film's side that is kept, drawn for each of two sides.
        blur_sigma: Smallest and largest standard deviation, in pixels at the image size.
        scale: Largest relative change of the intensities.
        shift: Largest change of the intensities, as a share of the full range.
        gamma: Smallest and largest exponent.
        noise: Largest standard deviation, as a share of the full range.
        rotation: Largest angle in degrees, to either side.
    """

    zoom: tuple[float, float]
    zoom_probability: float
    crop: tuple[float, float]
    blur_sigma: tuple[float, float]
    blur_probability: float
    scale: float
    scale_probability: float
    shift: float
    shift_probability: float
    gamma: tuple[float, float]
    gamma_probability: float
    noise: float
    noise_probability: float
    rotation: float
    rotation_probability: float
    flip_probability: float


def _explained(help_text: str) -> Any:
    """A field of Recipe, with the sentence that `--help` shows."""
    return field(metadata={"help": help_text})


def _later(help_text: str, neutral: Any) -> Any:
    """A field that earlier recipes lack; they say the same as its neutral value."""
    return field(metadata={"help": help_text, "neutral": neutral})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what one training run computes, besides the network and the data."""

    image_size: int = _explained("working size in pixels: films are squares of this side")
    epochs: int = _explained("passes; the best one by validation is kept")
    batch_size: int = _explained("films a step")
    learning_rate: float = _explained("highest learning rate, reached after the warm-up")
    learning_rate_floor: float = _explained("learning rate after the last step")
    weight_decay: float = _explained("AdamW's weight decay")
    films_per_epoch: int = _explained("films drawn an epoch, with replacement; 0: every positive once")
    share_first: float = _explained("expected share of positives in the first epoch")
    share_drop: float = _explained("fall of that share: epoch e of E draws share_first - share_drop * e / E")
    dice_weight: float = _explained("weight of the Dice loss")
    warmup_steps: int = _explained(
        "steps of linear warm-up in a run of at least twice as many; a shorter run takes a tenth"
    )
    clip_norm: float = _explained("largest gradient norm")
    accumulation: int = _explained(
        "pieces in which a batch is computed, to need less memory; BatchNorm sees a piece at a time"
    )
    precision: Literal["auto", "fp32"] = _explained(
        "auto: bf16 or fp16 on a GPU, fp32 on a CPU; fp32: everywhere"
    )
    seed: int = _explained("seed of weights, order and augmentation")
    bce_weight: float = _later("weight of the binary cross-entropy of the mask's pixels", 0.0)
    dice_films: Literal["all", "positives"] = _later("films of a batch whose Dice is learned", "all")
    ema_decay: float = _later(
        "decay of the moving average of the weights, which is validated and kept in their place; 0: none", 0.0
    )
    flip: bool = _later("average what is said of a film and of its mirror image, once it is trained", False)
    map_threshold: Literal["half", "out-of-fold"] = _later(
        "what a pixel's map must exceed to be segmented: 0.5, or what gives the best Dice out of fold", "half"
    )
    soft_share: float = _later(
        "share of what the teachers say in the targets of a student's cross-entropies, beside the truth", 0.0
    )
    unlabelled_share: float = _later(
        "share of a student's draws that are unlabelled films in the place of others, where there are any",
        0.0,
    )
    augmentation: Augmentation = _explained("turned as a whole, by no flag")


_POSITIVE = ("image_size", "epochs", "batch_size", "learning_rate", "accumulation", "clip_norm")
_NOT_NEGATIVE = (
    *("learning_rate_floor", "weight_decay", "films_per_epoch", "dice_weight", "bce_weight"),
    *("warmup_steps", "seed"),
)

_SHARES = ("share_first", "share_drop", "soft_share", "unlabelled_share", "head_dropout")


def wrong_number(name: str, value: Any) -> str | None:
    """What a number of a recipe must be and is not, to be said behind its name; None: a run could use it."""
    if name in _POSITIVE and value <= 0:
        return "must be positive"
    if name in _NOT_NEGATIVE and value < 0:
        return "must not be negative"
    if name == "image_size" and value % 32:  # the encoder halves the side five times
        return "must be a multiple of 32"
    if name == "ema_decay" and not 0 <= value < 1:
        return "must be at least 0 and below 1"
    if name in _SHARES and not 0 <= value <= 1:
        return "must lie between 0 and 1"
    return None


# What makes timm load or fetch weights: arguments that no network of this project is made with
LOADING_ARGS = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """A recipe as metadata holds it: without what is neutral, as before there was a choice."""
    neutral = {item.name: item.metadata["neutral"] for item in fields(Recipe) if "neutral" in item.metadata}
    return {
        name: value for name, value in asdict(recipe).items() if name not in neutral or value != neutral[name]
    }
