"""How each script starts: its command line, what is missing, a first word; then what takes seconds to load.

torch, timm and the decoders are loaded inside these functions, so that `--help`, a flag that cannot be and a
missing input are answered at once.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.command_line import (
    EvaluationOptions,
    ListenOptions,
    PrepareOptions,
    StudentOptions,
    flags_of_scripts,
    given,
    parse_evaluation,
    parse_export,
    parse_listen,
    parse_nnunet,
    parse_prediction,
    parse_prepare,
    parse_read,
    parse_report,
    parse_thresholds,
    parse_train,
)
from common.devices import devices_named
from common.hints import from_here, remember
from common.loading import loading
from common.missing import (
    SOURCE_TITLES,
    folders_to_prepare,
    refuse_missing_bundle,
    refuse_missing_films,
    refuse_missing_networks,
    refuse_missing_results,
    refuse_missing_sets,
    refuse_missing_thresholds,
    refuse_missing_weights,
    systems_with_results,
)
from common.pipeline.asked import Asked, manual
from common.pipeline.planned_stages import WHOLE
from common.refusal import Refusal, gather
from common.stages import READING_FOLDER, STAGES, STUDENT_STAGES, STUDENTS, SYSTEMS

if TYPE_CHECKING:
    from common.prediction.listener.receive import Process

Arguments = Sequence[str] | None  # of the command line; None: the script's own


def prepare(description: str, arguments: Arguments = None) -> None:
    """Start `prepare.py`.

    Args:
        description: The script's docstring, shown by `--help`; so in all functions of this file.
        arguments: Arguments of the command line; None: the script's own.

    Raises:
        Refusal: A value that no preparation could use, no films; or of `prepare_sources`.
        SystemExit: Status 3: something is wrong in the table that was to be checked.
    """
    options = parse_prepare(description, arguments)
    _remember(options)
    if options.check_table or options.write_template:
        _look_at_table(options)
        return
    folders = folders_to_prepare(options.siim, options.ntuh, options.unlabelled, options.siim_patients)
    _say(f"prepare: {' and '.join(SOURCE_TITLES[key] for key in folders)} films")
    with loading():
        from common.preparation.run import prepare_sources

    prepare_sources(options)


def _look_at_table(options: PrepareOptions) -> None:
    from common.sources.table_check import TableCheck, write_template

    if options.write_template:
        write_template(Path(options.write_template))
        _say(f"written: {options.write_template}; docs/data.md says what its columns mean")
    if options.check_table:
        check = TableCheck.of(Path(options.check_table), options.rules)
        _say(from_here("\n".join(check.lines())))
        if not check.is_sound:
            raise SystemExit(3)


def run(description: str, arguments: Arguments = None) -> None:
    """Start `run.py`: the plan of all stages, or the trainings of one phase.

    Raises:
        Refusal: A flag that no stage has, a missing or wrong input of whichever stage; or of `carry_out`.
        SystemExit: A training of a phase failed, with its exit status.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if {"--help", "-h"} & {*words}:
        print(manual(description, words))
        return
    asked = Asked.of(words)
    first, whole = asked.first, asked.phase == WHOLE
    _remember(first.options, first.changes)
    for note in asked.notes:
        _say(f"note: {note}")
    if "--status" in asked.modes and not asked.students:
        from common.pipeline.status import lines

        print("\n".join(lines(asked.stages, asked.parsed)))
    elif asked.students or not (whole or asked.modes):
        from common.pipeline.conduct import run_plainly

        run_plainly(asked)
    else:
        gather(
            partial(refuse_missing_films, key, getattr(first.options, key), "run.sh") for key in asked.sources
        )
        recipe = first.chosen(None).called if first.named or whole else "the recipe of their weights"
        systems = " and ".join(first.options.system)
        _say(f"run: {len(asked.stages)} steps, {systems}, {recipe}, {_device(asked.gpu)}")
        from common.pipeline.plan import carry_out

        carry_out(asked)


