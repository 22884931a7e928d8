"""Thresholds, the two-stage rule, the evaluation loop, and results that do not belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import STEP_1_1, STEP_2_1, STEP_2_2, Scripts
from sklearn.metrics import roc_auc_score

from common import start
from common.compute import seed_torch
from common.inference.run_networks import Predictor
from common.inference.trained_system import operating_point, read_trained
from common.inference.two_stage_rule import OperatingPoint, read_thresholds
from common.networks import weights
from common.paths import thresholds_file
from common.preparation.run import open_prepared
from common.recipes.presets import preset_network
from common.refusal import Refusal
from common.statistics.overlap import dice, overlap


def test_dice_and_its_convention() -> None:
    a = np.array([1, 1, 0, 0], bool)
    assert dice(a, np.array([0, 1, 1, 0], bool)) == 0.5
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0
    assert dice(a & False, a & False) == 1
    assert dice(a & False, a) == 0
    assert overlap(a, np.array([0, 1, 1, 0], bool)) == 1


def test_two_stage_rule() -> None:
    point = OperatingPoint(0.5, 10, 64)
    assert point.rule(0.5, 10) == "positive"
    assert point.rule(0.5, 9) == "negative: area"
    assert point.rule(0.49999, None) == "negative: probability"
    assert point.rule(0.49999, 999) == "negative: probability"


@pytest.fixture
def predictor(workspace: Path, sources: Path) -> Predictor:
    return Predictor(open_prepared("siim", str(sources / "siim"), "t"), 64, torch.device("cpu"), batch_size=5)


def _net(task: str):
    seed_torch(0)
    return weights.build({"network": weights.network_facts(preset_network("demo", "eff")), "task": task})


def test_evaluation_loop(predictor: Predictor) -> None:
    net, rows = _net("cls"), np.array([7, 2, 3, 11, 0, 20])
    together = predictor.probabilities([net], rows)
    alone = np.concatenate([predictor.probabilities([net], [row]) for row in rows])
    assert together.shape == (6, 1)
    assert together == pytest.approx(alone, abs=1e-5)
    found = predictor.validation(net, rows)
    assert found.score == found.auroc == roc_auc_score(predictor.prepared.has_mask[rows], together[:, 0])
    seg = _net("seg")
    found = list(predictor.maps([seg], rows))
    assert [row for row, _, _ in found] == rows.tolist()
    assert all((truth == predictor.prepared.mask(row, 64)).all() for row, _, truth in found)
    expected = np.mean([dice(m > 0.5, truth) for _, m, truth in found if truth.any()])
    assert predictor.validation(seg, rows).score == pytest.approx(expected)
    assert predictor.validation(seg, rows).auroc is None


# --- what does not belong together -----------------------------------------------------------------


@pytest.fixture
def copy(chain: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished chain that a test may damage."""
    root = chain.copy(tmp_path / "workspace").workspace
    monkeypatch.setenv("PTX_WORKSPACE", str(root))
    return root


def _retouch(path: Path, change: Callable[[dict], None], noise: float = 0.0) -> None:
    """Rewrite a weights file with changed metadata, or changed tensors."""
    state, metadata = weights.read_weights(path, "")
    del metadata["sha256"]
    change(metadata)
    weights.save_weights(
        path, {k: v + noise if v.is_floating_point() else v for k, v in state.items()}, metadata
    )


def test_a_finished_chain_belongs_together(copy: Path) -> None:
    trained = read_trained(["eff"], "test")[0]
    assert trained.image_size == 64
    assert operating_point(trained)[0].image_size == 64


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("content", "0" * 64, "other films"),
        ("split", "0" * 64, "other folds"),
        ("lineage", [], "other earlier weights"),
        ("preset", "published", "another preset"),
    ],
)
def test_folds_of_different_making_are_refused(copy: Path, key: str, value: object, said: str) -> None:
    path = copy / STEP_2_2 / "model_weights" / "fold_3_eff_cls_ntuh.safetensors"
    _retouch(path, lambda metadata: metadata.update({key: value}))
    with pytest.raises(Refusal, match=said):
        read_trained(["eff"], "test")


def test_fold_under_another_number_is_refused(copy: Path) -> None:
    folder = copy / STEP_2_2 / "model_weights"
    (folder / "fold_1_eff_cls_ntuh.safetensors").replace(folder / "fold_0_eff_cls_ntuh.safetensors")
    (folder / "fold_1_eff_cls_ntuh.safetensors").write_bytes(
        (folder / "fold_0_eff_cls_ntuh.safetensors").read_bytes()
    )
    with pytest.raises(Refusal, match="other weights than its name says"):
        read_trained(["eff"], "test")


@pytest.mark.parametrize("key", ["network", "recipe", "preset", "content", "split", "lineage"])
def test_weights_that_do_not_say_what_they_are_made_from_are_refused(copy: Path, key: str) -> None:
    path = copy / STEP_2_2 / "model_weights" / "fold_0_eff_cls_ntuh.safetensors"
    _retouch(path, lambda metadata: metadata.pop(key))
    with pytest.raises(Refusal, match=f"(?s)does not say what.*{key}"):
        read_trained(["eff"], "test")


@pytest.mark.parametrize("change", [{"fold": False}, {"task": "seg"}, {"system": None}])
def test_weights_of_something_else_are_refused(copy: Path, change: dict) -> None:
    path = copy / STEP_2_2 / "model_weights" / "fold_0_eff_cls_ntuh.safetensors"
    _retouch(path, lambda metadata: metadata.update(change))
    with pytest.raises(Refusal, match="other weights than its name says"):
        read_trained(["eff"], "test")


