"""The networks and their ensemble."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.compute import evaluating, seed_torch
from common.networks import weights
from common.networks.ensemble import fold_probabilities, mean_map
from common.networks.unet import MEAN, STD
from common.recipes.presets import preset_network


def _net(system: str, task: str, seed: int = 0):
    seed_torch(seed)
    return weights.build({"network": weights.network_facts(preset_network("demo", system)), "task": task})


@pytest.mark.parametrize("system", ["eff", "vit"])
def test_shapes_and_the_decoder_free_path(system: str) -> None:
    net, film = _net(system, "cls"), torch.rand(3, 1, 64, 64)
    with evaluating(net):
        masks, logits = net(film)
        assert masks.shape == (3, 2, 64, 64)
        assert logits.shape == (3,)
        assert torch.allclose(net.classify(film), logits, atol=1e-6)
        assert _net(system, "seg").eval()(film)[1] is None


def test_films_are_normalised_as_imagenet() -> None:
    net, seen = _net("eff", "seg"), []
    net.unet.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with evaluating(net):
        net(torch.full((1, 1, 64, 64), 0.5))
    for channel in range(3):
        assert seen[0][0, channel] == pytest.approx((0.5 - MEAN[channel]) / STD[channel])


def test_ensemble_is_the_mean_of_its_folds() -> None:
    nets, film = [_net("eff", "cls", seed) for seed in range(3)], torch.rand(2, 1, 64, 64)
    with evaluating(*nets):
        probabilities, found = fold_probabilities(nets, film), mean_map(nets, film)
        for fold, net in enumerate(nets):
            assert torch.allclose(probabilities[:, fold], net(film)[1].sigmoid(), atol=1e-6)
        expected = sum(net(film)[0].softmax(1)[:, 1] for net in nets) / 3
    assert torch.allclose(found, expected, atol=1e-6)


def test_transformer_forgets_its_cached_biases() -> None:
    """TinyViT caches attention biases in eval mode: weights loaded afterwards must count all the same."""
    net, other, film = _net("vit", "seg", 0), _net("vit", "seg", 1), torch.rand(1, 1, 64, 64)
    for module in other.modules():
        if hasattr(module, "attention_biases"):
            torch.nn.init.normal_(module.attention_biases, std=3)
    net.eval()
    with evaluating(net):
        net(film)
    weights.load(net, other.state_dict(), Path("x"))
    with evaluating(net, other):
        assert torch.equal(net(film)[0], other(film)[0])


def test_transformer_still_learns_its_biases_after_validation() -> None:
    net, film = _net("vit", "seg"), torch.rand(1, 1, 64, 64)
    net.train()
    with evaluating(net):
        net(film)
    assert net.training
    net(film)[0].sum().backward()
    grads = [p.grad for name, p in net.named_parameters() if "attention_biases" in name]
    assert grads
    assert all(grad is not None for grad in grads)
