"""The command lines of all scripts: their options, and what of them no run could use."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import tyro

from common.recipes.chosen import ChosenRecipe
from common.recipes.presets import PRESETS, preset_recipe
from common.recipes.recipe import Network, Recipe, wrong_number
from common.refusal import Refusal
from common.shards import Shard
from common.stages import (
    LISTENER_FOLDER,
    N_FOLDS,
    PREDICTION_FOLDER,
    STUDENTS,
    SYSTEMS,
    Stage,
    System,
    Tested,
    student_of,
)


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
    """First date (YYYY-MM-DD) of the test set, for a case table without the column `set`."""
    replace_saturated: bool = False
    """Give saturated pixels (markers, borders) the film's median, as the original method did."""
    keep_identifiers: bool = False
    """Write the source's own case and patient identifiers instead of pseudonyms."""
    max_fault_share: float = 0.1
    """Largest share of faulty films; with more, preparing stops and says so."""


Preset = Literal["published", "strong", "demo"]
_Options = TypeVar("_Options")


def flag(help_text: str, default: str, metavar: str | None = None) -> object:
    """What marks the type of an optional flag, so that its help names its default in words."""
    return tyro.conf.arg(help=help_text, help_behavior_hint=f"(default: {default})", metavar=metavar)


Gpu = Annotated[
    str,
    tyro.conf.arg(
        help="GPU to use, as in `bash train.sh 1`; several: `bash train.sh 0,1`; `cpu`: none",
        metavar="GPU",
    ),
]
NtuhPath = Annotated[str | None, flag("folder of the NTUH export", "data/ntuh", "PATH")]
SiimPatients = Annotated[
    str | None,
    flag(
        "table (CSV: ImageId,patient) by which SIIM-ACR films of one patient are kept together",
        "patients.csv in the folder of the download, where it exists",
        "FILE",
    ),
]


@dataclass(frozen=True)
class TrainOptions:
    """What is not a number of the recipe."""

    gpu: Gpu = "0"
    system: tuple[System, ...] = SYSTEMS
    """Systems to train, in this order."""
    folds: tuple[int, ...] = tuple(range(N_FOLDS))
    """Folds to train (fine-tuning only); the final student is trained where all are named."""
    preset: Annotated[
        Preset | None,
        flag(
            "the recipe: the published one, the strong one for real films, or the demo's quick one; the "
            "flags below change single numbers",
            "published in step 1.1; later steps go on by what their weights record",
        ),
    ] = None
    recipe: Annotated[
        str | None,
        flag(
            "a recipe of your own instead of a preset: a TOML file, as docs/training.md says", "none", "FILE"
        ),
    ] = None
    siim: Annotated[str | None, flag("folder of the SIIM-ACR download", "data/siim", "PATH")] = None
    siim_patients: SiimPatients = None
    ntuh: NtuhPath = None
    imagenet: Annotated[
        str | None,
        flag(
            "timm's ImageNet weights: a file, or a folder of files", "data/imagenet, else timm's hub", "PATH"
        ),
    ] = None
    encoder: Annotated[
        str | None,
        flag(
            "another timm encoder, in step 1.1 (later steps take it from the weights)",
            "the preset's",
            "NAME",
        ),
    ] = None
    initial_weights: Annotated[
        Literal["imagenet", "random"] | None, flag("what the encoder starts from in step 1.1", "the preset's")
    ] = None
    workers: Annotated[
        int | None, flag("processes that read films; changes no result", "0 on a CPU, else 4", "N")
    ] = None
    checkpointing: bool = False
    """Need less memory: compute activations again in the backward pass. A third slower, the same result."""
    save_minutes: float = 10.0
    """Within an epoch, save a checkpoint whenever so many minutes have passed; its end always does."""
    check: bool = False
    """Print what would run, with memory and time estimated from a few steps, and train nothing."""
    fresh: bool = False
    """Start over: drop an interrupted run, or train again although finished weights are there (the new ones
    replace them when the run ends). To go on with an interrupted run, leave it off."""


