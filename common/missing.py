"""What a step needs of earlier ones and is not there, found by looking at names only.

Imports nothing that takes time to load: a missing input is said at once (`start.py`), and again by whoever
reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.paths import (
    SETS,
    prepared_folder,
    progress_of,
    result_folder,
    set_is_prepared,
    shown,
    source_folder,
    thresholds_file,
    weights_file,
)
from common.refusal import Refusal
from common.stages import (
    EXPORT_COMMAND,
    INFERENCE_COMMAND,
    PREDICTION_FOLDER,
    STUDENTS,
    SYSTEMS,
    THRESHOLDS_COMMAND,
    Stage,
    command_of,
    folds_of,
    stages_of,
)

SOURCE_TITLES = {"siim": "SIIM-ACR", "ntuh": "NTUH", "unlabelled": "unlabelled"}


def folders_to_prepare(
    siim: str | None, ntuh: str | None, unlabelled: str | None, patients: str | None
) -> dict[str, Path]:
    """The folders of films to prepare: those named, else those that lie in the workspace.

    Args:
        siim: Folder of the SIIM-ACR download as the user named it, or None.
        ntuh: Folder of the hospital's films as the user named it, or None.
        unlabelled: Folder of the films without labels as the user named it, or None.
        patients: Table of SIIM-ACR's patients, which asks for these films, or None.

    Returns:
        Folder of each source, by its key.

    Raises:
        Refusal: There are none.
    """
    named = {"siim": siim, "ntuh": ntuh, "unlabelled": unlabelled}
    wanted = {key for key, folder in named.items() if folder}
    wanted = wanted or {key for key in ("siim", "ntuh") if source_folder(key, None).is_dir()}
    if patients:
        wanted.add("siim")
    if not wanted:
        raise Refusal("there are no films to prepare", do="name their folder: --siim PATH, --ntuh PATH")
    folders = {key: source_folder(key, named[key]) for key in named if key in wanted}
    for key, folder in folders.items():
        if not folder.is_dir():
            raise Refusal(f"there are no {SOURCE_TITLES[key]} films", missing=shown(folder))
    return folders


def refuse_missing_films(key: str, named: str | None, needed_by: str) -> None:
    """Refuse where the films of a source are neither prepared nor there to be prepared.

    Args:
        key: `siim`, `ntuh` or `unlabelled`.
        named: Folder of the source as the user named it; None: the workspace's, which may be gone once its
            films are prepared.
        needed_by: Step that needs them, as the refusal names it.

    Raises:
        Refusal: There are none.
    """
    folder = source_folder(key, named)
    if folder.is_dir() or (named is None and all(map(set_is_prepared, SETS[key]))):
        return
    raise Refusal(
        f"{needed_by} needs the {SOURCE_TITLES[key]} films",
        missing=shown(folder),
        do=f"put them there, or name their folder: --{key} PATH",
        without="docs/data.md, 'Without this download', says which films can take its place"
        if key == "siim"
        else None,
    )


def refuse_missing_sets(key: str, needed_by: str) -> None:
    """Refuse where the films of a source (`siim` or `ntuh`) are not prepared, for a step that prepares none.

    Raises:
        Refusal: A set of theirs is missing.
    """
    missing = [prepared_folder(name) for name in SETS[key] if not set_is_prepared(name)]
    if missing:
        raise Refusal(
            f"{needed_by} needs the prepared {SOURCE_TITLES[key]} films",
            missing=", ".join(map(shown, missing)),
            do=f"bash common/prepare.sh --{key} PATH",
        )


def refuse_missing_weights(stage: Stage, system: str, fold: int | None, needed_by: str) -> None:
    """Refuse where a stage left no weights of a system (and fold).

    Raises:
        Refusal: There are none.
    """
    path = weights_file(stage, system, fold)
    if not path.is_file():
        raise Refusal(
            f"{needed_by} needs the {stage.weights_title}",
            missing=shown(path),
            made_by=stage.command,
            found=progress_of(stage, system, fold),
        )


def refuse_missing_networks(
    system: str, needed_by: str, do: str | None = None, folds: Sequence[int | None] | None = None
) -> None:
    """Refuse where training did not leave the networks of a system, for both tasks.

    Args:
        system: `eff` or `vit`; `eff_student` or `vit_student`.
        needed_by: Step that needs them, as the refusal names it.
        do: What else would help, for the refusal.
        folds: Folds of the networks; None: those by which the system predicts.

    Raises:
        Refusal: Some are missing; all of a task are listed.
    """
    wanted = folds_of(system) if folds is None else folds
    whole = "" if wanted == (None,) else f" of all {len(wanted)} folds"
    for stage in stages_of(system):
        missing = [fold for fold in wanted if not weights_file(stage, system, fold).is_file()]
        if missing:
            files = ", ".join(weights_file(stage, system, fold).name for fold in missing)
            raise Refusal(
                f"{needed_by} needs the {stage.weights_title}{whole}",
                missing=f"{shown(weights_file(stage, system, 0).parent)}/: {files}",
                made_by=stage.command,
                found=progress_of(stage, system, missing[0]),
                do=do,
            )


def refuse_missing_thresholds(system: str) -> None:
    """Refuse where a system has no thresholds.

    Raises:
        Refusal: It has none.
    """
    path = thresholds_file(system)
    if not path.exists():
        raise Refusal(
            f"testing {system} needs its thresholds",
            missing=shown(path),
            made_by=command_of(THRESHOLDS_COMMAND, system),
        )


def refuse_missing_results(systems: Sequence[str]) -> None:
    """Refuse where inference left no results of some system.

    Raises:
        Refusal: Some file is missing; all are listed.
    """
    files = {s: [result_folder(s) / name for name in ("cases.csv", "meta.json")] for s in systems}
    missing = [path for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        lacking = [s for s, paths in files.items() if not all(path.is_file() for path in paths)]
        commands = dict.fromkeys(command_of(INFERENCE_COMMAND, s) for s in lacking)
        complete = [s for s in files if s not in lacking]
        raise Refusal(
            f"the metrics need the test results of {' and '.join(systems)}",
            missing=", ".join(shown(path) for path in missing),
            made_by="; ".join(commands),
            do=f"or --system {' '.join(complete)} for the results that are there" if complete else None,
        )


def systems_with_results() -> list[str]:
    """The systems whose test results are there, students last.

    Raises:
        Refusal: There are none.
    """
    found: list[str] = [s for s in (*SYSTEMS, *STUDENTS) if (result_folder(s) / "meta.json").is_file()]
    if not found:
        raise Refusal(
            "the reading room needs the test results of a system",
            missing=", ".join(shown(result_folder(system)) for system in SYSTEMS),
            made_by=INFERENCE_COMMAND,
            do=f"or show new films: --predicted OUTPUT, an output folder of {PREDICTION_FOLDER}/predict.sh",
        )
    return found


def refuse_missing_bundle(path: Path) -> None:
    """Refuse where there is no file of that name.

    Raises:
        Refusal: There is none.
    """
    if not path.is_file():
        raise Refusal("there is no such bundle", missing=shown(path), made_by=EXPORT_COMMAND)
