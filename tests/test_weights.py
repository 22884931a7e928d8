"""Weights files: whole, of the network they say, and the same bytes each time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.compute import evaluating, seed_torch
from common.networks import weights
from common.networks.unet import PneumothoraxNet
from common.paths import weights_file
from common.recipes.presets import preset_network
from common.refusal import Refusal
from common.stages import STAGES

SMALL = preset_network("demo", "vit")
META = {"stage": "siim_segmentation", "system": "vit", "fold": None, "task": "seg",
        "network": weights.network_facts(SMALL)}  # fmt: skip


def _net(task: str = "seg", seed: int = 0) -> PneumothoraxNet:
    seed_torch(seed)
    return weights.build({**META, "task": task})


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    net = _net()
    for name in ("a", "b"):
        weights.save_weights(tmp_path / name, net.state_dict(), {"b": 1, "a": {"d": 2, "c": 3}})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    state, metadata = weights.read_weights(tmp_path / "a", "")
    assert metadata["sha256"] == weights.tensors_digest(net.state_dict())
    assert metadata["a"] == {"c": 3, "d": 2}
    other = _net(seed=1)
    weights.load(other, state, tmp_path / "a")
    assert weights.tensors_digest(other.state_dict()) == metadata["sha256"]


@pytest.mark.parametrize("system", ["eff", "vit"])
@pytest.mark.parametrize("task", ["seg", "cls"])
def test_a_network_built_with_its_weights_is_the_one_that_is_loaded(system: str, task: str) -> None:
    metadata = {"network": weights.network_facts(preset_network("demo", system)), "task": task}
    seed_torch(0)
    nets = [weights.build(metadata) for _ in range(3)]
    built = list(weights.build_trained(metadata, task, [(net.state_dict(), Path("a")) for net in nets]))
    film = torch.rand(1, 1, 64, 64)
    assert len(built) == 3
    for net, other in zip(nets, built, strict=True):
        assert weights.tensors_digest(other.state_dict()) == weights.tensors_digest(net.state_dict())
        with evaluating(net, other):  # also by what no weights file holds
            assert torch.equal(other(film)[0], net(film)[0])


def test_a_trained_network_has_its_head() -> None:
    net = _net("cls")
    state = {name: each for name, each in net.state_dict().items() if "classification_head" not in name}
    with pytest.raises(Refusal, match=r"classification_head.3.weight"):
        list(weights.build_trained(META, "cls", [(state, Path("a"))]))


def test_file_follows_the_users_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        weights.save_weights(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
    assert len(list(tmp_path.iterdir())) == 1


def test_digest_sees_every_change() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    digests = {
        weights.tensors_digest(changed)
        for changed in (
            state,
            {**state, "a": torch.zeros(3, 2)},
            {**state, "a": torch.zeros(2, 3, dtype=torch.int32)},
            {"a": state["a"], "c": state["b"]},
            {**state, "b": torch.ones(1) * 1.0000001},
        )
    }
    assert len(digests) == 5


def test_classification_takes_the_whole_segmentation_network() -> None:
    segmentation, classification = _net("seg", 0), _net("cls", 1)
    head = classification.unet.classification_head[3].weight.clone()
    weights.load(classification, segmentation.state_dict(), Path("x"))
    assert torch.equal(classification.unet.classification_head[3].weight, head)
    film = torch.rand(2, 1, 64, 64)
    with evaluating(segmentation, classification):
        assert torch.equal(segmentation(film)[0], classification(film)[0])


@pytest.mark.parametrize("change", ["missing", "left over", "reshaped"])
def test_anything_but_a_new_head_is_refused(change: str) -> None:
    state = dict(_net("seg").state_dict())
    name = next(n for n in state if n.endswith("conv1.conv.weight"))
    if change == "missing":
        del state[name]
    elif change == "left over":
        state["decoder.more"] = torch.zeros(1)
    else:
        state[name] = state[name][:1]
    with pytest.raises(Refusal) as refusal:
        weights.load(_net("cls"), state, Path("x"))
    assert ("decoder.more" if change == "left over" else name) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, "truncated", "plain"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "w.safetensors"
    if content == "plain":  # a safetensors file of somebody else
        save_file({"a": torch.zeros(1)}, path)
    elif content == "truncated":
        weights.save_weights(path, _net().state_dict(), META)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(content)
    with pytest.raises(Refusal, match="damaged"):
        weights.read_weights(path, "")


def test_weights_of_another_system_under_this_name_are_refused(workspace: Path) -> None:
    stage = STAGES["siim_segmentation"]
    weights.save_weights(weights_file(stage, "eff"), _net().state_dict(), META)
    with pytest.raises(Refusal, match="other weights than its name says"):
        weights.read_stage_weights(stage, "eff", None, "test")
