#!/usr/bin/env bash
# torch 2.13.0, dynamic int8 quantisation of linear layers, on the CPU.
# Guess: an int8 network is a staircase, so that input noise of 1e-6 changes most answers not at all.
# Seen: the scale of the activations is computed anew from each input, so noise of 1e-6 in [0, 1] moves the logits of
# most inputs, by some thousandths of their size: thousands of times more than in the float network. A comparison of
# two batch sizes cannot tell this from dependence on the batch; only the same place among other neighbours can.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
int8 = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
x = torch.rand(256, 64)
noisy = x + 1e-6 * (2 * torch.rand(256, 64) - 1)


def moved(network):
    """Largest change over the largest logit, and the share of inputs whose logits changed; one input at a time."""
    with torch.no_grad():
        before, after = (torch.stack([network(v[None])[0] for v in batch]) for batch in (x, noisy))
    change = (before - after).abs().amax(1)
    return float(change.max() / before.abs().max()), float((change > 0).double().mean())


for name, network in (("float32", plain), ("dynamic int8", int8)):
    size, share = moved(network)
    print(f"{name}: noise of 1e-6 moves logits by {size:.1e} of the largest, on {share:.0%} of the inputs")
size, share = moved(int8)
assert 1e-3 < size < 2e-2, size
assert share > 0.5, share
assert moved(plain)[0] < 1e-5
PYTHON
