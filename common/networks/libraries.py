"""timm and segmentation-models-pytorch, loaded without torch's compiler, which nothing here calls.

Both would load it: timm marks functions that the compiler shall leave alone, and torchvision takes a function
of it that our networks do not come to. It is 1,000 modules, as long to load as all the rest of both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch._compile import _disable_dynamo

from common.loading import loading

_TOOLS = "torch._dynamo.utils"


class _Later(ModuleType):
    """In the place of a module whose functions are loaded when they are called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **flags: getattr(import_module(self.__name__), name)(*args, **flags)


@contextmanager
def _compiler_later() -> Iterator[None]:
    """What is loaded meanwhile loads the compiler when it first calls it, as torch's own modules do."""
    if _TOOLS in sys.modules:
        yield
        return
    disable = torch.compiler.disable
    torch.compiler.disable = _disable_dynamo  # type: ignore[assignment] # the same, but later
    sys.modules[_TOOLS] = _Later(_TOOLS)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        del sys.modules[_TOOLS]


with loading(), _compiler_later():
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
    from timm.models.tiny_vit import Attention

__all__ = ["Attention", "UnetDecoderBlock", "smp"]
