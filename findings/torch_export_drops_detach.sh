#!/usr/bin/env bash
# torch 2.13.0, torch.export.
# Guess: `run_decompositions()` writes a program in fewer operators, so that values and gradients stay as they were.
# Seen: values do, gradients do not: `detach` is dropped, and so is `no_grad` around a part of `forward`. Rounding with
# the identity for a gradient, x + (round(x) - x).detach(), then has the gradient zero for every input, and a division
# by a norm that was held still is differentiated through. The program before it keeps both. So one network is
# attacked with two gradients by the way its `.pt2` was written, and both files return the same logits.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import torch
from torch import nn


class Straight(nn.Module):
    def forward(self, x):
        return x + (torch.round(4 * x) / 4 - x).detach()


class Held(nn.Module):
    def forward(self, x):
        with torch.no_grad():
            norm = x.norm(dim=1, keepdim=True)
        return x / norm


def answer_and_gradient(network, x):
    x = x.clone().requires_grad_()
    logits = network(x)
    return logits.detach(), torch.autograd.grad(logits[:, 0].sum(), x)[0]


torch.manual_seed(0)
x = torch.rand(4, 8)
found = {}
for first in (Straight(), Held()):
    name = type(first).__name__
    network = nn.Sequential(first, nn.Linear(8, 3)).eval()
    program = torch.export.export(network, (x,))
    logits, slope = answer_and_gradient(network, x)
    for how, written in (("as exported", program), ("decomposed", program.run_decompositions())):
        again, other = answer_and_gradient(written.module(), x)
        assert torch.allclose(logits, again, atol=1e-6)
        found[name, how] = float((other - slope).norm() / slope.norm()), float(other.norm() / slope.norm())
        moved, left = found[name, how]
        print(f"{name}, {how}: same logits; gradient moved by {moved:.0%} of its norm, which is {left:.0%} of the module's")
assert found["Straight", "as exported"][0] < 1e-5 and found["Held", "as exported"][0] < 1e-5
assert found["Straight", "decomposed"][1] == 0, "the identity has become zero"
assert found["Held", "decomposed"][0] > 0.1
PYTHON
