"""ImageNet weights: all of the encoder's, from where they lie, and no code that comes with them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import timm
import torch
from conftest import PATIENCE
from huggingface_hub import get_hf_file_metadata
from safetensors.torch import save_file

from common.networks import imagenet
from common.networks.imagenet import _in_time, find_all_imagenet, find_imagenet, load_imagenet
from common.networks.unet import PneumothoraxNet
from common.recipes.presets import preset_network
from common.refusal import Refusal

SMALL = preset_network("demo", "vit")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("system", ["eff", "vit"])
def test_imagenet_weights_fill_the_whole_encoder(workspace: Path, system: str, ending: str) -> None:
    network = preset_network("published", system)
    published = timm.create_model(network.encoder, pretrained=False)
    path = workspace / "data" / "imagenet" / f"{network.encoder}{ending}"
    path.parent.mkdir(parents=True)
    state = {name: tensor.contiguous() for name, tensor in published.state_dict().items()}
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    net = PneumothoraxNet(network, "seg")
    _, unused = load_imagenet(net, network.encoder, find_imagenet(network.encoder, None))
    own = net.unet.encoder.model.state_dict()
    # every key of the file is accounted for: it is in the encoder under its name, or the classifier's
    flat = {name.replace("stages.", "stages_", 1): tensor for name, tensor in state.items()}
    assert sorted(own) == sorted(set(flat) - set(unused))
    assert all(torch.equal(own[name], flat[name]) for name in own)
    parts = {"eff": {"conv_head", "bn2", "classifier"}, "vit": {"head"}}[system]
    assert {name.split(".")[0] for name in unused} == parts


def test_real_imagenet_weights(real: Path) -> None:
    network = replace(preset_network("published", "eff"), encoder="tf_efficientnet_lite0")
    path = find_imagenet(network.encoder, str(real / "weights"))
    net = PneumothoraxNet(network, "seg")
    before = net.unet.encoder.model.conv_stem.weight.clone()
    load_imagenet(net, network.encoder, path)
    file = torch.load(path, weights_only=True)
    assert torch.equal(net.unet.encoder.model.conv_stem.weight, file["conv_stem.weight"])
    assert not torch.equal(before, file["conv_stem.weight"])


def test_other_weights_are_refused_with_the_coverage(tmp_path: Path) -> None:
    other = timm.create_model("test_efficientnet", pretrained=False)
    save_file(other.state_dict(), tmp_path / "x.safetensors")
    net = PneumothoraxNet(SMALL, "seg")
    with pytest.raises(Refusal, match=r"0 of \d+ tensors"):
        load_imagenet(net, SMALL.encoder, tmp_path / "x.safetensors")


class _Attack:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/pickle-was-run"),))


def test_malicious_pickle_is_not_run(tmp_path: Path) -> None:
    target = Path("/tmp/pickle-was-run")
    target.unlink(missing_ok=True)
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"a": _Attack()}))
    with pytest.raises(Refusal, match="cannot be read as weights"):
        load_imagenet(PneumothoraxNet(SMALL, "seg"), SMALL.encoder, tmp_path / "x.pth")
    assert not target.exists()


def test_named_folder_without_the_file_is_refused_without_asking_the_hub(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no ImageNet weights of tiny_vit"):
        find_imagenet("tiny_vit_21m_512.dist_in22k_ft_in1k", str(tmp_path))


def test_all_missing_weights_are_named_at_once(tmp_path: Path) -> None:
    encoders = {"eff": "tf_efficientnetv2_s.in21k_ft_in1k", "vit": "tiny_vit_21m_512.dist_in22k_ft_in1k"}
    with pytest.raises(Refusal) as refusal:
        find_all_imagenet(encoders, str(tmp_path))
    said = str(refusal.value)
    for name in encoders.values():
        assert f"no ImageNet weights of {name} in {tmp_path}" in said
        assert f"/timm/{name}/resolve/main/model.safetensors" in said
        assert f"here as {tmp_path}/{name}.safetensors" in said
    (tmp_path / f"{encoders['eff']}.pth").touch()
    with pytest.raises(Refusal, match=r"^no ImageNet weights of tiny_vit") as refusal:
        find_all_imagenet(encoders, str(tmp_path))
    assert "efficientnet" not in str(refusal.value)
    (tmp_path / f"{encoders['vit']}.pth").touch()
    assert list(find_all_imagenet(encoders, str(tmp_path))) == ["eff", "vit"]


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
