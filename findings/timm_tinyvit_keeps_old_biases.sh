#!/usr/bin/env bash
# timm 1.0.31's TinyViT keeps parts of the weights that it had before. A model in eval mode that has seen one image,
# and is then given other weights by load_state_dict, as for the next fold of an ensemble or the average of the
# weights: one would guess that it computes what they say. Its attention layers cached their biases at the first image
# and go on with those; a fresh model with the same weights gives another answer. After train() and eval() again it is
# right. And the layers' own train() and eval() return None, where a torch module returns itself.
#
#   bash findings/timm_tinyvit_keeps_old_biases.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import timm
import torch

torch.set_num_threads(1)
image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def network(seed):
    torch.manual_seed(seed)
    net = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=2)
    for name, weight in net.named_parameters():
        if name.endswith("attention_biases"):
            torch.nn.init.normal_(weight, std=3)
    return net.eval()


with torch.inference_mode():
    wanted = network(1)
    answer = wanted(image)
    net = network(2)
    net(image)
    net.load_state_dict(wanted.state_dict())
    loaded = (net(image) - answer).abs().max().item()
    net.train()
    net.eval()
    toggled = (net(image) - answer).abs().max().item()
    unseen = network(2)
    unseen.load_state_dict(wanted.state_dict())
    fresh = (unseen(image) - answer).abs().max().item()
attention = next(layer for layer in net.modules() if type(layer).__name__ == "Attention")
print(f"difference after loading {loaded:.3g}, after train() and eval() {toggled:.3g}, in a fresh model {fresh:.3g}")
print("a layer's eval() returns", attention.eval())
if not loaded > 1e-3 or toggled > 1e-6 or fresh > 1e-6 or attention.eval() is not None:
    sys.exit("changed")
print("as seen: the biases are those of the first image")
PYTHON