def train(key: str, description: str, arguments: Arguments = None) -> None:
    """Start a `train.py`.

    Args:
        key: Key of the stage, as in `common.stages`.

    Raises:
        Refusal: A value that no run could use, a missing input; or of `train_stage`.
    """
    stage = (STAGES | STUDENT_STAGES)[key]
    request = parse_train(stage, description, arguments)
    options = request.options
    _remember(options, request.changes)
    if stage.parent is not None:
        for system in options.system:
            refuse_missing_weights(STAGES[stage.parent], system, None, stage.title)
            if stage.teachers is not None:
                refuse_missing_networks(system, stage.title)
    refuse_missing_films(stage.source, options.siim if stage.source == "siim" else options.ntuh, stage.title)
    if isinstance(options, StudentOptions) and options.unlabelled:
        refuse_missing_films("unlabelled", options.unlabelled, stage.title)
    earlier = "teachers" if stage.teachers else "weights"
    recipe = (
        f"the recipe of its {earlier}" if stage.parent and not request.named else request.chosen(None).called
    )
    _say(f"{stage.title}: {' and '.join(options.system)}, {recipe}, {_device(options.gpu)}")
    with loading():
        from common.training.stage import train_stage

    train_stage(stage, request)


def get_thresholds(description: str, arguments: Arguments = None) -> None:
    """Start `get_thresholds.py`.

    Raises:
        Refusal: A rule without what it needs, a missing input; or of `choose_thresholds`.
    """
    options = parse_thresholds(description, arguments)
    _remember(options)
    _refuse_missing_systems(options, "get_thresholds")
    _say(f"get_thresholds: {' and '.join(options.systems)}, {_device(options.gpu)}")
    with loading():
        from common.inference.choose_thresholds import choose_thresholds

    choose_thresholds(options)


def inference(description: str, arguments: Arguments = None) -> None:
    """Start `inference.py`.

    Raises:
        Refusal: A missing input; or of `run_test_set`.
    """
    options = parse_evaluation(description, arguments)
    _remember(options)
    _refuse_missing_systems(options, "inference")
    for system in options.systems:
        refuse_missing_thresholds(system)
    _say(f"inference: {' and '.join(options.systems)} on the test films, {_device(options.gpu)}")
    with loading():
        from common.inference.test_set import run_test_set

    run_test_set(options)


def bootstrap(description: str, arguments: Arguments = None) -> None:
    """Start `bootstrap.py`.

    Raises:
        Refusal: A value that gives no interval, a plan in the way, missing results; or of `report`.
    """
    options = parse_report(description, arguments)
    _remember(options)
    if options.write_plan:  # before there are results
        from common.statistics.plan import begin_plan

        begin_plan(options.write_plan)
        print(f"begun: {options.write_plan}; fill it in before the first look at the results")
        return
    refuse_missing_results(options.system)
    _say(f"bootstrap: {' and '.join(options.system)}, {options.replicates:,} replicates")
    with loading():
        from common.report.terminal import report

    report(options)


def predict(description: str, arguments: Arguments = None) -> None:
    """Start `predict.py`.

    Raises:
        Refusal: A missing input; or of `predict_folder`.
        SystemExit: Status 3: some films could not be read.
    """
    options = parse_prediction(description, arguments)
    _remember(options)
    if not Path(options.input).exists():
        raise Refusal(f"{options.input} is neither a file nor a folder")
    _refuse_missing_system(options.named, options.bundle, "prediction")
    _say(f"predict: {options.bundle or options.named or SYSTEMS[0]}, {_device(options.gpu)}")
    with loading():
        from common.prediction.folder import predict_folder

    predict_folder(options)


