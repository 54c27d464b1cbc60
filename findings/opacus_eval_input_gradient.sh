#!/usr/bin/env bash
# opacus 1.6.0 beside torch 2.13.0.
# Guess: a network that was trained privately and put into evaluation mode, `GradSampleModule.eval()`, hands out the
# gradient with respect to its input as the network inside does.
# Seen: it raises, "No activations detected" or, after training, "pop from empty list", for activations are kept in
# training mode only while the backward hook looks for them in both modes. After `disable_hooks()` the gradient is
# there and equals the inner network's. An attack on the wrapper that swallows the error sees no gradient at all.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 opt_einsum==3.4.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps opacus==1.6.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from opacus import GradSampleModule
from torch import nn

torch.manual_seed(0)
inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
wrapped = GradSampleModule(inner)
x = torch.rand(4, 8, requires_grad=True)


def gradient():
    try:
        (found,) = torch.autograd.grad(wrapped(x).sum(), x)
    except (IndexError, ValueError) as error:
        return f"raises {type(error).__name__}"
    return f"shape {tuple(found.shape)}"


wrapped.eval()
seen = {"evaluation": gradient()}
wrapped.train()
seen["training"] = gradient()
wrapped.eval()
seen["evaluation after training"] = gradient()
wrapped.disable_hooks()
seen["evaluation, hooks disabled"] = gradient()
expected = {
    "evaluation": "raises ValueError",
    "training": "shape (4, 8)",
    "evaluation after training": "raises IndexError",
    "evaluation, hooks disabled": "shape (4, 8)",
}
for mode, result in seen.items():
    print(f"{mode}: {result}")
assert seen == expected, expected
(through,), (alone,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (wrapped, inner))
assert torch.equal(through, alone)
PYTHON
