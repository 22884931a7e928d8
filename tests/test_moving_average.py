"""The moving average: its numbers, and that a run validates and keeps it."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from distributed_worker import CPU, batches, network, recipe

from common.distributed import Processes
from common.networks.gradient_checkpointing import state_bytes
from common.training.moving_average import moving_average
from common.training.step import Learner


def test_average_by_hand() -> None:
    """The first update takes the weights as they are; then the decay rises to its highest."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    average = moving_average(net, 0.3)
    weight = mean = torch.zeros(())
    for number in range(4):
        with torch.no_grad():
            net[0].weight.fill_(number + 1.0)
            net[1].running_mean.fill_(10.0 * number)
            net[1].num_batches_tracked.fill_(7 * number)
        average.update_parameters(net)
        decay = min(0.3, (1 + number) / (10 + number)) if number else 0.0
        weight = decay * weight + (1 - decay) * (number + 1)
        mean = decay * mean + (1 - decay) * 10 * number
        torch.testing.assert_close(average.module[0].weight, weight.expand(2, 1, 3, 3))
        torch.testing.assert_close(average.module[1].running_mean, mean.expand(2))
        assert int(average.module[1].num_batches_tracked) == 7 * number
    assert min(0.3, 2 / 11) < 0.3 <= 4 / 13  # both cases were seen


def test_a_step_moves_the_average_and_learns_as_without_it() -> None:
    nets = [network("eff", "seg")]
    nets.append(copy.deepcopy(nets[0]))
    learners = [
        Learner(net, replace(recipe("seg"), ema_decay=decay), Processes(CPU))
        for net, decay in zip(nets, (0.0, 0.9), strict=True)
    ]
    for learner in learners:
        learner.net.train()
        for step, batch in enumerate(batches(2)):
            learner.step(batch, 1e-3, (0, 0, step))
    without, having = learners
    assert without.judged is without.net
    assert having.judged is not having.net
    for one, other in zip(without.net.parameters(), having.net.parameters(), strict=True):
        assert torch.equal(one, other)
    moved = [
        not torch.equal(one, other)
        for one, other in zip(having.net.parameters(), having.judged.parameters(), strict=True)
    ]
    assert sum(moved) > len(moved) / 2
    assert state_bytes(having.net, averaged=True) == 1.25 * state_bytes(having.net)
