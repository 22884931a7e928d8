"""The folds of a stage compiled by OpenVINO: the same predictions on a processor, in less time.

Optional: `pip install openvino`. It computes in float32; bfloat16 would be twice as fast again, but moves
probabilities by more than 0.01.

    nets = [accelerate(nets, 512)]  # then as before, by `Predictor`
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from timm.models.tiny_vit import Attention, TinyVitBlock, TinyVitStage
from torch import nn
from torch.nn import functional

from common.networks import winograd
from common.networks.unet import PneumothoraxNet
from common.refusal import Refusal

_LARGE = 256  # places of a window; with more, few biases are kept


class AcceleratedNets(nn.Module):
    """The halves that predict of all folds' networks, as one: it takes the place of them all.

    Of classification networks it has only `classify`, of segmentation networks only `forward`. It holds no
    parameters, and knows no difference between training and evaluation.

    Args:
        compiled: Takes (1, 1, size, size) float32, 0-1; an output a fold.
        task: `cls` or `seg`.
    """

    def __init__(self, compiled: Any, task: str) -> None:
        super().__init__()
        self.task, self._folds = task, len(compiled.outputs)
        self._request = compiled.create_infer_request()

    def classify(self, film: torch.Tensor) -> torch.Tensor:
        """Films (b, 1, s, s) float32, 0-1 -> film logits (b, folds)."""
        self._refuse_other("cls")
        return self._of_each(film)

    def forward(self, film: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Films (b, 1, s, s) float32, 0-1 -> mask logits (b, 2 folds, s, s), fold by fold; None."""
        self._refuse_other("seg")
        return self._of_each(film), None

    def _of_each(self, films: torch.Tensor) -> torch.Tensor:
        found = []
        for film in films.split(1):
            self._request.infer([np.ascontiguousarray(film)], share_inputs=True)
            outputs = [self._request.get_output_tensor(fold).data for fold in range(self._folds)]
            found.append(torch.from_numpy(np.concatenate(outputs, axis=1)))
        return torch.cat(found)

    def _refuse_other(self, task: str) -> None:
        if self.task != task:
            raise TypeError(f"only the half of {self.task} networks that their task needs was compiled")


def accelerate(nets: Iterable[PneumothoraxNet], size: int) -> AcceleratedNets:
    """Compile the folds of a stage for this processor, for films one at a time.

    As one model, so that they share the memory in which they compute. It uses as many threads as torch does
    now.

    Args:
        nets: Networks of one task, in eval mode, with BatchNorm fused, on the CPU. They may come one by one:
            their weights are taken out of them, and they are of no use afterwards.
        size: Working size in pixels.

    Raises:
        Refusal: OpenVINO is not installed.
    """
    openvino = _openvino()
    core = openvino.Core()
    core.set_property("CPU", _settings())
    models = []
    for net in nets:
        task = net.task
        models.append(_converted(net, size, openvino))
        _empty(net)
    return AcceleratedNets(core.compile_model(_joined(models, openvino), "CPU"), task)