def export(description: str, arguments: Arguments = None) -> None:
    """Start `export.py`.

    Raises:
        Refusal: A missing input; or of `export_systems`.
    """
    options = parse_export(description, arguments)
    _remember(options)
    for system in options.systems:
        refuse_missing_networks(system, "export")
        refuse_missing_thresholds(system)
    _say(f"export: {' and '.join(options.systems)}")
    if options.onnx:
        from common.prediction.onnx_files import export_systems
    else:
        from common.prediction.bundle import export_systems
    export_systems(options)


def export_nnunet(description: str, arguments: Arguments = None) -> None:
    """Start `nnunet.py`.

    Raises:
        Refusal: Films that are not prepared; or of `export_nnunet` or `collect_nnunet`.
    """
    options = parse_nnunet(description, arguments)
    _remember(options)
    refuse_missing_sets("ntuh", "nnunet")
    if options.collect:
        from common.inference.nnunet_predictions import collect_nnunet

        collect_nnunet(Path(options.folder), options.collect)
        return
    from common.preparation.nnunet import export_nnunet

    export_nnunet(Path(options.folder), options.image_size)


def read(description: str, arguments: Arguments = None) -> None:
    """Start `read.py`.

    Raises:
        Refusal: A package is not installed, a missing input; or of `open_rooms`.
    """
    options = parse_read(description, arguments)
    absent = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if absent:
        raise Refusal(
            "the reading room needs packages that the other steps do not",
            missing=", ".join(absent),
            do=f"python -m pip install -r {READING_FOLDER}/requirements.txt",
        )
    if options.predicted is None:
        systems_with_results()
    elif not options.predicted.is_dir():
        raise Refusal("there is no such folder of new films", missing=options.predicted)
    from common.reading.server import open_rooms

    open_rooms(options)


def listen(
    description: str, load: Callable[[ListenOptions], Process] | None = None, arguments: Arguments = None
) -> None:
    """Start `listen.py`.

    Args:
        load: What makes of the options what processes a film; None: the system that they name.

    Raises:
        Refusal: Nobody may send, a missing input; or of `run_listener`.
    """
    options = parse_listen(description, arguments)
    _remember(options)
    if load is None:
        _refuse_missing_system(options.named, options.bundle, "prediction")
    _say(f"listen: {options.bundle or options.named or SYSTEMS[0]}, {_device(options.gpu)}")
    from common.prediction.listener.receive import run_listener

    run_listener(options, load or _load_predictor)


def _load_predictor(options: ListenOptions) -> Process:
    from threadpoolctl import threadpool_limits

    from common.prediction.predictor import FilmPredictor

    with threadpool_limits(1, "openmp"):  # films are predicted in another thread: see `Background`
        return FilmPredictor.open(options.named, options.bundle, options.gpu, options.backend).process


def _refuse_missing_systems(options: EvaluationOptions, needed_by: str) -> None:
    for system in options.systems:
        refuse_missing_networks(system, needed_by)
    refuse_missing_films("ntuh", options.ntuh, needed_by)


def _refuse_missing_system(system: str | None, bundle: str | None, needed_by: str) -> None:
    if bundle is not None:
        refuse_missing_bundle(Path(bundle))
        return
    refuse_missing_networks(system or SYSTEMS[0], needed_by, do="or name a packed system: --bundle FILE")
    refuse_missing_thresholds(system or SYSTEMS[0])


def _remember(options: object, changes: Mapping[str, object] | None = None) -> None:
    """What the user gave, so that hints repeat it."""
    words = given(options) | dict(changes or {})
    if isinstance(systems := words.get("system"), tuple):  # students are made by their teachers' name
        words["system"] = tuple(dict.fromkeys(STUDENTS.get(system, system) for system in systems))
    remember(words, flags_of_scripts())


def _device(gpu: str) -> str:
    """The GPU argument in words, once it names devices at all."""
    names = devices_named(gpu)
    return "on the CPU" if names == ["cpu"] else f"on {gpu}" if "cpu" in names else f"on GPU {gpu}"


def _say(text: str) -> None:
    """Say the first word at once; of several processes the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)