@dataclass(frozen=True)
class StudentOptions(TrainOptions):
    """The same of a student, who may learn from films without labels, too."""

    unlabelled: Annotated[
        str | None,
        flag(
            "folder of further films without labels, of which a student learns what its teachers say; films "
            "of test patients are refused, of training patients left out",
            "none",
            "PATH",
        ),
    ] = None


_METAVARS = {int: "N", float: "X"}
_OF_STUDENTS = ("soft_share", "unlabelled_share")  # of the recipe's numbers


def override_type(stage: Stage) -> type:
    """A dataclass with one optional field for each number of the recipe; its help shows the presets'."""
    others = {preset: preset_recipe(preset, stage, "eff") for preset in PRESETS}
    published, kinds = others.pop("published"), get_type_hints(Recipe)
    fields = []
    for item in dataclasses.fields(Recipe):
        if item.name == "augmentation":
            continue  # a set of ranges that belong together: not turned one by one from the command line
        if item.name in _OF_STUDENTS and stage.teachers is None:
            continue  # nobody teaches
        usual = getattr(published, item.name)
        other = {preset: getattr(recipe, item.name) for preset, recipe in others.items()}
        differing = [f"{preset} {value}" for preset, value in other.items() if value != usual]
        default = "; ".join([str(usual), *differing])
        if item.name == "weight_decay":
            each = (preset_recipe("published", stage, system).weight_decay for system in SYSTEMS)
            default = ", ".join(f"{system} {decay}" for system, decay in zip(SYSTEMS, each, strict=True))
        kind: Any = kinds[item.name]
        marked = Annotated[kind | None, flag(item.metadata["help"], default, _METAVARS.get(kind))]
        fields.append((item.name, marked, field(default=None)))
    return dataclasses.make_dataclass("Recipe", fields, frozen=True)


@dataclass(frozen=True)
class Request:
    """What the command line asked for.

    Attributes:
        options: The options.
        changes: Numbers of the recipe that it changes.
        named: The recipe that it names, by `--preset` or `--recipe`; None: none.
    """

    options: TrainOptions
    changes: dict[str, Any]
    named: ChosenRecipe | None = None

    def chosen(self, recorded: ChosenRecipe | None) -> ChosenRecipe:
        """The recipe to obey: the named one, else what the first weights record, else the published one."""
        return self.named or recorded or ChosenRecipe.of_preset("published")

    def recipe(self, stage: Stage, system: str, recorded: ChosenRecipe | None = None) -> Recipe:
        """The numbers of a stage with the command line's changes.

        Args:
            stage: The stage.
            system: `eff` or `vit`.
            recorded: The recipe that the stage's first weights record; None: it has none.
        """
        return replace(self.chosen(recorded).recipes.stages[stage.key, system], **self.changes)

    def network(self, system: str) -> Network:
        """The network of step 1.1."""
        network = self.chosen(None).recipes.networks[system]
        if self.options.encoder is not None:
            network = replace(network, encoder=self.options.encoder, encoder_args={})
        if self.options.initial_weights is not None:
            network = replace(network, initial_weights=self.options.initial_weights)
        return network


def given(options: Any) -> dict[str, object]:
    """Values of the options that are not their defaults, by name."""
    return {
        item.name: getattr(options, item.name)
        for item in dataclasses.fields(options)
        if item.init and getattr(options, item.name) != item.default
    }


def _read(command: str, kind: type[_Options], description: str, arguments: Sequence[str] | None) -> _Options:
    """The options of a command line whose command is named as the user types it."""
    config = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(kind, prog=command, args=arguments, description=description, config=config)


