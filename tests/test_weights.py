"""Weights files: whole, of the network they say, and the same bytes each time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE
from huggingface_hub import get_hf_file_metadata
from safetensors.torch import save_file

from common.compute import evaluating, seed_torch
from common.networks import imagenet, weights
from common.networks.imagenet import _in_time, find_imagenet
from common.networks.unet import PneumothoraxNet
from common.paths import weights_file
from common.recipe import preset_network
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
    state, metadata = weights.read_weights(tmp_path / "a", "", "")
    assert metadata["sha256"] == weights.tensors_digest(net.state_dict())
    assert metadata["a"] == {"c": 3, "d": 2}
    other = _net(seed=1)
    weights.load(other, state, tmp_path / "a")
    assert weights.tensors_digest(other.state_dict()) == metadata["sha256"]


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
        weights.read_weights(path, "", "")


def test_weights_of_another_system_under_this_name_are_refused(workspace: Path) -> None:
    stage = STAGES["siim_segmentation"]
    weights.save_weights(weights_file(stage, "eff"), _net().state_dict(), META)
    with pytest.raises(Refusal, match="other weights than its name says"):
        weights.read_stage_weights(stage, "eff", None, "test")


def test_hub_is_asked_once_and_has_less_than_five_seconds(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, limits = [], []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    def in_time(ask: Callable[[], str | None], seconds: float) -> str | None:
        limits.append(seconds)
        return ask()

    def metadata(url: str, timeout: float) -> object:
        limits.append(timeout)
        return get_hf_file_metadata(url, timeout=timeout)

    hub = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setattr(imagenet, "hf_hub_url", lambda *_: f"http://127.0.0.1:{hub.server_port}/weights")
    monkeypatch.setattr(imagenet, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(imagenet, "_in_time", in_time)
    monkeypatch.setattr(imagenet, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(Refusal, match="hub cannot be reached") as refused:
        find_imagenet("tiny_vit_21m_512.dist_in22k_ft_in1k", None)
    hub.shutdown()
    hub.server_close()
    assert "503" in str(refused.value)
    assert asked == ["/weights"]
    assert len(limits) == 2  # of the whole question and of its connection
    assert max(limits) < 5


def test_question_that_takes_longer_than_its_time_is_given_up() -> None:
    answered = threading.Event()
    assert _in_time(lambda: answered.wait(PATIENCE), seconds=0.01) == "no answer"
    answered.set()
    assert _in_time(lambda: None, seconds=PATIENCE) is None
