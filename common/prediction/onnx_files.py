"""A trained system as ONNX files, for programs that know neither torch nor this project.

    system.json         what the system is: thresholds, how a film is brought to the networks, what each file
                        takes and gives, and what all of it was made from
    cls.onnx, seg.onnx  the five folds of a task as one model, or its student
    fold_<k>_cls.onnx   each network by itself, and so fold_<k>_seg.onnx

A model takes `film`, (n, 1, image_size, image_size) float32, grey levels 0-1 with air dark, for any n. Its
outputs are

    cls       probability   (n,) float32, mean over the folds, 0-1; `folds`, (n, 5), the same of each
    seg       map           (n, image_size, image_size) float32, mean over the folds, 0-1
    a fold    probability or map, its own

The two-stage rule is not in them: system.json has its thresholds. Optional:
`pip install onnx onnxscript onnxruntime`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from common.command_line import ExportOptions
from common.compute import set_up
from common.demo.phantom import draw_film
from common.files import whole_file, write_json
from common.films.own_outputs import RESEARCH_ONLY
from common.films.resample import resample
from common.inference.trained_system import CLASSIFICATION, SEGMENTATION
from common.networks.ensemble import fold_probabilities, mean_map
from common.networks.flip import TrainedNet
from common.paths import onnx_folder, shown
from common.prediction.deployed import PREPROCESSING, Deployed
from common.preparation.film_store import SIDE
from common.progress import progress
from common.refusal import Refusal
from common.removal import Written, refuse_foreign, remove_temporaries
from common.stages import Stage

OPSET = 20  # of ONNX: understood by onnxruntime from 1.17 on
TOLERANCE = 1e-4  # by which a value of 0-1 may differ from torch's
_ABOUT = "system.json"
_FORMAT = "pneumothorax ONNX files"
_FILMS = 3  # synthetic films by which a model is checked: more than it was traced with
WRITTEN = Written(("*.onnx", _ABOUT), {_ABOUT: _FORMAT})


class Classifier(nn.Module):
    """Films (n, 1, s, s) -> mean probability (n,) and that of each fold (n, folds), float32."""

    def __init__(self, nets: Sequence[TrainedNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, film: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        folds = fold_probabilities(list(self.nets), film)  # type: ignore[arg-type] # what it was made of
        return folds.mean(dim=1), folds


class Segmenter(nn.Module):
    """Films (n, 1, s, s) -> mean map (n, s, s) float32."""

    def __init__(self, nets: Sequence[TrainedNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, film: torch.Tensor) -> torch.Tensor:
        return mean_map(list(self.nets), film)  # type: ignore[arg-type] # what it was made of


@dataclass(frozen=True)
class _Kind:
    """What the models of a task are made by, and what their outputs are called."""

    module: type[nn.Module]
    outputs: tuple[str, ...]


_KINDS = {
    CLASSIFICATION: _Kind(Classifier, ("probability", "folds")),
    SEGMENTATION: _Kind(Segmenter, ("map",)),
}


def export_systems(options: ExportOptions) -> None:
    """Write the ONNX files of the systems asked for on the command line, and say how near to torch they are.

    Raises:
        Refusal: One of `export_onnx`.
    """
    set_up(torch.device("cpu"))
    for system in options.systems:
        folder = Path(options.output or onnx_folder(system))
        differences = export_onnx(system, folder)
        print(
            f"{system}: {len(differences)} ONNX files, opset {OPSET}; onnxruntime differs from torch by "
            f"{max(differences.values()):.0e} at most -> {shown(folder)}\n{RESEARCH_ONLY}"
        )


def export_onnx(system: str, folder: Path) -> dict[str, float]:
    """Write the ONNX files of the system that was trained in this workspace, and check each of them.

    Args:
        system: `eff` or `vit`; `eff_student` or `vit_student`.
        folder: Folder to write into. Files of an earlier export are replaced.

    Returns:
        File name -> largest difference from torch, of values in 0-1, on synthetic films.

    Raises:
        Refusal: Networks or thresholds are missing or do not belong together, a package is missing, somebody
            else's files are in the way, or onnxruntime computes something else than torch.
    """
    runtime = _packages()
    refuse_foreign(folder, WRITTEN)
    deployed = Deployed.of_workspace(system, "export")
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder, *WRITTEN.names)
    write_json(folder / _ABOUT, _about(deployed))
    films = _films(deployed.image_size)
    differences = {}
    for stage, kind in _KINDS.items():
        models = _models(stage, deployed.trained.networks(stage, torch.device("cpu")))
        with progress(len(models), f"{system}, ONNX files, {stage.task}", "file") as bar:
            for name, nets in models.items():
                model = kind.module(nets).eval()
                path = folder / f"{name}.onnx"
                _write(model, kind.outputs, path, deployed)
                differences[path.name] = _checked(model, path, films, runtime)
                bar.update()
    return differences


def _models(stage: Stage, nets: list[TrainedNet]) -> dict[str, list[TrainedNet]]:
    """The networks in each file of a task, by the file's name; a student is one network, without folds."""
    folds = {f"fold_{fold}_{stage.task}": [net] for fold, net in enumerate(nets)} if len(nets) > 1 else {}
    return {stage.task: nets, **folds}


