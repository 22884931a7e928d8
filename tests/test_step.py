"""One step of training: pieces of a batch, memory, every parameter, BatchNorm of all processes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from distributed_worker import BATCH, CPU, batches, network, norms, recipe, steady, training
from timm.layers import convert_sync_batchnorm

from common.compute import evaluating, seed_torch
from common.distributed import Processes
from common.networks.gradient_checkpointing import checkpointed, kept_for_backward
from common.networks.unet import PneumothoraxNet
from common.refusal import Refusal
from common.training.step import Learner

ONE = Processes(CPU)
SYSTEMS_AND_TASKS = [(system, task) for system in ("eff", "vit") for task in ("seg", "cls")]


def _learner(system: str, task: str, **changes) -> Learner:
    return Learner(network(system, task), recipe(task, **changes), ONE)


# --- pieces of a batch -----------------------------------------------------------------------------


def _stepped(system: str, task: str, accumulation: int, frozen: bool) -> tuple[Learner, torch.Tensor]:
    learner = _learner(system, task, accumulation=accumulation)
    training(learner.net, frozen)
    steady(learner)
    return learner, learner.step(batches()[0], 1e-3, (0, 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [2, 4])
@pytest.mark.parametrize(("system", "task"), SYSTEMS_AND_TASKS)
def test_pieces_equal_the_whole_batch(system: str, task: str, accumulation: int) -> None:
    """Where no film's result depends on another's: without BatchNorm's statistics and without dropout."""
    whole, loss = _stepped(system, task, 1, frozen=True)
    pieces, mean_loss = _stepped(system, task, accumulation, frozen=True)
    torch.testing.assert_close(mean_loss, loss, rtol=0, atol=1e-5)
    for (name, one), other in zip(whole.net.named_parameters(), pieces.net.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-5, msg=name)
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
def test_returned_loss_is_the_mean_of_the_pieces() -> None:
    net, batch = network("eff", "cls"), batches()[0]
    training(net, frozen=True)
    loss_of = _learner("eff", "cls").loss_of
    with torch.no_grad():
        losses = [
            loss_of(net(batch["film"][part]), batch["mask"][part], batch["label"][part])
            for part in (slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8))
        ]
    _, found = _stepped("eff", "cls", 4, frozen=True)
    expected = [float(torch.stack(losses).mean()), float(batch["label"].mean())]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_batch_norm_sees_a_piece_at_a_time() -> None:
    """As the flag's help says: with BatchNorm in training, pieces are not quite the whole batch."""
    (whole, _), (pieces, _) = (_stepped("eff", "seg", accumulation, frozen=False) for accumulation in (1, 2))
    counts = [{int(norm.num_batches_tracked) for norm in norms(each.net)} for each in (whole, pieces)]
    assert counts == [{1}, {2}]
    assert any(
        not torch.allclose(one.grad, other.grad, rtol=0, atol=1e-4)
        for one, other in zip(whole.net.parameters(), pieces.net.parameters(), strict=True)
    )


# --- checkpointing ---------------------------------------------------------------------------------


@pytest.mark.all
@pytest.mark.parametrize("task", ["seg", "cls"])
@pytest.mark.parametrize(
    ("preset", "system"), [("demo", "eff"), ("demo", "vit"), ("published", "eff"), ("published", "vit")]
)
def test_checkpointing_changes_memory_and_nothing_else(preset: str, system: str, task: str) -> None:
    """Bit for bit, with dropout, drop path and BatchNorm as in training."""
    first, films = network(system, task, preset, drop=0.3), 2
    keys, losses, kept = list(first.state_dict()), [], []
    nets = [first, copy.deepcopy(first)]
    for net, checkpointing in zip(nets, (False, True), strict=True):
        learner = Learner(net, recipe(task), ONE, checkpointing)
        net.train()
        for step, batch in enumerate(batches(2, films)):
            seed_torch(0, step)
            loss = learner.loss_of(learner.model(batch["film"]), batch["mask"], batch["label"])
            loss.backward()
            losses.append(loss.detach())
    assert losses[:2] == losses[2:]
    for (name, one), other in zip(first.named_parameters(), nets[1].parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name
    assert list(nets[1].state_dict()) == keys
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, nets[1].state_dict()[name]), name
    assert {int(norm.num_batches_tracked) for norm in norms(nets[1])} == {2}
    kept = [kept_for_backward(net, batches(1, films)[0]["film"]) for net in nets]
    assert kept[1] < 0.35 * kept[0]  # from 0.09 (published eff) to 0.27 (demo vit) where this was written


def test_dropout_and_drop_path_are_on_in_the_test_above() -> None:
    """Else it would not show that the second computation has the first one's random numbers."""
    for system in ("eff", "vit"):
        net, film = network(system, "cls", drop=0.3), batches(1, 4)[0]["film"]
        training(net, frozen=True)
        one, other = (net(film) for _ in range(2))
        assert not torch.equal(one[0], other[0])  # drop path
        assert not torch.equal(one[1], other[1])


def test_checkpointed_network_validates_as_before() -> None:
    net, film = network("eff", "cls"), batches(1, 2)[0]["film"]
    with evaluating(net):
        before = net(film)
        checkpointed(net)
        after = net(film)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