def flags_of_scripts() -> dict[str, frozenset[str]]:
    """The flags of each shell script, by its name without `.sh`."""
    kinds: dict[str, tuple[type, ...]] = {
        "train": (TrainOptions, Recipe),
        "get_thresholds": (ThresholdOptions,),
        "inference": (EvaluationOptions,),
        "prepare": (PrepareOptions,),
        "export": (ExportOptions,),
    }
    return {
        script: frozenset(item.name for kind in each for item in dataclasses.fields(kind))
        for script, each in kinds.items()
    }


def parse_train(stage: Stage, description: str, arguments: Sequence[str] | None = None) -> Request:
    """Read the command line of a training script.

    Raises:
        Refusal: A value that no run could use. (A flag that does not exist is tyro's own exit 2.)
    """
    # Flags without a default of their own: what is not given stays as the preset has it.
    numbers = override_type(stage)
    kind = StudentOptions if stage.teachers else TrainOptions
    both = dataclasses.make_dataclass(
        "Train",
        [
            ("options", kind, field(default=kind())),
            ("numbers", numbers, field(default=numbers())),
        ],
    )
    parsed: Any = _read("bash train.sh", both, description, arguments)
    options = parsed.options
    changes = {k: v for k, v in dataclasses.asdict(parsed.numbers).items() if v is not None}
    for fold in options.folds:
        if not 0 <= fold < N_FOLDS:
            raise Refusal(f"--folds {fold}: there is no such fold", do=f"use 0 to {N_FOLDS - 1}")
    if options.encoder is not None and len(options.system) != 1:
        raise Refusal("--encoder is for one system", do="add --system eff or --system vit")
    for name, value in changes.items():
        if wrong := wrong_number(name, value):
            raise Refusal(f"--{name.replace('_', '-')} {value} {wrong}")
    return Request(options, changes, _named_recipe(options))


def _named_recipe(options: TrainOptions) -> ChosenRecipe | None:
    if options.preset and options.recipe:
        raise Refusal(
            "--preset and --recipe name two recipes",
            do=f'give one of them; a file of your own begins with based_on = "{options.preset}"',
        )
    if options.recipe:
        return ChosenRecipe.of_file(Path(options.recipe).expanduser())
    return ChosenRecipe.of_preset(options.preset) if options.preset else None


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of get_thresholds and inference: all else stands in the weights."""

    gpu: Gpu = "0"
    system: tuple[System, ...] = SYSTEMS
    """Systems to evaluate, in this order."""
    student: bool = False
    """Take the student of each system: one network a task in the place of five."""
    ntuh: NtuhPath = None
    preset: Annotated[
        Preset | None, flag("insist that the networks were trained with this preset", "any")
    ] = None
    workers: Annotated[
        int | None, flag("processes that read films; changes no result", "0 on a CPU, else 4", "N")
    ] = None

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems to evaluate: `eff_student` for the student of `eff`."""
        return tuple(student_of(system) if self.student else system for system in self.system)


@dataclass(frozen=True)
class ThresholdOptions(EvaluationOptions):
    """Options of get_thresholds."""

    rule: Literal["youden", "sensitivity-95", "lowest-cost"] = "youden"
    """How the probability threshold is chosen: the best Youden index; the highest specificity at a
    sensitivity of at least 0.95; or the lowest expected cost. Choose before testing."""
    prevalence: Annotated[
        float | None, flag("of pneumothorax where the system is to be used, for lowest-cost", "none", "X")
    ] = None
    cost_ratio: Annotated[
        float | None, flag("cost of a miss over cost of a false alarm, for lowest-cost", "1", "X")
    ] = None
    area_rule: Literal["smallest", "percentile-2.5"] = "smallest"
    """How the area threshold is chosen: the smallest out-of-fold overlap above 0, or their 2.5th percentile,
    which hangs less on single films. Choose before testing."""