def _packages() -> ModuleType:
    """onnxruntime, where all that exporting needs is installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise Refusal(
            "ONNX files need three packages more",
            found=error,
            do="python -m pip install onnx onnxscript onnxruntime",
        ) from None
    return onnxruntime


def _films(image_size: int) -> np.ndarray:
    """Synthetic films as a model takes them."""
    draw = np.random.default_rng(0)
    films = [
        resample(draw_film(draw, number % 2 == 0, "ntuh", SIDE)[0], image_size) for number in range(_FILMS)
    ]
    return np.stack(films)[:, None].astype(np.float32) / 255


def _write(model: nn.Module, outputs: tuple[str, ...], path: Path, deployed: Deployed) -> None:
    size = deployed.image_size
    films = (torch.zeros(2, 1, size, size),)  # two: of one, the number would become part of the model
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            model,
            films,
            dynamo=True,
            opset_version=OPSET,
            input_names=["film"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            verbose=False,
        )
    assert program is not None  # as `dynamo` makes it
    program.model.metadata_props.update(
        note=RESEARCH_ONLY, system=deployed.system, identity=deployed.identity
    )
    with whole_file(path) as temporary:
        program.save(str(temporary))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what torch's exporter tells its developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _checked(model: nn.Module, path: Path, films: np.ndarray, runtime: ModuleType) -> float:
    """The largest difference between what a file and its networks make of some films, and of one."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = 0.0
    for some in (films, films[:1]):
        with torch.no_grad():
            expected = model(torch.from_numpy(some))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for found, known in zip(session.run(None, {"film": some}), expected, strict=True):
            difference = max(difference, float(np.abs(found - known.numpy()).max()))
    if not difference <= TOLERANCE:  # NaN is no match either
        raise Refusal(
            f"{shown(path)} must not be used: onnxruntime computes something else than torch",
            found=f"a difference of {difference:.1e}; {TOLERANCE:.0e} is allowed",
            do="use the bundle, or other releases of onnx, onnxscript and onnxruntime",
        )
    return difference


def _about(deployed: Deployed) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "note": RESEARCH_ONLY,
        "opset": OPSET,
        "system": deployed.system,
        "identity": deployed.identity,
        "image_size": deployed.image_size,
        "preprocessing": PREPROCESSING | {"film": "(n, 1, image_size, image_size) float32, 0 to 1"},
        "rule": "positive where the probability reaches cls_threshold and at least seg_threshold pixels of "
        "the map, of image_size squared, are above map_threshold",
        "thresholds": asdict(deployed.point),
        "made_from": deployed.trained.made_from,
    }
