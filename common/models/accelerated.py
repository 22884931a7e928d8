"""A network compiled by OpenVINO: the same predictions on a processor, in less time.

Optional: `pip install openvino`. It computes in float32; bfloat16 would be twice as fast again, but moves
probabilities by more than 0.01.

    nets = [accelerate(net, 512) for net in nets]  # then as before, by `Predictor`
"""

from __future__ import annotations

import gc
import sys
import warnings
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from timm.models.tiny_vit import Attention
from torch import nn
from torch.nn import functional

from common.artefacts import digest, whole_file
from common.models import winograd
from common.models.unet import PneumothoraxNet
from common.models.weights import tensors_digest
from common.refusal import Refusal

_FORM = "1"  # another one when this file or `winograd.py` make something else of a network
_DIGEST = sha256().digest_size
_LARGE = 256  # places of a window; the biases of larger ones are kept as a quarter


class AcceleratedNet(nn.Module):
    """One compiled half of a `PneumothoraxNet`, which takes its place where it predicts.

    A classification network has only `classify`, a segmentation network only `forward`. It holds no
    parameters, and knows no difference between training and evaluation.

    Args:
        compiled: Takes (1, 1, size, size) float32, 0-1.
        task: `cls` or `seg`.
    """

    def __init__(self, compiled: Any, task: str) -> None:
        super().__init__()
        self.task = task
        self._request = compiled.create_infer_request()

    def classify(self, film: torch.Tensor) -> torch.Tensor:
        """Films (b, 1, s, s) float32, 0-1 -> film logits (b,)."""
        self._refuse_other("cls")
        return self._of_each(film).squeeze(1)

    def forward(self, film: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Films (b, 1, s, s) float32, 0-1 -> mask logits (b, 2, s, s); None."""
        self._refuse_other("seg")
        return self._of_each(film), None

    def _of_each(self, films: torch.Tensor) -> torch.Tensor:
        found = []
        for film in films.split(1):
            self._request.infer([np.ascontiguousarray(film)], share_inputs=True)
            found.append(torch.from_numpy(self._request.get_output_tensor(0).data.copy()))
        return torch.cat(found)

    def _refuse_other(self, task: str) -> None:
        if self.task != task:
            raise TypeError(f"only the half of a {self.task} network that its task needs was compiled")


def accelerate(net: PneumothoraxNet, size: int, cache: Path | None = None) -> AcceleratedNet:
    """Compile a network for this processor, for films one at a time.

    It uses as many threads as torch does now.

    Args:
        net: In eval mode, folded, on the CPU. Its weights are taken out of it: it is of no use afterwards.
        size: Working size in pixels.
        cache: Folder where compiled networks are kept, and found again by what they were made from; a file
            that is damaged, or of another version, is made again. None: nothing is kept.

    Raises:
        Refusal: OpenVINO is not installed; or the cache cannot be written.
    """
    openvino = _openvino()
    core = openvino.Core()
    core.set_property("CPU", _settings())
    kept = None if cache is None else Path(cache) / f"{_identity(net, size, openvino)}.openvino"
    compiled = kept and _read(kept, core)
    if compiled is None:
        compiled = core.compile_model(_converted(net, size, openvino), "CPU")
        if kept:
            _write(kept, compiled)
    task = net.task
    _empty(net)
    return AcceleratedNet(compiled, task)


def _openvino() -> ModuleType:
    """OpenVINO, without the package by which it reports each import and conversion to its makers."""
    sys.modules.setdefault(
        "openvino_telemetry", None
    )  # for Python: not installed; OpenVINO then reports nothing
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
    """TinyViT's attention in a large window, with a quarter of its biases: those of a quarter of the places.

    A bias depends only on how many rows and columns two places are apart, so that it stays the same when the
    window is mirrored. Each quarter of the queries, mirrored into the first one, meets all keys of the window
    mirrored in the same way. The output is the same. At 512 pixels the biases of a network take 75 MB
    instead of 300.

    Args:
        attention: A square window with an even side.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        side = attention.resolution[0]
        places = torch.arange(side * side).view(side, side)
        mirrored = torch.stack([places, places.flip(0), places.flip(1), places.flip(0, 1)])
        quarters = mirrored[:, : side // 2, : side // 2].reshape(4, -1)
        biases = attention.get_attention_biases(torch.device("cpu")).detach()
        self.biases = biases.view(1, *biases.shape[-3:])[:, :, quarters[0]].clone()
        self.keys, self.queries = mirrored.flatten(), quarters.flatten()
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
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.biases)
        return own.proj(found.transpose(1, 2).reshape(1, -1, own.out_dim)[:, self.places])


def _converted(net: PneumothoraxNet, size: int, openvino: ModuleType) -> Any:
    _quarter_biases(net)
    film = torch.zeros(1, 1, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated in torch, and what OpenVINO reads fastest
        traced = torch.jit.trace(_Half(net).eval(), film, check_trace=False)
        model = openvino.convert_model(traced, example_input=film, input=[list(film.shape)])
    winograd.apply(model, openvino.opset13)
    return model


def _quarter_biases(net: PneumothoraxNet) -> None:
    for block in list(net.modules()):
        attention = getattr(block, "attn", None)
        if isinstance(attention, Attention) and _is_large(attention.resolution):
            block.attn = _QuarteredAttention(attention)


def _is_large(resolution: tuple[int, int]) -> bool:
    return resolution[0] == resolution[1] and resolution[0] % 2 == 0 and resolution[0] ** 2 > _LARGE


def _empty(net: PneumothoraxNet) -> None:
    """Give the memory of a network's weights back, whoever still holds the network."""
    for name, _ in list(net.named_children()):
        delattr(net, name)
    gc.collect()  # modules and what was traced of them refer to each other


# --- what is kept between runs ---------------------------------------------------------------------


def _identity(net: PneumothoraxNet, size: int, openvino: ModuleType) -> str:
    """What a compiled network is made from: structure, tensors, task, size, and who compiles."""
    return digest(
        _FORM, repr(net), tensors_digest(net.state_dict()), net.task, str(size), openvino.__version__
    )


def _write(path: Path, compiled: Any) -> None:
    """Write a compiled network, preceded by its SHA-256."""
    content = compiled.export_model().getvalue()
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(sha256(content).digest())
        file.write(content)


def _read(path: Path, core: Any) -> Any | None:
    """A compiled network; None where the file is missing or damaged, or OpenVINO will not have it."""
    with suppress(OSError, RuntimeError):
        content = memoryview(path.read_bytes())
        if sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
            return core.import_model(bytes(content[_DIGEST:]), "CPU")
    return None
