"""ImageNet's weights -> encoder: where they lie, or how to fetch them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file

from common.networks.unet import PneumothoraxNet
from common.networks.weights import State, tensors_digest
from common.paths import shown, workspace
from common.refusal import Refusal

_HUB_FILE = "model.safetensors"
_FIRST_ANSWER = 4.0  # seconds the hub has for its first answer
# Parts of an ImageNet classifier that a U-Net's encoder does not have
_CLASSIFIER_PARTS = ("classifier.", "head.", "conv_head.", "bn2.", "norm_head.")


def load_imagenet(net: PneumothoraxNet, encoder: str, path: Path) -> tuple[str, list[str]]:
    """Load timm's ImageNet weights into the encoder.

    Returns:
        SHA-256 of the tensors that were loaded, and the names of those in the file that were not: the
        classifier's, which a U-Net does not have.

    Raises:
        Refusal: The weights do not fill the whole encoder, or hold more than it and the classifier.
    """
    state = _read_timm(path)
    own = net.unet.encoder.model.state_dict()
    matched = {_encoder_name(name, own): tensor for name, tensor in state.items()}
    # Counted, not loaded with `strict=False`: of other names for the same tensors it would say nothing.
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
        encoder: timm's model name.
        location: A file or a folder; None: `data/imagenet` of the workspace, else timm's hub, which has a
            few seconds for its first answer.

    Raises:
        Refusal: The weights lie nowhere and the hub cannot be reached; it names the file and its place.
    """
    folder = Path(location).expanduser() if location else workspace() / "data" / "imagenet"
    if folder.is_file():
        return folder
    # timm's earlier names have no tag after a point, and files are often kept under them.
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
    # A place that was named is meant: nothing is fetched in its stead.
    if location:
        raise Refusal(f"no ImageNet weights of {encoder} in {shown(folder)}", **help_lines)
    cached = try_to_load_from_cache(repository, _HUB_FILE)
    if isinstance(cached, str):  # else None, or a mark that the hub has no such file
        return Path(cached)
    if problem := _in_time(lambda: _ask(url), _FIRST_ANSWER):
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


def find_all_imagenet(encoders: Mapping[str, str], location: str | None) -> dict[str, Path]:
    """Where the ImageNet weights of each system's encoder lie.

    Args:
        encoders: timm's model name of each system.
        location: As for `find_imagenet`.

    Raises:
        Refusal: Those of some lie nowhere; all are named at once, for they are fetched on another machine.
    """
    found: dict[str, Path] = {}
    missing: list[Refusal] = []
    for system, encoder in encoders.items():
        try:
            found[system] = find_imagenet(encoder, location)
        except Refusal as refusal:
            missing.append(refusal)
    if len(missing) > 1:
        each = [[str(refusal.details[key]) for refusal in missing] for key in ("do", "put_it")]
        do, put_it = ("\n           and ".join(lines) for lines in each)
        raise Refusal("\n  ".join(refusal.what for refusal in missing), do=do, put_it=put_it)
    if missing:
        raise missing[0]
    return found


def _ask(url: str) -> str | None:
    """Ask the hub about the file once; the problem, or None.

    `hf_hub_download` by itself asks five times with growing pauses (huggingface_hub 2.4: 23 s where a
    connection is refused) before it says that there is no network, as in many hospitals.
    """
    try:
        get_hf_file_metadata(url, timeout=_FIRST_ANSWER)
    except Exception as error:  # of the hub, of its client, of the socket: each version has others
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def _in_time(ask: Callable[[], str | None], seconds: float) -> str | None:
    """Call `ask`, but for so long only: looking a name up has no time limit of its own."""
    answer: list[str | None] = ["no answer"]

    def call() -> None:
        answer[0] = ask()

    thread = threading.Thread(target=call, daemon=True)  # or a hanging look-up would keep us from ending
    thread.start()
    thread.join(seconds)
    return answer[0]
