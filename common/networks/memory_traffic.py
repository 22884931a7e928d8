"""What a network need not read and write on a GPU: copies that change no number."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate

from common.networks.libraries import UnetDecoderBlock


def spare_memory_traffic(unet: nn.Module) -> None:
    """Have a U-Net do without copies, in place. Weights, their names and, on a CPU, every bit stay.

    SiLU in place keeps a copy of its input for the backward pass; out of place it keeps the input itself.
    ReLU keeps its result, and stays as it is.
    """
    for module in unet.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = False
        elif isinstance(module, UnetDecoderBlock):
            module.__class__ = _HalfPrecisionBlock


class _HalfPrecisionBlock(UnetDecoderBlock):
    """Keeps half precision through upsampling and concatenation.

    Autocast computes upsampling in float32, and concatenation in the widest type that it is given. But what
    is only repeated needs no more digits than it has.
    """

    def forward(
        self,
        feature_map: torch.Tensor,
        target_height: int,
        target_width: int,
        skip_connection: torch.Tensor | None = None,
    ) -> torch.Tensor:
        with torch.autocast(feature_map.device.type, enabled=False):
            feature_map = interpolate(
                feature_map, size=(target_height, target_width), mode=self.interpolation_mode
            )
        # transformers have no picture of half the film's side: what stands for it has no channels
        if skip_connection is not None and skip_connection.shape[1]:
            skip_connection = skip_connection.to(feature_map.dtype)  # float32 in transformers
            feature_map = self.attention1(torch.cat([feature_map, skip_connection], dim=1))
        return self.attention2(self.conv2(self.conv1(feature_map)))
