"""What a recipe asks of a trained system, its mirror image and its map's threshold, is obeyed everywhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.hostile_systems import SIZE, write_system
from common.compute import seed_torch
from common.films.decode import Film
from common.films.resample import resample
from common.inference.measured import measured_map
from common.inference.run_networks import Predictor
from common.inference.trained_system import CLASSIFICATION, SEGMENTATION, operating_point, read_trained
from common.inference.two_stage_rule import OperatingPoint
from common.networks import weights
from common.networks.ensemble import mean_map
from common.networks.flip import FlippedNet
from common.paths import bundle_file, thresholds_file
from common.prediction.bundle import read_bundle
from common.prediction.deployed import Deployed
from common.prediction.finding import Finding
from common.prediction.new_films import NewFilm
from common.prediction.predictor import FilmPredictor
from common.recipes.presets import preset_network
from common.refusal import Refusal
from common.statistics.overlap import dice

CPU = torch.device("cpu")
MAP = 0.515625  # the maps of random networks lie around 0.5
POINT = {"cls_threshold": 0.0, "seg_threshold": 1}  # every film is segmented
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="pip install openvino"
)


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Workspaces of the same networks: as they are, flipped, and with another threshold of the map."""
    root = tmp_path_factory.mktemp("systems")
    flip = {"flip": True, "map_threshold": "out-of-fold"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTX_WORKSPACE", str(root))
        write_system(root / "plain", {}, POINT)
        write_system(root / "flipped", flip, POINT | {"map_threshold": MAP})
    return {name: root / name for name in ("plain", "flipped")}


def _film() -> np.ndarray:
    """Nothing in it is symmetrical."""
    film = np.random.default_rng(3).integers(0, 60, (96, 80), dtype=np.uint8)
    film[20:70, 8:30] += 150
    return film


@pytest.mark.parametrize("task", ["seg", "cls"])
def test_flipped_network_says_the_mean_over_both(task: str) -> None:
    seed_torch(0)
    net = weights.build(
        {"network": weights.network_facts(preset_network("demo", "eff")), "task": task}
    ).eval()
    flipped, film = FlippedNet(net), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        (masks, logits), (others, other_logits) = net(film), net(film.flip(3))
        found, said = flipped(film)
        assert not torch.allclose(masks, others.flip(3), atol=1e-3)
        torch.testing.assert_close(found, (masks + others.flip(3)) / 2)
        torch.testing.assert_close(flipped(film.flip(3))[0].flip(3), found)
        if task == "cls":
            torch.testing.assert_close(said, (logits + other_logits) / 2)
            torch.testing.assert_close(flipped.classify(film), said, atol=1e-5, rtol=1e-5)
        else:
            assert said is None


def _found(workspace: Path, patch: pytest.MonkeyPatch, **options: str) -> Finding:
    patch.setenv("PTX_WORKSPACE", str(workspace))
    return FilmPredictor.open("eff", **options).predict(_film())


def test_prediction_obeys_both(systems: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, flipped = (_found(systems[name], monkeypatch) for name in ("plain", "flipped"))
    (trained,) = read_trained(["eff"], "test")
    assert trained.made_from["flip"] == [CLASSIFICATION.key, SEGMENTATION.key]
    assert trained.map_threshold == "out-of-fold"
    nets = trained.networks(SEGMENTATION, CPU)
    assert all(isinstance(net, FlippedNet) for net in nets)
    square = cv2.resize(NewFilm.of(Film(_film())).square, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    film = torch.from_numpy(square.astype(np.float32) / 255)[None, None]
    with torch.no_grad():
        pixels = int((mean_map(nets, film) > MAP).sum())
    assert flipped.segmented_pixels == pixels != plain.segmented_pixels
    assert 0 < pixels < SIZE**2
    assert flipped.folds != plain.folds
    deployed = Deployed.of_workspace("eff", "test")
    assert deployed.point.map_threshold == MAP
    monkeypatch.setenv("PTX_WORKSPACE", str(systems["plain"]))
    assert "flip" not in read_trained(["eff"], "test")[0].made_from
    assert Deployed.of_workspace("eff", "test").identity != deployed.identity


def test_bundle_obeys_both(systems: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = _found(systems["flipped"], monkeypatch)
    packed = bundle_file("eff")
    identity = Deployed.of_workspace("eff", "test").identity
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    there = FilmPredictor.open(bundle=packed).predict(_film())
    assert (there.folds, there.segmented_pixels) == (here.folds, here.segmented_pixels)
    assert np.array_equal(there.outline, here.outline)
    assert read_bundle(packed).identity == identity


@needs_openvino
def test_openvino_obeys_both(systems: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    own = _found(systems["flipped"], monkeypatch)
    quick = _found(systems["flipped"], monkeypatch, backend="openvino")
    assert np.allclose(quick.folds, own.folds, atol=1e-4)
    assert abs(quick.segmented_pixels - own.segmented_pixels) <= 0.01 * SIZE**2


def test_thresholds_of_networks_that_were_not_flipped_are_refused(
    systems: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same tensors, and say something else."""
    write_system(tmp_path / "system", {"flip": True}, POINT)
    plain = systems["plain"] / "step2_ntuh_training/get_thres/cls_eff_5fold_result/5cv_avg.json"
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "system"))
    trained = read_trained(["eff"], "test")[0]
    assert operating_point(trained)[0].seg_threshold == 1
    thresholds_file("eff").write_bytes(plain.read_bytes())
    with pytest.raises(Refusal, match="other networks"):
        operating_point(trained)


def test_testing_measures_at_the_threshold_of_the_map() -> None:
    lesion = np.zeros((1024, 1024), dtype=bool)
    lesion[100:400, 100:300] = True
    found = np.full((64, 64), 0.1, dtype=np.float32)
    found[10:20, 5:30] = 0.3
    facts = {"width": 800, "height": 1000, "spacing_row": None, "spacing_column": None}
    prepared = SimpleNamespace(
        cases=pd.DataFrame([facts]),
        has_mask=np.array([True]),
        mask=lambda row, side=1024: lesion if side == 1024 else truth,
        second_mask=lambda row: None,
    )
    truth = lesion[8::16, 8::16]
    measured = [
        measured_map(prepared, 0, found, OperatingPoint(0.5, 1, 64, threshold)) for threshold in (0.2, 0.5)
    ]
    assert [each["area_pixels"] for each in measured] == [250, 0]
    assert measured[0]["dice_segmentation"] == dice(found > 0.2, truth) > 0.5
    assert measured[0]["dice_full_size"] == dice(resample(found, 1024) > 0.2, lesion) > 0.5
    assert (measured[1]["dice_full_size"], measured[1]["dice_segmentation"]) == (0, 0)
    assert [each["lesions_found"] for each in measured] == [1, 0]
    assert [each["outline_laterality"] for each in measured] == [1, None]


def test_validation_cuts_maps_where_their_mean_dice_is_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the threshold of the map is chosen in the end; at 0.5, a cautious network would find nothing."""
    truth = np.zeros((2, 64, 64), dtype=bool)
    truth[:, 10:20, 10:20] = True
    found = np.where(truth, np.float32(0.4), np.float32(0.1))
    found[1, 30:40, 30:50] = 0.3
    prepared = SimpleNamespace(has_mask=np.ones(2, dtype=bool))
    seen = [SimpleNamespace(found=found[row], truth=truth[row], probability=None) for row in (0, 1)]
    monkeypatch.setattr(Predictor, "_seen", lambda *_: seen)
    net = SimpleNamespace(task="seg")
    dices = [
        Predictor(prepared, 64, CPU, map_threshold=rule).validation(net, [0, 1]).dice
        for rule in ("half", "out-of-fold")
    ]
    assert dices == [0, 1]