def _openvino() -> ModuleType:
    """OpenVINO, without the package by which it reports each import and conversion to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: as if not installed
    try:
        import openvino
    except ImportError as error:
        raise Refusal(
            "the accelerated backend needs OpenVINO", found=error, do="python -m pip install openvino"
        ) from None
    return openvino


def _settings() -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",  # all threads on one film
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # where the processor has bfloat16, it would be that
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
    }


# --- conversion ------------------------------------------------------------------------------------


class _Half(nn.Module):
    """The half of a network that its task needs, as one function of the film."""

    def __init__(self, net: PneumothoraxNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, film: torch.Tensor) -> torch.Tensor:
        if self.net.task == "cls":
            return self.net.classify(film)[:, None]
        return self.net(film)[0]


class _QuarteredAttention(nn.Module):
    """TinyViT's attention in a large window, with the biases of a few of its places.

    A bias depends only on how many rows and columns two places are apart, so that it stays the same when the
    window is mirrored. Each quarter of the queries, mirrored into the first one, meets all keys of the window
    mirrored in the same way; and the biases of any row of queries are those of the first row, moved. The
    output is the same. At 512 pixels the biases of a network take 5 MB instead of 300.

    Args:
        attention: A square window with an even side.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        side = attention.resolution[0]
        half = side // 2
        places = torch.arange(side * side).view(side, side)
        mirrored = torch.stack([places, places.flip(0), places.flip(1), places.flip(0, 1)])
        biases = attention.get_attention_biases(torch.device("cpu")).detach()
        biases = biases.reshape(-1, side, side, side, side)[:, 0, :half].clone()  # column, key's row, column
        self.biases = nn.Parameter(biases, requires_grad=False)  # OpenVINO never frees a mere tensor
        self.apart = (torch.arange(half)[:, None] - torch.arange(side)).abs().flatten()
        self.keys = mirrored.flatten()
        self.queries = mirrored[:, :half, :half].transpose(1, 2).flatten()  # column by column, as the biases
        self.places = self.queries.argsort()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Windows (1, places, channels) -> the same shape."""
        own = self.attention
        parts = own.qkv(own.norm(tokens)).view(1, len(self.keys) // 4, own.num_heads, -1)
        query, key, value = parts.split([own.key_dim, own.key_dim, own.val_dim], dim=3)
        query, key, value = (
            part[:, chosen].view(4, -1, *part.shape[2:]).transpose(1, 2)
            for part, chosen in ((query, self.queries), (key, self.keys), (value, self.keys))
        )
        zero = (tokens[0, 0, 0] == torch.inf).long()  # for OpenVINO to move rows as it computes, not before
        biases = self.biases.index_select(2, self.apart + zero).view(1, *query.shape[1:3], key.shape[2])
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=biases)
        return own.proj(found.transpose(1, 2).reshape(1, -1, own.out_dim)[:, self.places])


class _AsTokens(nn.Module):
    """A layer of TinyViT, before tokens are made of its output, written so that OpenVINO need not move them.

    With channels last, as OpenVINO computes, the output is the tokens already. The layer gives the same.

    Args:
        layer: Films (b, channels, rows, columns) -> the same, perhaps of other sizes.
        flat: Give (b, channels, places), to which they are flattened next.
    """

    def __init__(self, layer: nn.Module, flat: bool) -> None:
        super().__init__()
        self.layer, self.flat = layer, flat

    def forward(self, film: torch.Tensor) -> torch.Tensor:
        found = self.layer(film)
        tokens = found.permute(0, 2, 3, 1).flatten(1, 2)
        return tokens.mT if self.flat else tokens.unflatten(1, found.shape[2:]).permute(0, 3, 1, 2)


def _converted(net: PneumothoraxNet, size: int, openvino: ModuleType) -> Any:
    _suit_tiny_vit(net)
    film = torch.zeros(1, 1, size, size)
    with torch.no_grad():
        exported = torch.export.export(_Half(net).eval(), (film,), strict=False)
    model = openvino.convert_model(exported, input=[list(film.shape)])
    winograd.apply(model, openvino.opset13)
    return model


def _joined(models: list[Any], openvino: ModuleType) -> Any:
    """One model of one film, with the output of each."""
    for model in models[1:]:
        for target in model.input(0).get_target_inputs():
            target.replace_source_output(models[0].input(0))
    found = [model.get_results()[0].input_value(0) for model in models]
    return openvino.Model([openvino.opset13.result(each) for each in found], models[0].get_parameters())


def _suit_tiny_vit(net: PneumothoraxNet) -> None:
    """Put what OpenVINO computes in less memory and time in the place of TinyViT's modules."""
    for module in list(net.modules()):
        if isinstance(module, TinyVitStage):
            module.add_module("downsample", _AsTokens(module.downsample, flat=False))
        if isinstance(module, TinyVitBlock):
            module.add_module("local_conv", _AsTokens(module.local_conv, flat=True))
            if _is_large(module.attn.resolution):
                module.add_module("attn", _QuarteredAttention(module.attn))


def _is_large(resolution: tuple[int, int]) -> bool:
    return resolution[0] == resolution[1] and resolution[0] % 2 == 0 and resolution[0] ** 2 > _LARGE


def _empty(net: PneumothoraxNet) -> None:
    """Give the memory of a network's weights back, whoever still holds the network."""
    for name, _ in list(net.named_children()):
        delattr(net, name)
    gc.collect()  # modules and what was exported of them refer to each other
