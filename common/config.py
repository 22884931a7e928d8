"""What decides a run: the networks and recipes of the presets, and the command line made from them.

`published` is the recipe of Wang et al., J Med Syst 2023;48:1 (doi 10.1007/s10916-023-02023-1), number by
number. `demo` differs from it only in what it names here, so that the whole pipeline runs on a CPU in
minutes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Annotated, Any, Literal

import tyro

from common.artefacts import N_FOLDS, SYSTEMS, Stage
from common.refusal import Refusal

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
    numbers = dict(_PUBLISHED[stage.key])
    if preset == "demo":
        numbers |= _DEMO[stage.key] | {"augmentation": _DEMO_AUGMENTATION}
    return Recipe(image_size=_IMAGE_SIZE[preset], weight_decay=_WEIGHT_DECAY[system], **numbers)


# --- which films ---


@dataclass(frozen=True)
class Rules:
    """What films must be to be prepared, and how: one set of rules for all later steps."""

    minimum_age: float = 20
    """Youngest age in years (films of unknown age are kept and counted; SIIM-ACR has no age rule)."""
    views: tuple[str, ...] = ()
    """ViewPosition of the films to keep, for example AP; none: every view. Unknown views are kept."""
    allow_chest_tube: bool = False
    """Keep films with a chest tube."""
    allow_burned_in: bool = False
    """Keep films whose header says that text is burned into the picture (it may name the patient)."""
    test_from: str = ""
    """First date (YYYY-MM-DD) of the test set, for a cases.csv without the column `set`."""
    replace_saturated: bool = False
    """Give saturated pixels (markers, borders) the film's median, as the original method did."""
    keep_identifiers: bool = False
    """Write the source's own case and patient identifiers instead of pseudonyms."""
    max_fault_share: float = 0.1
    """Largest share of faulty films; with more, preparing stops and says so."""


# --- the command line ------------------------------------------------------------------------------

Preset = Literal["published", "demo"]
System = Literal["eff", "vit"]


def flag(kind: Any, help_text: str, default: str, metavar: str | None = None) -> Any:
    """The type of an optional flag whose help names its default in words."""
    argument = tyro.conf.arg(help=help_text, help_behavior_hint=f"(default: {default})", metavar=metavar)
    return Annotated[kind | None, argument]


Gpu = Annotated[
    str,
    tyro.conf.arg(
        help="GPU to use, as in `bash train.sh 1`; several: `bash train.sh 0,1`; `cpu`: none",
        metavar="GPU",
    ),
]
NtuhPath = flag(str, "folder of the NTUH export", "data/ntuh", "PATH")


@dataclass(frozen=True)
class TrainOptions:
    """What is not a number of the recipe."""

    gpu: Gpu = "0"
    system: tuple[System, ...] = SYSTEMS
    """Systems to train, in this order."""
    folds: tuple[int, ...] = tuple(range(N_FOLDS))
    """Folds to train (fine-tuning only)."""
    preset: Preset = "published"
    """The recipe: the published one, or the demo's quick one; the flags below change single numbers."""
    siim: flag(str, "folder of the SIIM-ACR download", "data/siim", "PATH") = None
    ntuh: NtuhPath = None
    imagenet: flag(
        str, "timm's ImageNet weights: a file, or a folder of files", "data/imagenet, else timm's hub", "PATH"
    ) = None
    encoder: flag(
        str,
        "another timm encoder, in step 1.1 (later steps take it from the weights)",
        "the preset's",
        "NAME",
    ) = None
    initial_weights: flag(
        Literal["imagenet", "random"], "what the encoder starts from in step 1.1", "the preset's"
    ) = None
    workers: flag(int, "processes that read films; changes no result", "0 on a CPU, else 4", "N") = None
    checkpointing: bool = False
    """Need less memory: compute activations again in the backward pass. A third slower, the same result."""
    save_minutes: float = 10.0
    """Within an epoch, save a checkpoint whenever so many minutes have passed; its end always does."""
    check: bool = False
    """Print what would run, with memory and time estimated from a few steps, and train nothing."""
    fresh: bool = False
    """Start over: drop an interrupted run, or train again although finished weights are there (the new ones
    replace them when the run ends). To go on with an interrupted run, leave it off."""