# --- BatchNorm of all processes --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "system"), [("demo", "eff"), ("demo", "vit"), ("published", "eff"), ("published", "vit")]
)
def test_batch_norm_of_all_processes_is_the_same_network(preset: str, system: str) -> None:
    """timm's conversion, not torch's: timm's BatchNorm carries the activation, which torch's would drop."""
    net = network(system, "cls", preset)
    for norm in norms(net):  # not those of a network that saw nothing yet
        torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    converted = convert_sync_batchnorm(copy.deepcopy(net))
    assert len(norms(converted)) == len(norms(net))
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms(converted))
    states = net.state_dict(), converted.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    film = batches(1, 2)[0]["film"]
    with evaluating(net, converted):
        for one, other in zip(net(film), converted(film), strict=True):
            assert torch.equal(one, other)


# --- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
    ],
)
def test_too_little_memory_is_refused_with_the_flags_that_help(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def no_memory(*_: object) -> None:
        raise error

    monkeypatch.setattr(PneumothoraxNet, "forward", no_memory)
    learner = _learner("eff", "seg")
    with pytest.raises(Refusal, match="the memory is not enough for a batch of 8 at 64 px") as refused:
        learner.step(batches(1)[0], 1e-3, (0, 0, 1))
    said = str(refused.value)
    assert "--checkpointing" in said
    assert "--accumulation 2" in said
    assert "4 films at a time" in said
    assert "allocate" in said
    learner.recipe = replace(learner.recipe, accumulation=BATCH)  # no smaller pieces are left
    with pytest.raises(Refusal) as refused:
        learner.step(batches(1)[0], 1e-3, (0, 0, 1))
    assert "--accumulation" not in str(refused.value)


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(PneumothoraxNet, "forward", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        _learner("eff", "seg").step(batches(1)[0], 1e-3, (0, 0, 1))


# --- every parameter -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["demo", "published"])
@pytest.mark.parametrize(("system", "task"), SYSTEMS_AND_TASKS)
def test_every_parameter_has_a_gradient(preset: str, system: str, task: str) -> None:
    """One without would never be trained, and several processes refuse to go on."""
    net, batch = network(system, task, preset), batches(1, 2)[0]
    net.train()
    loss = _learner("eff", task).loss_of(net(batch["film"]), batch["mask"], batch["label"])
    loss.backward()
    # with four halvings timm keeps EfficientNet's last stage, which nothing uses
    unused = "unet.encoder.model.blocks.5." if (preset, system) == ("demo", "eff") else "none"
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert [name for name in without if not name.startswith(unused)] == []
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("system", "task"), SYSTEMS_AND_TASKS)
def test_every_parameter_is_trained_at_the_rate_that_was_told(system: str, task: str) -> None:
    """AdamW's first step is as long as the rate, in each number whose gradient is not tiny."""
    learner = _learner(system, task, weight_decay=0.0, clip_norm=1e9)
    learner.net.train()
    for step, rate in enumerate((1e-3, 2e-4)):
        before = [parameter.detach().clone() for parameter in learner.net.parameters()]
        learner.optimiser.state.clear()
        learner.step(batches(1)[0], rate, (0, 0, step))
        moved = 0
        for old, (name, new) in zip(before, learner.net.named_parameters(), strict=True):
            if new.grad is None:
                continue
            far = new.grad.abs() > 1e-5
            torch.testing.assert_close(
                (new - old).abs()[far] / rate, torch.ones(int(far.sum())), rtol=0, atol=5e-3
            )
            moved += bool(far.any())
            assert torch.isfinite(new).all(), name
        assert moved > 0.8 * sum(p.grad is not None for p in learner.net.parameters())


# --- what cannot be repeated -----------------------------------------------------------------------


def test_step_that_a_gpu_cannot_repeat_is_done_once_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (_learner("eff", "seg") for _ in range(2))
    for learner in (one, other):
        training(learner.net, frozen=True)  # BatchNorm would count the films of the step that failed, too
    expected = one.step(batches()[0], 1e-3, (0, 0, 1))
    loss_of, failed = other.loss_of, []

    def without_kernel(*given: torch.Tensor) -> torch.Tensor:
        if not failed:
            failed.append(1)
            raise RuntimeError("median_cuda does not have a deterministic implementation, but you set")
        return loss_of(*given)

    monkeypatch.setattr(other, "loss_of", without_kernel)
    try:
        assert torch.equal(other.step(batches()[0], 1e-3, (0, 0, 1)), expected)
    finally:
        torch._C._set_deterministic_algorithms(False, warn_only=False)
    assert (one.not_repeatable, other.not_repeatable) == ([], ["median_cuda"])
    for mine, its in zip(one.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(mine, its)


# --- fp16 ------------------------------------------------------------------------------------------


def test_fp16_run_whose_steps_are_all_left_out_stops_with_the_reason() -> None:
    learner = _learner("eff", "cls")
    learner.scaler = torch.amp.GradScaler("cpu")
    before = copy.deepcopy(learner.net.state_dict())
    learner.step(batches()[0], 1e-3, (0, 0, 1))
    assert any(not torch.equal(before[name], now) for name, now in learner.net.state_dict().items())
    with torch.no_grad():
        next(learner.net.parameters()).fill_(torch.nan)
    for step in range(2, 18):  # 65,536 halved sixteen times
        learner.step(batches()[0], 1e-3, (0, 0, step))
    with pytest.raises(Refusal, match=r"no step counts(.|\n)*--precision fp32"):
        learner.step(batches()[0], 1e-3, (0, 0, 18))