@dataclass(frozen=True)
class PrepareOptions:
    """Films to prepare, and the rules for it."""

    siim: Annotated[
        str | None, flag("folder of the SIIM-ACR download", "data/siim, where it exists", "PATH")
    ] = None
    siim_patients: SiimPatients = None
    ntuh: Annotated[
        str | None, flag("folder of the hospital's films", "data/ntuh, where it exists", "PATH")
    ] = None
    unlabelled: Annotated[
        str | None,
        flag(
            "folder of films without labels, for students; prepared by the rules of the hospital's",
            "none",
            "PATH",
        ),
    ] = None
    check_table: Annotated[
        str | None,
        flag("tell what is in a case table and what is wrong in it, and do nothing else", "none", "PATH"),
    ] = None
    write_template: Annotated[
        str | None, flag("write an example of a case table, and do nothing else", "none", "FILE")
    ] = None
    fresh: bool = False
    """Prepare again although the films are prepared; weights made from them must then be trained anew."""
    shard: Annotated[
        str | None,
        flag(
            "read a share of the films: commands with 0/4, 1/4, 2/4 and 3/4, on as many machines that share "
            "the disk, read all; whoever comes last checks and finishes the sets",
            "all films",
            "I/N",
        ),
    ] = None
    rules: Rules = field(default_factory=Rules)


def parse_prepare(description: str, arguments: Sequence[str] | None = None) -> PrepareOptions:
    """Read the command line of prepare.

    Raises:
        Refusal: A value that no preparation could use, or no such shard.
    """
    options = _read("bash prepare.sh", PrepareOptions, description, arguments)
    rules = options.rules
    _refuse_fresh_shard(options)
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
    return _read("bash inference.sh", EvaluationOptions, description, arguments)


def parse_thresholds(description: str, arguments: Sequence[str] | None = None) -> ThresholdOptions:
    """Read the command line of get_thresholds.

    Raises:
        Refusal: A rule without what it needs, or a value that cannot be.
    """
    options = _read("bash get_thresholds.sh", ThresholdOptions, description, arguments)
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
    """Films to predict, and by what."""

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """A film (DICOM, PNG, JPEG or TIFF), or a folder of them; hidden files and DICOMDIR are passed over."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the results, outside the input; what the same command left there before is kept."""
    gpu: Gpu = "0"
    system: Annotated[System | None, flag("system to use", "eff, or the bundle's")] = None
    student: bool = False
    """Use the system's student: one network a task in the place of five. A bundle holds what it holds."""
    bundle: Annotated[
        str | None,
        flag("file made by export.sh; without it the system trained in this workspace", "none", "FILE"),
    ] = None
    backend: Literal["torch", "openvino"] = "torch"
    """What computes; openvino is faster on a CPU (pip install openvino)."""
    keep_identifiers: bool = False
    """Write each film's path in findings.csv; it may hold a name."""
    fresh: bool = False
    """Delete first what an earlier run wrote into the output folder, and nothing else."""
    shard: Annotated[
        str | None,
        flag(
            "predict a share of the films: commands with 0/4, 1/4, 2/4 and 3/4, on as many machines that "
            "share the disk, predict all; whoever comes last writes the tables",
            "all films",
            "I/N",
        ),
    ] = None

    @property
    def named(self) -> str | None:
        """Name of the system to use, `eff_student` for the student of `eff`; None: the bundle's, or `eff`."""
        return student_of(self.system or SYSTEMS[0]) if self.student else self.system


def parse_prediction(description: str, arguments: Sequence[str] | None = None) -> PredictOptions:
    """Read the command line of predict.

    Raises:
        Refusal: A backend that does not fit the device, a bundle and a student, or no such shard.
    """
    options = _read("bash predict.sh", PredictOptions, description, arguments)
    if re.fullmatch(r"cpu|[0-9]+(,[0-9]+)*", options.output):
        raise Refusal(
            f"{options.output} is where to compute, not where to write",
            do=f"name the folder of the results before it; one that is called so is ./{options.output}",
        )
    _refuse_impossible_prediction(options)
    _refuse_fresh_shard(options)
    return options