def _override_type(stage: Stage) -> type:
    """A dataclass with one optional field for each number of the recipe; its help shows the presets'."""
    published, demo = (preset_recipe(preset, stage, "eff") for preset in PRESETS)
    fields = []
    for item in dataclasses.fields(Recipe):
        if item.name == "augmentation":
            continue  # a set of ranges that belong together: not turned one by one from the command line
        old, new = getattr(published, item.name), getattr(demo, item.name)
        default = f"{old}; demo {new}" if new != old else f"{old}"
        if item.name == "weight_decay":
            default = ", ".join(f"{system} {decay}" for system, decay in _WEIGHT_DECAY.items())
        kind = Literal["auto", "fp32"] if item.name == "precision" else type(old)
        metavar = None if item.name == "precision" else {int: "N", float: "X"}[kind]
        fields.append((item.name, flag(kind, item.metadata["help"], default, metavar), field(default=None)))
    return dataclasses.make_dataclass("Recipe", fields, frozen=True)


@dataclass(frozen=True)
class Request:
    """What the command line asked for: the options, and the numbers of the recipe that it changes."""

    options: TrainOptions
    changes: dict[str, Any]

    def recipe(self, stage: Stage, system: str) -> Recipe:
        """The recipe of the preset with the command line's changes."""
        return replace(preset_recipe(self.options.preset, stage, system), **self.changes)

    def network(self, system: str) -> Network:
        """The network of step 1.1."""
        network = preset_network(self.options.preset, system)
        if self.options.encoder is not None:
            network = replace(network, encoder=self.options.encoder, encoder_args={})
        if self.options.initial_weights is not None:
            network = replace(network, initial_weights=self.options.initial_weights)
        return network


