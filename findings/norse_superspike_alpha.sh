#!/usr/bin/env bash
# norse 1.1.0, torch 2.13.0.
# Guess: `alpha` of `LIFParameters` sets how narrow the surrogate gradient of `method="super"`, the default, is, as its
# documentation says: 1 / (1 + alpha |v|)^2, by default with alpha 100.
# Seen: the gradient is 1 / (1 + |v|)^2 for every alpha, a hundred times wider than the default states.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 h5py==3.16.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps norse==1.1.0 nir==1.0.8 nirtorch==2.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from norse.torch import LIFCell, LIFParameters
from norse.torch.functional.threshold import threshold

v = torch.tensor([-0.5, -0.1, 0.1, 0.5], requires_grad=True)
stated = {a: 1 / (1 + a * v.detach().abs()) ** 2 for a in (1.0, 100.0)}
for alpha in (1.0, 100.0):
    (seen,) = torch.autograd.grad(threshold(v, "super", torch.tensor(alpha)).sum(), v)
    print(f"alpha {alpha}: slopes {seen.tolist()}, stated {stated[alpha].tolist()}")
    assert torch.allclose(seen, stated[1.0])
x = torch.full((1, 4), 20.0, requires_grad=True)
slopes = []
for alpha in (1.0, 100.0):
    cell = LIFCell(LIFParameters(alpha=torch.tensor(alpha)))
    spikes, state = cell(x)
    spikes, state = cell(x, state)
    slopes.append(torch.autograd.grad(spikes.sum(), x)[0])
assert torch.equal(*slopes), "of a whole cell, too"
PYTHON
