"""Memory of a network in training: how much it needs, and gradient checkpointing to need less."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from common.networks.unet import PneumothoraxNet

_COMPUTE = "without_checkpointing"  # attribute of a checkpointed block
_BYTES_A_PARAMETER = 16  # weight, gradient and AdamW's two moments, float32


def checkpointed(net: PneumothoraxNet) -> None:
    """Have a network compute the activations inside its blocks again instead of keeping them.

    Chen et al., Training deep nets with sublinear memory cost, 2016 (arXiv 1604.06174). Each child of the
    encoder's stages and each block of the decoder keeps only what comes in. Weights, gradients and
    BatchNorm's statistics come out as without it, bit for bit: the second computation has the first one's
    random numbers, and leaves the statistics alone.
    """
    for block in _blocks(net):
        _checkpoint(block)


def _blocks(net: PneumothoraxNet) -> list[nn.Module]:
    stages = [
        stage
        for name, child in net.unet.encoder.model.named_children()
        for stage in (child if name == "blocks" else [child] if name.startswith("stages") else [])
    ]
    inside = [block for stage in stages for block in getattr(stage, "blocks", stage).children()]
    return [*inside, *net.unet.decoder.blocks]


def _checkpoint(block: nn.Module) -> None:
    compute = block.forward

    def forward(*inputs: torch.Tensor | None, **options: torch.Tensor | None) -> torch.Tensor:
        if not (block.training and torch.is_grad_enabled()):  # nothing is kept for a backward pass anyway
            return compute(*inputs, **options)
        return checkpoint(
            partial(compute, **options),  # `checkpoint` has keywords of its own
            *inputs,
            use_reentrant=False,  # the only kind that takes `context_fn`
            context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(block)),
        )

    block.forward = forward  # not a module around it, which would rename the weights
    block.__dict__[_COMPUTE] = compute


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """BatchNorm normalises by the batch, but does not count it a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [
        (norm, norm.momentum, counted, counted.clone())
        for norm in norms
        if (counted := norm.num_batches_tracked) is not None
    ]
    for norm in norms:
        norm.momentum = 0.0  # running statistics x 1 + batch statistics x 0
    try:
        yield
    finally:
        for norm, momentum, counted, batches in before:
            norm.momentum = momentum
            counted.copy_(batches)


def kept_for_backward(net: PneumothoraxNet, film: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, besides the weights.

    Args:
        net: Network in training mode.
        film: (b, 1, s, s) float32, on the network's device. Autocast holds as it is set around the call.
    """
    return _kept(net, net, film)


def recomputed(net: PneumothoraxNet, film: torch.Tensor) -> int:
    """Bytes that the largest of the checkpointed blocks holds while the backward pass computes it again.

    Args:
        net: Network in training mode; without checkpointing nothing is computed again.
        film: As for `kept_for_backward`.
    """
    given: dict[nn.Module, tuple[Any, Any]] = {}
    blocks = [block for block in _blocks(net) if _COMPUTE in block.__dict__]
    hooks = [
        block.register_forward_pre_hook(
            lambda block, inputs, options: given.__setitem__(block, (inputs, options)), with_kwargs=True
        )
        for block in blocks
    ]
    with torch.no_grad():
        net(film)
    for hook in hooks:
        hook.remove()
    return max(
        (
            _kept(net, partial(block.__dict__[_COMPUTE], **options), *inputs)
            for block, (inputs, options) in given.items()
        ),
        default=0,
    )


def _kept(net: nn.Module, compute: Callable[..., Any], *inputs: Any) -> int:
    """Bytes that a computation keeps for its backward pass, besides the weights of a network."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = compute(
            *inputs
        )  # alive until counted: else storages would be freed and their addresses used again
    total = sum(kept.values())
    del output
    return total


def state_bytes(net: nn.Module, averaged: bool = False) -> int:
    """Bytes of weights, gradients and AdamW's moments, and of their average where there is one, float32."""
    return (_BYTES_A_PARAMETER + 4 * averaged) * sum(p.numel() for p in net.parameters() if p.requires_grad)