Interval = Literal["percentile", "bca"]
_FEWEST_REPLICATES = 40  # with fewer the 2.5% tails hold less than one of them


@dataclass(frozen=True)
class ReportOptions:
    """Metrics of the test results, with 95% intervals."""

    replicates: int = 10_000
    """Resamples behind each interval."""
    seed: int = 0
    """Seed of the resampling; the same seed gives the same bytes."""
    system: tuple[Tested, ...] = SYSTEMS
    """One or two systems to report, in this order; metrics.csv then holds these only."""
    interval: Interval = "percentile"
    """How an interval is made from the resamples: bca is bias-corrected and accelerated (Efron 1987)."""
    prevalence: float | None = None
    """Give PPV and NPV at this prevalence, too, from sensitivity and specificity."""
    readers: Path | None = None
    """CSV of human readers' calls (columns case, reader, call, perhaps confidence and aid), scored, too."""
    peer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=FOLDER: what a system of others says of the test films (cases.csv, perhaps maps/), scored, too, as
    docs/statistics.md says; give the flag once for each."""
    plan: Path | None = None
    """Plan of the test, as --write-plan begins it: stated in every output, with its verdicts."""
    all: bool = False
    """Print every table: both references and decisions, groups, calibration, further metrics."""
    write_plan: Path | None = None
    """Begin a plan in this new file, and do nothing else; fill it in before the first look at the results."""

    @property
    def peers(self) -> dict[str, Path]:
        """The folder of each peer, by its name."""
        return {
            name: Path(folder).expanduser() for name, _, folder in (each.partition("=") for each in self.peer)
        }


def parse_report(description: str, arguments: Sequence[str] | None = None) -> ReportOptions:
    """Read the command line of bootstrap.

    Raises:
        Refusal: A value that gives no interval.
    """
    options = _read("python bootstrap.py", ReportOptions, description, arguments)
    if options.replicates < _FEWEST_REPLICATES:
        raise Refusal(
            f"--replicates {options.replicates} is too few for a 95% interval",
            do=f"use at least {_FEWEST_REPLICATES}; the default is {ReportOptions.replicates}",
        )
    if options.seed < 0:
        raise Refusal(f"--seed {options.seed} is negative", do="use 0 or more")
    if options.prevalence is not None and not 0 < options.prevalence < 1:
        raise Refusal(f"--prevalence {options.prevalence} is not between 0 and 1", do="use for example 0.05")
    if not options.system:
        raise Refusal("--system names no system", do=f"use --system {' '.join(SYSTEMS)}")
    if len(set(options.system)) > 2:
        raise Refusal("--system names more than two systems", do="report two at a time: they are compared")
    _refuse_impossible_peers(options.peer)
    return options


# Letters, digits and so on: a hyphen would read as a difference of two systems.
_PEER = re.compile(r"([A-Za-z][A-Za-z0-9_.]{0,19})=(.+)")


def _refuse_impossible_peers(peers: Sequence[str]) -> None:
    names: list[str] = []
    for each in peers:
        parts = _PEER.fullmatch(each)
        if not parts:
            raise Refusal(
                f"--peer {each} names no system and its folder",
                do="write it as NAME=FOLDER, the name of up to 20 letters, digits, points and underscores, "
                "such as nnUNet=predictions",
            )
        if parts[1].lower() in (*SYSTEMS, *STUDENTS, "reader", "readers", *(name.lower() for name in names)):
            raise Refusal(f"--peer {each}: another row of the tables has this name", do="choose another name")
        names.append(parts[1])


@dataclass(frozen=True)
class ExportOptions:
    """Systems to pack, and where to."""

    system: tuple[System, ...] = SYSTEMS
    """Systems to pack, a file each."""
    student: bool = False
    """Pack the student of each system: one network a task in the place of five."""
    output: Annotated[
        str | None,
        flag("file to write, where one system is packed", f"<system>.bundle in {PREDICTION_FOLDER}", "FILE"),
    ] = None
    onnx: bool = False
    """ONNX files instead of a bundle, a folder a system, for programs without torch."""

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems to pack: `eff_student` for the student of `eff`."""
        return tuple(student_of(system) if self.student else system for system in self.system)


