#!/usr/bin/env bash
# torchao 0.18.0, torch 2.13.0, on the CPU.
# Guess: an output with `requires_grad=True` has a graph that leads to every input with `requires_grad=True`.
# Seen: weight-only int8 differentiates. Dynamic int8 has `requires_grad=True` and no way back to the input: the
# gradient is None, or an error without `allow_unused`. Beside a skip connection only the skip's gradient arrives, so
# that nothing warns and the gradient is that of the network without its layers.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torchao==0.18.0
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_


class Skip(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return x + self.layers(x)


def gradients(config):
    """Of the layers alone, and of the layers beside a skip connection."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    quantize_(layers, config)
    x = torch.rand(4, 16, requires_grad=True)
    returned = layers(x)
    assert returned.requires_grad
    alone = torch.autograd.grad(returned.sum(), x, allow_unused=True)[0]
    beside = torch.autograd.grad(Skip(layers)(x).sum(), x)[0]
    return alone, beside


alone, beside = gradients(Int8WeightOnlyConfig())
print("weight-only:", alone is not None, "beside a skip all ones:", bool((beside == 1).all()))
assert alone is not None and not (beside == 1).all()
alone, beside = gradients(Int8DynamicActivationInt8WeightConfig())
print("dynamic:", alone is not None, "beside a skip all ones:", bool((beside == 1).all()))
assert alone is None and (beside == 1).all()
PYTHON
