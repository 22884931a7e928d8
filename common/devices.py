"""The devices that the GPU argument names, without asking the machine whether it has them."""

from __future__ import annotations

import re

from common.refusal import Refusal


def devices_named(gpus: str) -> list[str]:
    """The devices that the GPU argument names, one a process: `0` -> [`0`], `0,1`, `cpu`, `cpu,cpu`.

    Raises:
        Refusal: It names no device.
    """
    if not re.fullmatch(r"\d+(,\d+)*|cpu(,cpu)*", gpus):
        raise Refusal(f"'{gpus}' names no GPU", do="give its number (bash train.sh 1), several (0,1), or cpu")
    named = gpus.split(",")
    if "cpu" not in named and len(set(named)) < len(named):
        raise Refusal(f"GPU argument {gpus}: a GPU is named twice")
    return named