def parse_export(description: str, arguments: Sequence[str] | None = None) -> ExportOptions:
    """Read the command line of export.

    Raises:
        Refusal: One file is named for several systems.
    """
    options = _read("bash export.sh", ExportOptions, description, arguments)
    if options.output and len(options.system) != 1:
        raise Refusal(
            "--output names one file, and each system is packed in its own", do="add --system eff or vit"
        )
    return options


def _refuse_fresh_shard(options: PrepareOptions | PredictOptions) -> None:
    if Shard.named(options.shard).count > 1 and options.fresh:
        raise Refusal(
            "--fresh would delete what other shards have written",
            do="give it to a command without --shard, or delete what is there before the shards begin",
        )


def _refuse_impossible_prediction(options: PredictOptions | ListenOptions) -> None:
    if options.backend == "openvino" and options.gpu != "cpu":
        raise Refusal("--backend openvino computes on the CPU", do="name cpu as the device")
    if options.student and options.bundle is not None:
        raise Refusal(
            "--student names a system of this workspace, and a bundle is one already",
            do="leave one of them off",
        )


@dataclass(frozen=True)
class NnunetOptions:
    """Where the dataset is written, or what nnU-Net made of it."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write into, which gets nnUNet_raw and nnUNet_preprocessed; with --collect, a peer's files."""
    image_size: int = 512
    """Side of the square pictures in pixels, at most 1024."""
    collect: Annotated[
        Path | None,
        flag(
            "write no dataset, but what nnU-Net predicted of the test films, for bootstrap.py --peer",
            "none",
            "PREDICTIONS",
        ),
    ] = None


def parse_nnunet(description: str, arguments: Sequence[str] | None = None) -> NnunetOptions:
    """Read the command line of the export to nnU-Net.

    Raises:
        Refusal: A size that films are not prepared in, or no such predictions.
    """
    options = _read("bash nnunet.sh", NnunetOptions, description, arguments)
    if not 32 <= options.image_size <= 1024:
        raise Refusal(f"--image-size {options.image_size} is not possible", do="choose 32 to 1024")
    if options.collect is not None and not options.collect.is_dir():
        raise Refusal(f"--collect {options.collect} is no folder", do="name the output of nnUNetv2_predict")
    return options


@dataclass(frozen=True)
class Destination:
    """Where results are sent.

    Attributes:
        ae_title: AE title of the receiving program.
        host: Host name or IP address of the destination.
        port: TCP port of the destination, 1 to 65535.
    """

    ae_title: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Destination:
        """From `AE_TITLE@HOST:PORT`.

        Raises:
            Refusal: It is not written so.
        """
        parts = re.fullmatch(r"([^@]+)@(.+):(\d{1,5})", text)
        if not parts or not 0 < int(parts[3]) < 65536:
            raise Refusal(f"--destination {text} names no destination", do="write it as PACS@127.0.0.1:11113")
        return cls(ae_title("--destination", parts[1]), parts[2].strip("[]"), int(parts[3]))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


def ae_title(name: str, title: str) -> str:
    """An AE title (PS3.5 6.2): at most 16 characters of ASCII, no backslash, not only spaces."""
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title) or not title.strip():
        raise Refusal(f"{name} {title!r} is no AE title", do="use 1 to 16 letters, digits and underscores")
    return title


@dataclass(frozen=True)
class ReadOptions:
    """What the reading room shows; nothing named: the test films."""

    predicted: Annotated[
        Path | None, flag("show this output folder of predict.sh instead of the test films", "none", "FOLDER")
    ] = None
    study: Annotated[
        Path | None, flag("hold the reader study whose plan.toml lies in this folder", "none", "FOLDER")
    ] = None
    port: int = 0
    """TCP port of this machine, 127.0.0.1; 0: a free one."""


