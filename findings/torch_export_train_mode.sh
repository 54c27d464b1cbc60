#!/usr/bin/env bash
# torch 2.13.0.
# Guess: the module of a program that was exported from a network in evaluation mode has no part in train mode, so that
# a tool which asks every part's `training` finds nothing.
# Seen: it and every part of it, those that hold batch normalisation's running statistics among them, say
# `training = True`, while the program computes what the network does in evaluation mode. `eval()` on it raises.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)).eval()
x = torch.rand(4, 1, 8, 8)
exported = torch.export.export(network, (x,)).module()
training = sorted(name for name, part in exported.named_modules() if part.training)
print("parts in train mode:", training)
print("answers as the network in evaluation mode:", torch.allclose(exported(x), network(x), atol=1e-6))
try:
    exported.eval()
    switched = "works"
except NotImplementedError:
    switched = "raises NotImplementedError"
print("eval():", switched)
assert training and all(part.training for part in exported.modules()), training
assert torch.allclose(exported(x), network(x), atol=1e-6)
assert switched == "raises NotImplementedError"
PYTHON
