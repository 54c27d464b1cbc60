#!/usr/bin/env bash
# torch 2.13.0.
# Guess: evaluation mode makes what torch's own layers draw at random stand still, as it does for dropout and RReLU.
# Seen: `FractionalMaxPool2d` draws where its windows lie in evaluation mode, too, anew for each image and each call, from
# the global generator; nothing in `training` tells. A network with it is a random network, so that one call's answer
# about a point of an attack is a draw. A module exported in evaluation mode goes on drawing.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
x = torch.rand(1, 3, 16, 16).repeat(64, 1, 1, 1)
layers = {
    "Dropout": nn.Dropout(0.5),
    "RReLU": nn.RReLU(),
    "FractionalMaxPool2d": nn.FractionalMaxPool2d(2, output_ratio=0.6),
}
still = {}
for name, layer in layers.items():
    layer.eval()
    calls, rows = torch.equal(layer(x - 0.5), layer(x - 0.5)), layer(x - 0.5)
    still[name] = calls, torch.equal(rows, rows[:1].expand_as(rows))
    print(f"{name} in evaluation mode: two calls agree: {calls}, rows of one image agree: {still[name][1]}")
network = nn.Sequential(layers["FractionalMaxPool2d"], nn.Flatten(), nn.Linear(243, 10)).eval()
images = torch.rand(64, 3, 16, 16)
with torch.no_grad():
    network[2].bias -= network(images).mean(0)  # no class is ahead on average
changed = int((network(images).argmax(1) != network(images).argmax(1)).sum())
print(f"labels of {changed} of 64 images change from one call to the next")
exported = torch.export.export(network, (images,)).module()
print("exported, two calls agree:", torch.equal(exported(images), exported(images)))
assert still == {"Dropout": (True, True), "RReLU": (True, True), "FractionalMaxPool2d": (False, False)}, still
assert changed > 3
assert not torch.equal(exported(images), exported(images))
PYTHON
