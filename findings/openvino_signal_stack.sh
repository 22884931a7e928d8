#!/usr/bin/env bash
# OpenVINO 2026.4.1 changes how the calling thread takes signals (Linux): `compile_model` on the CPU puts an
# alternate signal stack of its own in the place of the one that was there, here of Python's faulthandler,
# and a smaller one. A library that compiles a network is not expected to touch this: whoever needs that stack
# has to set it again afterwards.
#
#   bash findings/openvino_signal_stack.sh   installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.2.6
"$python" - <<'PYTHON' | tee "$folder/seen"
import ctypes
import faulthandler

import numpy as np
import openvino as ov
from openvino import opset13 as op


class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def stack():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.start, found.size


faulthandler.enable()
film = op.parameter([1, 3, 32, 32], np.float32)
weights = op.constant(np.ones((8, 3, 3, 3), np.float32))
model = ov.Model([op.convolution(film, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [film])
before = stack()
compiled = ov.Core().compile_model(model, "CPU")
print("the thread's own stack afterwards:", stack() == before)
print("the new one is smaller:", stack()[1] < before[1])
PYTHON
expected="the thread's own stack afterwards: False
the new one is smaller: True"
[ "$(cat "$folder/seen")" = "$expected" ] || { echo "changed"; exit 1; }
echo "as seen: OpenVINO's compile_model replaces the thread's alternate signal stack"
