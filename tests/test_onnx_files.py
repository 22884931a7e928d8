"""ONNX files compute what the networks compute, for any number of films; what differs is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import STEP_2_1, STEP_2_2, THRESHOLDS, Scripts

from common.films.decode import read_film
from common.films.resample import resample
from common.networks.flip import FlippedNet, TrainedNet
from common.networks.unet import PneumothoraxNet
from common.prediction import onnx_files
from common.preparation.film_store import SIDE
from common.recipes.recipe import Network
from common.refusal import Refusal

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FOLDER = "step3_testing/prediction"
SIZE = 64
DEPLOYED = SimpleNamespace(image_size=SIZE, system="eff", identity="0" * 64)
NETWORK = Network("test_efficientnet", {}, 5, (8, 8, 8, 8, 8), 0.2, "random")


def _nets(task: str, flip: bool) -> list[TrainedNet]:
    torch.manual_seed(0)
    nets = [PneumothoraxNet(NETWORK, task).eval() for _ in range(2)]
    for net in nets:  # as initialised, every film would get nearly the same
        for name, values in net.named_parameters():
            if "head" in name and name.endswith("weight"):
                values.data *= 30
    return [FlippedNet(net) if flip else net for net in nets]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "flip"), [("cls", False), ("seg", True)])
def test_any_number_of_films_gets_what_torch_says(tmp_path: Path, task: str, flip: bool) -> None:
    kind = next(kind for stage, kind in onnx_files._KINDS.items() if stage.task == task)
    model, path = kind.module(_nets(task, flip)).eval(), tmp_path / "a.onnx"
    onnx_files._write(model, kind.outputs, path, DEPLOYED)
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_modelmeta().custom_metadata_map["identity"] == DEPLOYED.identity
    for count in (1, 2, 5):
        films = np.random.default_rng(count).random((count, 1, SIZE, SIZE), np.float32)
        found = session.run(None, {"film": films})
        with torch.no_grad():
            known = model(torch.from_numpy(films))
        known = known if isinstance(known, tuple) else (known,)
        assert [each.shape for each in found] == [tuple(each.shape) for each in known]
        for one, other in zip(found, known, strict=True):
            assert np.ptp(other.numpy()) > 0.01 or count == 1
            assert np.abs(one - other.numpy()).max() <= onnx_files.TOLERANCE
    films = onnx_files._films(SIZE)
    assert onnx_files._checked(model, path, films, onnxruntime) <= onnx_files.TOLERANCE
    for values in model.parameters():
        values.data += 0.01
    with pytest.raises(Refusal, match="computes something else"):
        onnx_files._checked(model, path, films, onnxruntime)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refusal, match="three packages more"):
        onnx_files._packages()


def test_somebody_elses_files_stay(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"theirs")
    with pytest.raises(Refusal, match=r"other\.onnx|is no|holds"):
        onnx_files.export_onnx("eff", tmp_path)
    assert (tmp_path / "other.onnx").read_bytes() == b"theirs"


@pytest.mark.all
def test_a_system_answers_as_in_prediction(chain: Scripts, new_films: Path, tmp_path: Path) -> None:
    """By hand, from the files and system.json alone: decode, stretch, run, decide."""
    scripts = Scripts(tmp_path)
    for part in (STEP_2_1, STEP_2_2):
        shutil.copytree(chain.workspace / part / "model_weights", tmp_path / part / "model_weights")
    shutil.copytree(chain.workspace / THRESHOLDS, tmp_path / THRESHOLDS)
    said = scripts.run(FOLDER, "bash", "export.sh", "--onnx", "--system", "eff").stdout
    assert "eff: 12 ONNX files, opset 20" in said
    folder = tmp_path / FOLDER / "eff_onnx"
    assert len([*folder.iterdir()]) == 13
    about = json.loads((folder / "system.json").read_text())
    out = tmp_path / "out"
    predict = ["predict.sh", str(new_films), str(out), "cpu", "--system", "eff", "--keep-identifiers"]
    scripts.run(FOLDER, "bash", *predict, expect=3)  # two of the files are no films
    findings = pd.read_csv(out / "findings.csv").set_index("file")
    sessions = (onnxruntime.InferenceSession(str(folder / f"{task}.onnx")) for task in ("cls", "seg"))
    classify, segment = sessions
    rule, size = about["thresholds"], about["image_size"]
    assert len(findings) > 3
    for name, finding in findings.iterrows():
        film = resample(resample(read_film(new_films / str(name)).pixels, SIDE), size)
        given = {"film": film[None, None].astype(np.float32) / 255}
        probability, folds = classify.run(None, given)
        assert folds.shape == (1, 5)
        assert probability[0] == pytest.approx(finding["probability"], abs=1e-4)
        area = (segment.run(None, given)[0] > rule["map_threshold"]).sum()
        positive = probability[0] >= rule["cls_threshold"] and area >= rule["seg_threshold"]
        assert finding["decision"] in ("no answer", "positive" if positive else "negative")