def test_tasks_of_another_lineage_are_refused(copy: Path) -> None:
    def other_parent(metadata: dict) -> None:
        metadata["lineage"][-1]["sha256"] = "0" * 64

    for fold in range(5):
        _retouch(copy / STEP_2_1 / "model_weights" / f"fold_{fold}_eff_seg_ntuh.safetensors", other_parent)
    with pytest.raises(Refusal, match="segmentation and classification models of eff do not belong"):
        read_trained(["eff"], "test")


def test_thresholds_of_other_weights_are_refused(copy: Path) -> None:
    path = copy / STEP_2_1 / "model_weights" / "fold_2_eff_seg_ntuh.safetensors"
    _retouch(path, lambda metadata: None, noise=1e-3)
    with pytest.raises(Refusal, match="computed from other networks"):
        operating_point(read_trained(["eff"], "test")[0])


def test_thresholds_of_another_working_size_are_refused(copy: Path) -> None:
    path = thresholds_file("eff")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"image_size": 128}))
    with pytest.raises(Refusal, match="another working size"):
        operating_point(read_trained(["eff"], "test")[0])


def _read_thresholds(text: str) -> OperatingPoint:
    path = thresholds_file("eff")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return read_thresholds("eff")[0]


POSSIBLE = {"system": "eff", "cls_threshold": 0.5, "seg_threshold": 64**2, "image_size": 64, "made_from": {}}


def test_possible_thresholds_are_read(workspace: Path) -> None:
    assert _read_thresholds(json.dumps(POSSIBLE)) == OperatingPoint(0.5, 64**2, 64)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"system": "vit"}', '{"system": "eff", "cls_threshold": "high"}', "[" * 100_000]
)
def test_malformed_thresholds_are_refused(workspace: Path, text: str) -> None:
    with pytest.raises(Refusal):
        _read_thresholds(text)


def test_threshold_of_the_map_is_read_and_is_in_files_only_where_it_is_not_the_usual_one(
    workspace: Path,
) -> None:
    point = _read_thresholds(json.dumps(POSSIBLE | {"map_threshold": 0.25}))
    assert point == OperatingPoint(0.5, 64**2, 64, 0.25)
    usual = {"cls_threshold": 0.5, "seg_threshold": 64**2, "image_size": 64}
    assert point.facts() == usual | {"map_threshold": 0.25}
    assert list(OperatingPoint(0.5, 64**2, 64).facts().items()) == list(usual.items())


@pytest.mark.parametrize("key", ["cls_threshold", "seg_threshold", "image_size", "map_threshold"])
@pytest.mark.parametrize(
    "value", [-(10**400), float("inf"), float("nan"), True, False, -1, "64", [64], {}, None]
)
def test_impossible_thresholds_are_refused(workspace: Path, key: str, value: object) -> None:
    with pytest.raises(Refusal, match="impossible thresholds"):
        _read_thresholds(json.dumps(POSSIBLE | {key: value}))


@pytest.mark.parametrize(
    "change",
    [
        {"cls_threshold": 10**400},
        {"seg_threshold": 10**400},
        {"seg_threshold": 0},
        {"seg_threshold": 64**2 + 1},
        {"image_size": 0},
        {"map_threshold": 1.0},
    ],
)
def test_thresholds_beyond_the_film_are_refused(workspace: Path, change: dict) -> None:
    with pytest.raises(Refusal, match="impossible thresholds"):
        _read_thresholds(json.dumps(POSSIBLE | change))


def test_films_prepared_anew_are_refused(copy: Path) -> None:
    manifest = copy / "data" / "prepared" / "ntuh_train" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"content": "0" * 64}))
    for main in (start.get_thresholds, start.inference):
        with pytest.raises(Refusal, match="trained on other films"):
            _call(main)


def test_patient_of_the_training_films_in_the_test_films_is_refused(copy: Path) -> None:
    train = (copy / "data" / "prepared" / "ntuh_train" / "cases.csv").read_text().splitlines()[1].split(",")
    path = copy / "data" / "prepared" / "ntuh_test" / "cases.csv"
    lines = path.read_text().splitlines()
    first = lines[1].split(",")
    lines[1] = ",".join([first[0], train[1], *first[2:]])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(Refusal, match="1 test films are of patients who are in the training films"):
        _call(start.inference)


def _call(main: Callable[[str], None]) -> None:
    """Call a script's work as its command line `--gpu cpu --system eff` would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script", "--gpu", "cpu", "--system", "eff"])
        main("")


def test_pre_training_that_changed_is_refused_by_its_children(copy: Path, sources: Path) -> None:
    """A finished step 1.2 is not silently kept when step 1.1 was trained again."""
    _retouch(
        copy / STEP_1_1 / "model_weights" / "vit_seg_siim.safetensors", lambda metadata: None, noise=1e-3
    )
    from common import start

    with pytest.MonkeyPatch.context() as patch:
        line = "--gpu cpu --system vit --preset demo --image-size 64 --epochs 1 --batch-size 4"
        patch.setattr("sys.argv", ["train.py", *line.split(), "--films-per-epoch", "8"])
        with pytest.raises(Refusal, match="other earlier weights"):
            start.train("siim_classification", "")
