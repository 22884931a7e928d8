"""The previous stage's weights -> network, and a finished network -> its weights file.

A weights file is a safetensors file whose metadata is one key holding canonical JSON (the format writes
several keys in random order): the same training gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch.overrides import TorchFunctionMode

from common.files import canonical_json, digest, whole_file
from common.missing import refuse_missing_weights
from common.networks.unet import PneumothoraxNet
from common.paths import shown, weights_file
from common.recipes.recipe import Network
from common.refusal import Refusal
from common.stages import Stage

_METADATA = "pneumothorax"
_FACTS = {  # of the metadata, what later stages build on
    **dict.fromkeys(("network", "recipe"), dict),
    **dict.fromkeys(("preset", "content", "split"), str),
    "lineage": list,
}

State = Mapping[str, torch.Tensor]


def tensors_digest(state: State) -> str:
    """SHA-256 of names, types, shapes and values, independent of the file format and its metadata."""
    parts: list[memoryview | str] = []
    for name in sorted(state):
        # Contiguous, because how a network lies in memory (channels last) must not change its hash.
        tensor = state[name].detach().cpu().contiguous()
        parts += [
            f"{name} {tensor.dtype} {list(tensor.shape)}",
            tensor.reshape(-1).view(torch.uint8).numpy().data,
        ]
    return digest(*parts)


def save_weights(path: Path, state: State, metadata: dict[str, Any]) -> None:
    """Write a finished network.

    Args:
        path: Path of the weights file to write.
        state: Tensors of the network by name.
        metadata: What the network is and was made from, without clock, host or absolute path.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = save(tensors, metadata={_METADATA: canonical_json(metadata)})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)  # safetensors' own file could be read by nobody else


def read_weights(path: Path, made_by: str) -> tuple[State, dict[str, Any]]:
    """Read a weights file.

    Args:
        path: Path of the weights file to read.
        made_by: Command that makes the file.

    Returns:
        The network's state (CPU) and the metadata, to which `sha256` of the tensors is added.

    Raises:
        Refusal: It is no weights file of this project.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})[_METADATA]) | {}  # TypeError where it is no object
        state = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise Refusal(
            f"{shown(path)} is damaged, or no weights file of this project",
            do=f"delete it and make it again: {made_by}",
        ) from None
    return state, metadata | {"sha256": tensors_digest(state)}


def read_stage_weights(
    stage: Stage, system: str, fold: int | None, needed_by: str
) -> tuple[State, dict[str, Any]]:
    """Read the weights that a stage left for a system (and fold), checking that they are what they seem.

    Raises:
        Refusal: Missing, damaged, or of another stage, system or fold.
    """
    refuse_missing_weights(stage, system, fold, needed_by)
    path = weights_file(stage, system, fold)
    state, metadata = read_weights(path, stage.command)
    found = [metadata.get(key) for key in ("stage", "system", "fold", "task")]
    if json.dumps(found) != json.dumps([stage.key, system, fold, stage.task]):  # as text: False is no fold 0
        raise Refusal(
            f"{shown(path)} holds other weights than its name says",
            found=" ".join(str(value)[:40] for value in found[:3] if value is not None),
            do=f"make it again: {stage.command}",
        )
    _refuse_incomplete(metadata, path, stage)
    return state, metadata


def _refuse_incomplete(metadata: dict[str, Any], path: Path, stage: Stage) -> None:
    needed = _FACTS | ({"teachers": dict} if stage.teachers else {})
    wrong = [key for key, kind in needed.items() if type(metadata.get(key)) is not kind]
    if wrong:
        raise Refusal(
            f"{shown(path)} does not say what its network was made from",
            missing=", ".join(wrong),
            do=f"make it again: {stage.command}",
        )


def read_metadata(path: Path) -> dict[str, Any] | None:
    """The metadata of a weights file; None when the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})[_METADATA])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def build(metadata: dict[str, Any], task: str | None = None) -> PneumothoraxNet:
    """The network that a weights file's metadata describes, for its own task unless another is named."""
    described = metadata["network"]
    network = Network(**described | {"decoder_channels": tuple(described["decoder_channels"])})
    return PneumothoraxNet(network, task or metadata["task"])


def build_trained(
    metadata: dict[str, Any], task: str, trained: Sequence[tuple[State, Path]]
) -> Iterator[PneumothoraxNet]:
    """As `build` and `load`, networks that differ in their weights alone, one after the other.

    All weights come from the states, so that no first ones are drawn.

    Args:
        metadata: Metadata of any of them.
        task: Task of all of them.
        trained: State of each, and the file that it was read from.

    Raises:
        Refusal: Any tensor is missing, a head's, too, or left over or of another shape.
    """
    with _Undrawn():
        empty = build(metadata, task)
    for place, (state, source) in enumerate(trained, start=1):
        net = empty if place == len(trained) else deepcopy(empty)  # to build it takes twice as long
        if new := load(net, state, source):
            raise Refusal(f"{shown(source)} does not fit the network", missing=", ".join(new))
        yield net


class _Undrawn(TorchFunctionMode):
    """Networks are built without the weights that training begins with.

    To draw them takes longer than all else of building. And on the meta device, where
    segmentation-models-pytorch builds each encoder once to look at it, it loads torch's compiler.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if isinstance(tensor, torch.Tensor):
            name = getattr(function, "__name__", "")
            in_place = name.endswith("_") and not name.endswith("__")
            if getattr(function, "__module__", "") == "torch.nn.init" or (tensor.is_meta and in_place):
                return tensor
        return function(*args, **kwargs)


def load(net: PneumothoraxNet, state: State, source: Path) -> list[str]:
    """Load a whole checkpoint; only a new head may be missing.

    Returns:
        Names of the network's tensors that the checkpoint does not hold: those of a new head.

    Raises:
        Refusal: Any other tensor is missing, left over or of another shape: all are listed.
    """
    own = net.state_dict()
    new = [name for name in own if name not in state]
    missing = [name for name in new if ".classification_head." not in f".{name}"]
    left_over = [name for name in state if name not in own]
    reshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or left_over or reshaped:
        raise Refusal(
            f"{shown(source)} does not fit the network",
            missing=", ".join(missing) or "nothing",
            left_over=", ".join(left_over) or "nothing",
            other_shape=", ".join(reshaped) or "nothing",
        )
    net.load_state_dict({**own, **state})  # `own`: a new head keeps what it was drawn with
    return new


def network_facts(network: Network) -> dict[str, Any]:
    """A network as metadata holds it."""
    return asdict(network) | {"decoder_channels": list(network.decoder_channels)}


def parameters(net: torch.nn.Module) -> int:
    """Number of trainable numbers."""
    return int(np.sum([p.numel() for p in net.parameters() if p.requires_grad]))