def parse_read(description: str, arguments: Sequence[str] | None = None) -> ReadOptions:
    """Read the command line of read.

    Raises:
        Refusal: Two things are to be shown at once, or a port that is none.
    """
    options = _read("bash read.sh", ReadOptions, description, arguments)
    if options.predicted is not None and options.study is not None:
        raise Refusal("--predicted and --study are two rooms", do="open one, then the other")
    if not 0 <= options.port < 65536:
        raise Refusal(f"--port {options.port} is no port")
    return options


@dataclass(frozen=True)
class ListenOptions:
    """Who may send films, where results go, and by what they are found."""

    gpu: Gpu = "0"
    caller: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """AE title of a device that may send films; give the flag once for each. At least one is needed."""
    destination: Annotated[
        str | None,
        flag(
            "archive that gets the results, as AE_TITLE@HOST:PORT", "none, they only lie in the folder", "AE"
        ),
    ] = None
    folder: Annotated[str | None, flag("where films wait and results lie", LISTENER_FOLDER, "PATH")] = None
    ae_title: str = "PTX"
    """Our own AE title; a caller must call it."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine, only in a network that you trust: DICOM sends films
    unencrypted, and anybody can claim an AE title."""
    port: int = 11112
    """TCP port to listen on."""
    system: Annotated[System | None, flag("system to use", "eff, or the bundle's")] = None
    student: bool = False
    """Use the system's student: one network a task in the place of five. A bundle holds what it holds."""
    bundle: Annotated[
        str | None,
        flag("file made by export.sh; without it the system trained in this workspace", "none", "FILE"),
    ] = None
    backend: Literal["torch", "openvino"] = "torch"
    """What computes; openvino is faster on a CPU (pip install openvino)."""
    largest_film: int = 256
    """MB; a larger one is refused."""
    keep_free: int = 1024
    """MB of the disk to keep free: with less, films are refused (status A700) and their senders keep them."""
    associations: int = 8
    """Callers served at the same time."""
    idle: float = 60.0
    """Seconds after which a caller that says nothing is cut off."""
    give_up: float = 30.0
    """Days for which an object is sent again that the destination does not take for now; then it is put
    aside. 0: for ever."""
    keep_days: float = 0.0
    """Days after which results in the folder are deleted, unless somebody changed them. 0: never."""

    @property
    def named(self) -> str | None:
        """Name of the system to use, `eff_student` for the student of `eff`; None: the bundle's, or `eff`."""
        return student_of(self.system or SYSTEMS[0]) if self.student else self.system


def parse_listen(description: str, arguments: Sequence[str] | None = None) -> ListenOptions:
    """Read the command line of listen.

    Raises:
        Refusal: No caller is named, or a value that cannot be.
    """
    options = _read("bash listen.sh", ListenOptions, description, arguments)
    if not options.caller:
        raise Refusal(
            "nobody may send films", do="name each device that may: --caller AE_TITLE, once for each"
        )
    # Refused here: pynetdicom would raise a ValueError only when it begins to listen.
    for name, titles in (("--caller", options.caller), ("--ae-title", (options.ae_title,))):
        for title in titles:
            ae_title(name, title)
    if options.destination is not None:
        Destination.of(options.destination)
    for name in ("largest_film", "associations", "idle"):
        if not getattr(options, name) > 0:
            raise Refusal(f"--{name.replace('_', '-')} {getattr(options, name)} must be positive")
    for name in ("keep_free", "give_up", "keep_days"):
        if not getattr(options, name) >= 0:
            raise Refusal(f"--{name.replace('_', '-')} {getattr(options, name)} must not be negative")
    if not 0 <= options.port < 65536:
        raise Refusal(f"--port {options.port} is no port")
    _refuse_impossible_prediction(options)
    return options
