#!/usr/bin/env bash
# torch 2.14.1 writes an ONNX file of a fixed number of films although a dynamic one is asked for, and says that all went
# well. One would guess that torch.onnx.export(dynamo=True) with dynamic_shapes either keeps that dimension open or fails,
# as torch.export.export does with the same module and the same dynamic_shapes ("Constraints violated"). It falls back to
# an export without them: where the module turns the batch into a number (here by len(film), which looks like
# film.shape[0]), the file takes exactly as many films as the example had. No error, no warning; with verbose=True four
# lines end in a tick. It is noticed when onnxruntime refuses the first other batch.
#
#   bash findings/torch_onnx_fixes_the_batch.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
import warnings

import numpy as np
import onnxruntime
import torch


class ByLength(torch.nn.Module):
    def forward(self, film):
        return film.view(len(film), -1).mean(dim=1)


class ByShape(torch.nn.Module):
    def forward(self, film):
        return film.view(film.shape[0], -1).mean(dim=1)


films, shapes = (torch.rand(3, 1, 4, 4),), ({0: torch.export.Dim("films", min=1, max=64)},)
outcomes = {}
for module in (ByLength().eval(), ByShape().eval()):
    name = type(module).__name__
    try:
        torch.export.export(module, films, dynamic_shapes=shapes)
        alone = "exported"
    except Exception as error:
        alone = f"raised {type(error).__name__}"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        program = torch.onnx.export(module, films, dynamo=True, dynamic_shapes=shapes, input_names=["film"], verbose=False)
    about = [str(each.message) for each in heard if "dynamic" in str(each.message).lower()]
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    try:
        session.run(None, {"film": np.zeros((2, 1, 4, 4), np.float32)})
        two = "computed"
    except Exception as error:
        two = f"refused ({type(error).__name__})"
    outcomes[name] = (alone, session.get_inputs()[0].shape[0], len(about), two)
    print(name, "torch.export:", alone, "| ONNX batch:", session.get_inputs()[0].shape[0], "| warnings:", len(about), "| two films:", two)
if outcomes["ByLength"] != ("raised UserError", 3, 0, "refused (InvalidArgument)"):
    sys.exit("changed")
if outcomes["ByShape"][0] != "exported" or outcomes["ByShape"][3] != "computed":
    sys.exit("changed")
print("as seen: the batch is fixed without a word")
PYTHON