def parse_train(stage: Stage, description: str, arguments: Sequence[str] | None = None) -> Request:
    """Read the command line of a training script.

    Raises:
        Refusal: A value that no run could use. (A flag that does not exist is tyro's own exit 2.)
    """
    numbers = _override_type(stage)
    both = dataclasses.make_dataclass(
        "Train",
        [
            ("options", TrainOptions, field(default=TrainOptions())),
            ("recipe", numbers, field(default=numbers())),
        ],
    )
    parsed = tyro.cli(both, args=arguments, description=description, config=(tyro.conf.OmitArgPrefixes,))
    options = parsed.options
    changes = {k: v for k, v in dataclasses.asdict(parsed.recipe).items() if v is not None}
    for fold in options.folds:
        if not 0 <= fold < N_FOLDS:
            raise Refusal(f"--folds {fold}: there is no such fold", do=f"use 0 to {N_FOLDS - 1}")
    if options.encoder is not None and len(options.system) != 1:
        raise Refusal("--encoder is for one system", do="add --system eff or --system vit")
    for name in ("image_size", "epochs", "batch_size", "learning_rate", "accumulation"):
        if name in changes and changes[name] <= 0:
            raise Refusal(f"--{name.replace('_', '-')} {changes[name]} must be positive")
    if changes.get("image_size", 32) % 32:
        raise Refusal(f"--image-size {changes['image_size']} must be a multiple of 32")
    return Request(options, changes)


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of get_thresholds and inference: all else stands in the weights."""

    gpu: Gpu = "0"
    system: tuple[System, ...] = SYSTEMS
    """Systems to evaluate, in this order."""
    ntuh: NtuhPath = None
    preset: flag(Preset, "insist that the networks were trained with this preset", "any") = None
    workers: flag(int, "processes that read films; changes no result", "0 on a CPU, else 4", "N") = None


@dataclass(frozen=True)
class ThresholdOptions(EvaluationOptions):
    """Options of get_thresholds."""

    rule: Literal["youden", "sensitivity-95", "lowest-cost"] = "youden"
    """How the probability threshold is chosen: the best Youden index; the highest specificity at a
    sensitivity of at least 0.95; or the lowest expected cost. Choose before testing."""
    prevalence: flag(
        float, "of pneumothorax where the system is to be used, for lowest-cost", "none", "X"
    ) = None
    cost_ratio: flag(float, "cost of a miss over cost of a false alarm, for lowest-cost", "1", "X") = None


@dataclass(frozen=True)
class PrepareOptions:
    """Which films to prepare, and by which rules."""

    siim: flag(str, "folder of the SIIM-ACR download", "data/siim, where it exists", "PATH") = None
    ntuh: flag(str, "folder of the hospital's films", "data/ntuh, where it exists", "PATH") = None
    fresh: bool = False
    """Prepare again although the films are prepared; weights made from them must then be trained anew."""
    rules: Rules = field(default_factory=Rules)


def parse_prepare(description: str, arguments: Sequence[str] | None = None) -> PrepareOptions:
    """Read the command line of prepare.

    Raises:
        Refusal: A value that no preparation could use.
    """
    options = tyro.cli(
        PrepareOptions, args=arguments, description=description, config=(tyro.conf.OmitArgPrefixes,)
    )
    rules = options.rules
    if rules.test_from:
        try:
            date.fromisoformat(rules.test_from)
        except ValueError:
            raise Refusal(f"--test-from {rules.test_from} is no date", do="write it as 2020-01-01") from None
    if not 0 <= rules.max_fault_share <= 1:
        raise Refusal(f"--max-fault-share {rules.max_fault_share} must lie between 0 and 1")
    if not 0 <= rules.minimum_age <= 130:
        raise Refusal(f"--minimum-age {rules.minimum_age} is no age in years")
    return options


def parse_evaluation(description: str, arguments: Sequence[str] | None = None) -> EvaluationOptions:
    """Read the command line of inference."""
    return tyro.cli(EvaluationOptions, args=arguments, description=description)


def parse_thresholds(description: str, arguments: Sequence[str] | None = None) -> ThresholdOptions:
    """Read the command line of get_thresholds.

    Raises:
        Refusal: A rule without what it needs, or a value that cannot be.
    """
    options = tyro.cli(ThresholdOptions, args=arguments, description=description)
    prevalence, ratio = options.prevalence, options.cost_ratio
    needs = "--rule lowest-cost" if options.rule == "lowest-cost" else f"--cost-ratio {ratio}"
    if prevalence is None and (options.rule == "lowest-cost" or ratio is not None):
        raise Refusal(
            f"{needs} needs the prevalence where the system is to be used",
            do="add it, for example --prevalence 0.1",
        )
    if prevalence is not None and not 0 < prevalence < 1:
        raise Refusal(f"--prevalence {prevalence} must lie between 0 and 1")
    if ratio is not None and not 0 < ratio < math.inf:
        raise Refusal(f"--cost-ratio {ratio} must be positive")
    return options


@dataclass(frozen=True)
class PredictOptions:
    """Which films, and by what."""

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """A film (DICOM, PNG, JPEG or TIFF), or a folder of them; hidden files and DICOMDIR are passed over."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the results, outside the input; what the same command left there before is kept."""
    gpu: Gpu = "0"
    system: flag(System, "system to use", "eff, or the bundle's") = None
    bundle: flag(
        str, "file made by export.sh; without it the system trained in this workspace", "none", "FILE"
    ) = None
    backend: Literal["torch", "openvino"] = "torch"
    """What computes; openvino is faster on a CPU (pip install openvino)."""
    keep_identifiers: bool = False
    """Write each film's path in findings.csv; it may hold a name."""
    fresh: bool = False
    """Delete first what an earlier run wrote into the output folder, and nothing else."""


def parse_prediction(description: str, arguments: Sequence[str] | None = None) -> PredictOptions:
    """Read the command line of predict.

    Raises:
        Refusal: A backend that does not fit the device.
    """
    options = tyro.cli(PredictOptions, args=arguments, description=description)
    if options.backend == "openvino" and options.gpu != "cpu":
        raise Refusal("--backend openvino computes on the CPU", do="name cpu as the device")
    return options
