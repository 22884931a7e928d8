"""ImageNet's or the previous stage's weights -> network, and a finished network -> its weights file.

A weights file is a safetensors file whose metadata is one key holding canonical JSON (the format writes
several keys in random order): the same training gives the same bytes.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from common.artefacts import (
    Stage,
    canonical_json,
    digest,
    progress_of,
    shown,
    weights_file,
    whole_file,
    workspace,
)
from common.config import Network
from common.models.unet import PneumothoraxNet
from common.refusal import Refusal

_METADATA = "pneumothorax"
_HUB_FILE = "model.safetensors"
_FIRST_ANSWER = 4.0  # seconds the hub has for its first answer
# Parts of an ImageNet classifier that a U-Net's encoder does not have
_CLASSIFIER_PARTS = ("classifier.", "head.", "conv_head.", "bn2.", "norm_head.")

State = Mapping[str, torch.Tensor]


def tensors_digest(state: State) -> str:
    """SHA-256 of names, types, shapes and values, independent of the file format and its metadata."""
    parts: list[bytes | str] = []
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        parts += [
            f"{name} {tensor.dtype} {list(tensor.shape)}",
            tensor.reshape(-1).view(torch.uint8).numpy().data,
        ]
    return digest(*parts)


def save_weights(path: Path, state: State, metadata: dict[str, Any]) -> None:
    """Write a finished network.

    Args:
        path: A weights file's path.
        state: The network's state.
        metadata: What it is and was made from: no clock, host or absolute path.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_METADATA: canonical_json(metadata)})
        except SafetensorError as error:  # how safetensors says that the disk is full
            raise OSError(28, "the disk is full, or the file grew too large") from error


def read_weights(
    path: Path, title: str, made_by: str, found: str | None = None
) -> tuple[State, dict[str, Any]]:
    """Read a weights file.

    Args:
        path: The file.
        title: What is needed and by whom, as the refusal says it.
        made_by: The command that makes it.
        found: What is there instead, for the refusal.

    Returns:
        The network's state (CPU) and the metadata, to which `sha256` of the tensors is added.

    Raises:
        Refusal: The file is missing, or not a weights file of this project.
    """
    if not path.is_file():
        raise Refusal(title, missing=shown(path), made_by=made_by, found=found)
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})[_METADATA])
        state = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError):
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
    path = weights_file(stage, system, fold)
    title = f"{needed_by} needs the {stage.weights_title}"
    state, metadata = read_weights(path, title, stage.command, progress_of(stage, system, fold))
    found = [metadata.get(key) for key in ("stage", "system", "fold")]
    if found != [stage.key, system, fold]:
        raise Refusal(
            f"{shown(path)} holds other weights than its name says",
            found=" ".join(str(value) for value in found if value is not None),
            do=f"make it again: {stage.command}",
        )
    return state, metadata


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
    # a quarter faster on a CPU (measured with both systems), and what a GPU's mixed precision wants
    return PneumothoraxNet(network, task or metadata["task"]).to(memory_format=torch.channels_last)


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
    net.load_state_dict({**own, **state})
    return new


# --- ImageNet --------------------------------------------------------------------------------------


def load_imagenet(net: PneumothoraxNet, encoder: str, path: Path) -> tuple[str, list[str]]:
    """Load timm's ImageNet weights into the encoder.

    Returns:
        SHA-256 of the tensors that were loaded, and the names of those in the file that were not: the
        classifier's, which a U-Net does not have.

    Raises:
        Refusal: They do not fill the whole encoder, or hold more than it and the classifier.
    """
    state = _read_timm(path)
    own = net.unet.encoder.model.state_dict()
    matched = {_encoder_name(name, own): tensor for name, tensor in state.items()}
    missing = [n for n in own if n not in matched or matched[n].shape != own[n].shape]
    left_over = [n for n in matched if n not in own and not n.startswith(_CLASSIFIER_PARTS)]
    if missing or left_over:
        raise Refusal(
            f"{shown(path)} does not hold the weights of {encoder}",
            matched=f"{len(own) - len(missing)} of {len(own)} tensors",
            missing=", ".join(missing[:8]) + (" ..." if len(missing) > 8 else "") or "nothing",
            left_over=", ".join(left_over[:8]) + (" ..." if len(left_over) > 8 else "") or "nothing",
        )
    chosen = {name: matched[name] for name in own}
    net.unet.encoder.model.load_state_dict(chosen)
    return tensors_digest(chosen), [name for name in matched if name not in own]


def _encoder_name(name: str, own: State) -> str:
    """timm's name of a tensor -> the name in a feature extractor, which flattens `stages.0` to `stages_0`."""
    flat = name.replace("stages.", "stages_", 1) if name.startswith("stages.") else name
    return flat if flat in own else name


def _read_timm(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own errors for a damaged file
        raise Refusal(f"{shown(path)} cannot be read as weights", found=type(error).__name__) from None
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise Refusal(f"{shown(path)} holds no weights")
    return state


def find_imagenet(encoder: str, location: str | None) -> Path:
    """Where the ImageNet weights of an encoder lie.

    Args:
        encoder: timm's name.
        location: A file or a folder; None: `data/imagenet` of the workspace, else timm's hub, which has a
            few seconds for its first answer.

    Raises:
        Refusal: They lie nowhere and the hub cannot be reached: which file to fetch, and where to put it.
    """
    folder = Path(location).expanduser() if location else workspace() / "data" / "imagenet"
    if folder.is_file():
        return folder
    bare = encoder.split(".")[0]
    for name in (encoder, bare):
        for ending in (".safetensors", ".pth", ".pt", ".bin"):
            if (folder / f"{name}{ending}").is_file():
                return folder / f"{name}{ending}"
    repository = f"timm/{encoder}"
    url = hf_hub_url(repository, _HUB_FILE)
    target = shown(folder / f"{encoder}.safetensors")
    help_lines = {
        "do": f"on a machine with internet, fetch {url}",
        "put_it": f"here as {target} (or anywhere, and name it: --imagenet FILE)",
    }
    if location:
        raise Refusal(f"no ImageNet weights of {encoder} in {shown(folder)}", **help_lines)
    cached = try_to_load_from_cache(repository, _HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    problem = (
        "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _in_time(lambda: _ask(url), _FIRST_ANSWER)
    )
    if problem:
        raise Refusal(
            f"the ImageNet weights of {encoder} are not here, and timm's hub cannot be reached",
            found=problem,
            **help_lines,
        )
    print(f"Fetching the ImageNet weights of {encoder} from timm's hub")
    try:
        return Path(hf_hub_download(repository, _HUB_FILE))
    except Exception as error:  # whatever the network does
        raise Refusal(
            f"the ImageNet weights of {encoder} could not be fetched",
            found=type(error).__name__,
            **help_lines,
        ) from None


def _ask(url: str) -> str | None:
    """Ask the hub for the file's header once; the problem, or None."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_FIRST_ANSWER):
            return None
    except urllib.error.HTTPError as error:
        return f"the hub answered {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _in_time(ask: Callable[[], str | None], seconds: float) -> str | None:
    """Call `ask`, but for so long only: looking a name up has no time limit of its own."""
    answer = ["no answer"]

    def call() -> None:
        answer[0] = ask()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0]


def network_facts(network: Network) -> dict[str, Any]:
    """A network as metadata holds it."""
    return asdict(network) | {"decoder_channels": list(network.decoder_channels)}


def parameters(net: torch.nn.Module) -> int:
    """Number of trainable numbers."""
    return int(np.sum([p.numel() for p in net.parameters() if p.requires_grad]))
