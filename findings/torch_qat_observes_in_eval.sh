#!/usr/bin/env bash
# torch 2.13.0, torch.ao.quantization, eager quantisation-aware training.
# Guess: in evaluation mode the ranges of a network prepared by `prepare_qat` stand still, as the statistics of batch
# normalisation do.
# Seen: the observers look at every batch in either mode, `no_grad` or not, and move scales and zero points. One image
# with values a few times as large moves the logits of all images that come after, and an attack changes the network
# that it attacks. `disable_observer` holds the ranges still; `eval()` does not.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import copy

import torch
import torch.ao.quantization as quantization
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(quantization.QuantStub(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
network.qconfig = quantization.get_default_qat_qconfig("fbgemm")
prepared = quantization.prepare_qat(network.train())
for _ in range(50):
    prepared(torch.rand(32, 8))
images = torch.rand(64, 8)


def moved(held):
    """Share of the largest logit by which fifty calls with images outside [0, 1] move later answers."""
    asked = copy.deepcopy(prepared).eval()
    if held:
        asked.apply(quantization.disable_observer)
    with torch.no_grad():
        before = asked(images)
        for _ in range(50):
            asked(4 * torch.rand(1, 8) - 1)
        return float((asked(images) - before).abs().max() / before.abs().max())


free, held = moved(held=False), moved(held=True)
print(f"eval(): later logits move by {free:.1%} of the largest; with disable_observer by {held:.1%}")
assert free > 0.02
assert held == 0
PYTHON
