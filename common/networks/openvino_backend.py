"""The folds of a stage compiled by OpenVINO: the same predictions on a processor, in less time.

Optional: `pip install openvino`. It computes in float32; bfloat16 would be twice as fast again, but moves
probabilities by more than 0.01.

    nets = [accelerate(nets, 512)]  # then as before, by `Predictor`
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from common.networks.flip import TrainedNet
from common.refusal import Refusal


class AcceleratedNets(nn.Module):
    """The halves that predict of all folds' networks, as one: it takes the place of them all.

    It has only `classify` of classification networks, and only `forward` of segmentation networks. It holds
    no parameters, and knows no difference between training and evaluation.

    Args:
        compiled: Compiled model of (1, 1, image_size, image_size) float32 films, 0-1, with an output a fold.
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
            # Shared, not copied: OpenVINO then takes the memory as one piece.
            self._request.infer([np.ascontiguousarray(film)], share_inputs=True)
            outputs = [self._request.get_output_tensor(fold).data for fold in range(self._folds)]
            found.append(torch.from_numpy(np.concatenate(outputs, axis=1)))  # a copy: outputs are overwritten
        return torch.cat(found)

    def _refuse_other(self, task: str) -> None:
        if self.task != task:
            raise TypeError(f"only the half of {self.task} networks that their task needs was compiled")


def accelerate(nets: Iterable[TrainedNet], image_size: int) -> AcceleratedNets:
    """Compile the folds of a stage for this processor, for films one at a time.

    As one model, so that they share the memory in which they compute. It uses as many threads as torch does
    now.

    Args:
        nets: Networks of one task, in eval mode, with BatchNorm fused, on the CPU. They may come one by one:
            their weights are taken out of them, and they are of no use afterwards.
        image_size: Working size in pixels.

    Raises:
        Refusal: OpenVINO is not installed.
    """
    openvino = _openvino()
    core = openvino.Core()
    core.set_property("CPU", _settings())
    models = []
    for net in nets:
        task = net.task
        models.append(_converted(net, image_size, openvino))
        _empty(net)
    with _signal_stack_kept():
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


class _SignalStack(ctypes.Structure):
    """`stack_t` of signal.h."""

    _fields_: ClassVar = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Give the thread back the stack that its signal handlers run on (Linux).

    OpenVINO (2026.4.1) puts a smaller one of its own in its place, and when several compiled models are gone
    again it may leave one that is freed: the next signal then ends the process without a word.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    own, swap = _SignalStack(), ctypes.CDLL(None).sigaltstack
    swap(None, ctypes.byref(own))
    try:
        yield
    finally:
        swap(ctypes.byref(own), None)


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

    def __init__(self, net: TrainedNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, film: torch.Tensor) -> torch.Tensor:
        if self.net.task == "cls":
            return self.net.classify(film)[:, None]
        return self.net(film)[0]


def _converted(net: TrainedNet, image_size: int, openvino: ModuleType) -> Any:
    film = torch.zeros(1, 1, image_size, image_size)
    with torch.no_grad():
        exported = torch.export.export(_Half(net).eval(), (film,), strict=False)
    return openvino.convert_model(exported, input=[list(film.shape)])


def _joined(models: list[Any], openvino: ModuleType) -> Any:
    """One model of one film, with the output of each."""
    for model in models[1:]:
        # All folds read the first one's film: it is handed over once.
        for target in model.input(0).get_target_inputs():
            target.replace_source_output(models[0].input(0))
    found = [model.get_results()[0].input_value(0) for model in models]
    return openvino.Model([openvino.opset13.result(each) for each in found], models[0].get_parameters())


def _empty(net: TrainedNet) -> None:
    """Give the memory of a network's weights back, whoever still holds the network."""
    for name, _ in list(net.named_children()):
        delattr(net, name)
    gc.collect()  # modules and what was exported of them refer to each other
