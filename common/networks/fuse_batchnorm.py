"""A trained network made ready to predict: what no longer changes is computed once, not for every film."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from common.networks.libraries import Attention
from common.networks.unet import PneumothoraxNet

_SIDE = 64  # of the film that shows which layer follows which; any that every encoder takes


def fuse_batchnorm(net: PneumothoraxNet) -> None:
    """Fold a network's constants, in place. The outputs are the same but for rounding.

    BatchNorm with fixed statistics is a factor and a term for each channel, which the convolution before it
    can apply as it writes (Jacob et al., CVPR 2018, section 3.2). And TinyViT's attention biases are put in
    the shape that PyTorch's fused attention takes: three-dimensional, as timm passes them, they send it the
    slow way, which writes out each window's attention matrix (on a CPU half of the time at 512 pixels).

    Afterwards the network can only predict: its state no longer fits a weights file.

    Args:
        net: Network in eval mode, with its weights loaded. Its device and memory format stay.
    """
    _fuse_batch_norms(net)
    for module in net.modules():
        if isinstance(module, Attention):
            _fix_biases(module)
        elif isinstance(module, nn.SiLU):
            module.inplace = True  # no backward pass needs its input


def _fuse_batch_norms(net: PneumothoraxNet) -> None:
    """Fold each BatchNorm that takes a convolution's output into that convolution.

    The convolutions' own classes stay (TF's padding `same` pads in `forward`). A BatchNorm that is followed
    by an activation of its own (timm's BatchNormAct2d) leaves the activation.
    """
    names = {module: name for name, module in net.named_modules()}
    for norm, convolution in _followers(net).items():
        if norm.running_mean is None or norm.running_var is None:
            continue  # it takes those of the batch
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        parent, _, name = names[norm].rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Sequential(*norm.children()))  # none: the identity


def _followers(net: PneumothoraxNet) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Each BatchNorm with the convolution whose output it takes, where each of the two runs once.

    Seen in a run, not read from names and their order: the tensor that the one returns is the tensor that
    the other takes.
    """
    made: list[tuple[nn.Conv2d, torch.Tensor]] = []  # holds the tensors, so that no id is given twice
    taken: list[tuple[nn.BatchNorm2d, torch.Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, output: made.append((module, output)))
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(lambda module, inputs: taken.append((module, inputs[0])))
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        with torch.no_grad():
            net(net.mean.new_zeros(1, 1, _SIDE, _SIDE))
    finally:
        for hook in hooks:
            hook.remove()
    runs = [module for module, _ in (*made, *taken)]
    source = {id(output): convolution for convolution, output in made}
    return {
        norm: source[id(tensor)]
        for norm, tensor in taken
        if id(tensor) in source and runs.count(norm) == runs.count(source[id(tensor)]) == 1
    }


class _FoldedAttention(Attention):
    """Its biases are those of all pairs of a window's places, (1, heads, places, places)."""

    def get_attention_biases(self, device: torch.device) -> torch.Tensor:
        return self.attention_biases


def _fix_biases(attention: Attention) -> None:
    """Gather the biases for good; timm does so in eval mode once and forgets them in train mode."""
    biases = attention.attention_biases.detach()[None, :, attention.get_buffer("attention_bias_idxs")]
    attention.attention_biases = nn.Parameter(biases, requires_grad=False)
    attention.register_buffer("attention_bias_idxs", None, persistent=False)
    attention.attention_bias_cache = {}
    attention.__class__ = _FoldedAttention
