"""What a network need not move: fewer bytes by a trace on fake GPU tensors, the same bits on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distributed_worker import BATCH, IMAGE_SIZE, batches, network, recipe

from benchmarks.traffic import Library, Traffic, traffic_of
from common.compute import seed_torch
from common.distributed import Processes
from common.networks import weights
from common.networks.fuse_batchnorm import fuse_batchnorm
from common.networks.unet import PneumothoraxNet
from common.recipes.presets import preset_network
from common.training import step


def _both(system: str) -> dict[str, torch.nn.Module]:
    """The library's network, and ours with its weights."""
    chosen = preset_network("demo", system)
    ours = weights.build({"network": weights.network_facts(chosen), "task": "cls"})
    library = Library(ours, chosen)
    library.unet.load_state_dict(ours.unet.state_dict())
    return {"library": library, "ours": ours}


@pytest.mark.parametrize("system", ["eff", "vit"])
def test_every_bit_is_the_librarys_on_a_cpu(system: str) -> None:
    found = {}
    for name, net in _both(system).items():
        net.train()
        seed_torch(1)
        masks, logits = net(batches(1)[0]["film"])
        (masks.square().mean() + logits.square().mean()).backward()
        found[name] = [masks, logits, *(p.grad for p in net.unet.parameters() if p.grad is not None)]
    assert len(found["ours"]) == len(found["library"]) > 50
    for one, other in zip(found["ours"], found["library"], strict=True):
        assert torch.equal(one.squeeze(), other.squeeze())


def test_forward_pass_moves_fewer_bytes() -> None:
    before, now = (traffic_of(net, BATCH, IMAGE_SIZE) for net in _both("eff").values())
    assert before.total > 1e6
    assert now.total <= 0.8 * before.total
    assert "silu_" in before.read_and_written
    assert "silu_" not in now.read_and_written  # each was a copy, too


@pytest.mark.parametrize("system", ["eff", "vit"])
def test_pictures_lie_channels_last_and_in_half_precision(system: str) -> None:
    traffic = traffic_of(network(system, "cls"), BATCH, IMAGE_SIZE)
    assert traffic.other_layout.total() == 0
    assert traffic.types["upsample_nearest2d"] == {torch.float16}
    assert traffic.types["cat"] == {torch.float16}
    assert traffic.types["convolution"] == {torch.float16}


# What torch says of attention's fused kernels, whose backward passes are not repeatable, and of some others
_NOT_REPEATABLE = (
    "flash_attention",
    "efficient_attention",
    "cudnn_attention",
    "upsample_bilinear",
    "upsample_bicubic",
    "adaptive_avg_pool",
    "max_pool",
    "pad2d_backward",
    "grid_sampler",
    "cumsum",
    "scatter_reduce",
    "median",
)


@pytest.mark.parametrize("system", ["eff", "vit"])
def test_no_operation_is_known_to_have_no_repeatable_kernel(system: str) -> None:
    net, batch = network(system, "cls", drop=0.3).train(), batches(1)[0]
    loss_of = step.Learner(net, recipe("cls"), Processes(torch.device("cpu"))).loss_of
    with Traffic() as traffic:  # on a CPU: fake tensors have no backward pass without a GPU
        loss_of(net(batch["film"]), batch["mask"], batch["label"]).backward()
    assert "convolution_backward" in traffic.read_and_written
    for name in traffic.read_and_written:
        assert not any(word in name for word in _NOT_REPEATABLE), name


def test_network_that_only_predicts_has_silu_in_place() -> None:
    net = network("eff", "cls").eval()
    fuse_batchnorm(net)
    silus = [module for module in net.modules() if isinstance(module, torch.nn.SiLU)]
    assert silus
    assert all(module.inplace for module in silus)


@pytest.mark.parametrize(("device", "sent"), [("cuda", False), ("cpu", True)])
def test_statistics_are_sent_round_only_where_they_differ(
    monkeypatch: pytest.MonkeyPatch, device: str, sent: bool
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(step, "DistributedDataParallel", lambda net, **options: asked.update(options) or net)
    monkeypatch.setattr(step, "gradient_scaler", lambda *_: None)
    monkeypatch.setattr(PneumothoraxNet, "to", lambda net, *_, **__: net)
    step.Learner(PneumothoraxNet(preset_network("demo", "eff"), "seg"), recipe("seg"), _two(device))
    assert asked["broadcast_buffers"] is sent


def _two(device: str) -> Processes:
    return Processes(torch.device(device), 0, 2)
