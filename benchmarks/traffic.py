"""Bytes that a forward pass in half precision reads and writes, against the library's U-Net as it is built.

    python benchmarks/traffic.py              both systems of `published`, a batch of 8 at 512 px
    python benchmarks/traffic.py --quick      `eff` only
    python benchmarks/traffic.py --by-kind    and which operations they are

No GPU is needed: tensors are fake ones (`torch._subclasses.FakeTensorMode`), which know their device, type
and layout but hold nothing. Counted are the bytes of all inputs and outputs of every operation that is no
view, as if nothing stayed in a cache: what a memory-bound network costs, not what its arithmetic does.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GOAL = 0.8
OF_PICTURES = {
    "convolution",
    "cudnn_batch_norm",
    "upsample_nearest2d",
    "cat",
    "silu",
    "silu_",
    "gelu",
    "relu_",
}


class Traffic(TorchDispatchMode):
    """Notes what operations read and write.

    Attributes:
        read_and_written: Bytes by operation.
        other_layout: Number of pictures (b, c, h, w) that were made in another layout than channels last, by
            operation.
        types: Types of what was made, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read_and_written: Counter[str] = Counter()
        self.other_layout: Counter[str] = Counter()
        self.types: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in str(func) and "device" not in str(func):
            tensors = [each for each in tree_leaves((args, kwargs, made)) if isinstance(each, torch.Tensor)]
            name = str(func).split(".")[1]
            self.read_and_written[name] += sum(each.numel() * each.element_size() for each in tensors)
            first = next((each for each in tree_leaves(made) if isinstance(each, torch.Tensor)), None)
            if first is None:  # a number
                return made
            self.types.setdefault(name, set()).add(first.dtype)
            if name in OF_PICTURES and first.dim() == 4 and min(first.shape[1:]) > 1:
                self.other_layout[name] += not first.is_contiguous(memory_format=torch.channels_last)
        return made

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.read_and_written.values())


@contextmanager
def half_precision_of_no_gpu() -> Iterator[None]:
    """As `torch.autocast("cuda")`, which asks for a GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.float16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def to_fake_gpu(net: nn.Module, mode: FakeTensorMode) -> None:
    """Put fake tensors of a GPU in the place of all parameters and buffers."""

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return mode.from_tensor(tensor.detach()).to("cuda:0")

    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(fake(parameter)))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = fake(buffer)


def traffic_of(net: nn.Module, batch: int, image_size: int) -> Traffic:
    """What a forward pass in training reads and writes; the network cannot compute afterwards."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        to_fake_gpu(net.train(), mode)
        film = torch.rand(batch, 1, image_size, image_size, device="cuda:0")
        with half_precision_of_no_gpu(), Traffic() as traffic:
            net(film)
    return traffic


class Library(nn.Module):
    """The same network with the library's own decoder and activations."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, ours: Any, network: Any) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        self.unet = smp.Unet(
            f"tu-{network.encoder}",
            encoder_weights=None,
            encoder_depth=network.encoder_depth,
            decoder_channels=network.decoder_channels,
            classes=2,
            aux_params={"classes": 1, "pooling": "avg", "dropout": network.head_dropout},
            **network.encoder_args,
        ).to(memory_format=torch.channels_last)
        self.register_buffer("mean", ours.mean.clone())
        self.register_buffer("std", ours.std.clone())

    def forward(self, film: torch.Tensor) -> Any:
        """Films (b, 1, s, s) -> mask logits and film logits."""
        return self.unet((film - self.mean) / self.std)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--by-kind", action="store_true")
    parser.add_argument("--preset", choices=("demo", "published"), default="published")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    from common.networks import weights
    from common.recipes.presets import preset_network

    shares = {}
    for system in ("eff",) if arguments.quick else ("eff", "vit"):
        network = preset_network(arguments.preset, system)
        ours = weights.build({"network": weights.network_facts(network), "task": "cls"})
        nets = {"library": Library(ours, network), "ours": ours}
        found = {
            name: traffic_of(net, arguments.batch_size, arguments.image_size) for name, net in nets.items()
        }
        for name, traffic in found.items():
            others = sum(traffic.other_layout.values())
            print(f"{system} {name}: {traffic.total / 1e9:.2f} GB, {others} pictures not channels last")
            for kind, count in traffic.read_and_written.most_common(12) if arguments.by_kind else []:
                print(f"    {kind:32} {count / 1e9:6.2f} GB, {traffic.other_layout[kind]} not channels last")
        shares[system] = found["ours"].total / found["library"].total
    print(f"traffic: {shares['eff']:.2f} (goal <= {GOAL})")


if __name__ == "__main__":
    main()
