#!/usr/bin/env bash
# sinabs 3.1.3, torch 2.13.0.
# Guess: a spiking layer whose batch size changes begins anew, or refuses.
# Seen: it fills the new batch with rows of the old state, drawn from torch's global generator. So after a batch of
# other images an image's answer depends on those images and on the global seed, in evaluation mode and with one input.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 matplotlib==3.11.2 h5py==3.16.0 pbr==7.1.3 "setuptools<81"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps sinabs==3.1.3 nir==1.0.8 nirtorch==2.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import copy

import torch
from sinabs.layers import LIF

torch.manual_seed(0)
layer = LIF(tau_mem=10.0, spike_threshold=1.0).eval()
with torch.no_grad():
    layer(torch.rand(4, 8, 3))  # four images, eight steps, three neurons
    after = set()
    for seed in range(8):
        again = copy.deepcopy(layer)
        torch.manual_seed(seed)
        again(torch.zeros(1, 1, 3))  # one image of nothing, one step
        after.add(tuple(round(v, 4) for v in again.v_mem.flatten().tolist()))
    decayed = {tuple(round(v, 4) for v in row) for row in (layer.v_mem * layer.alpha_mem_calculated).tolist()}
print(f"one image of zeros under eight seeds leaves {len(after)} different states: {sorted(after)}")
print(f"all of them decayed rows of the four images before: {after <= decayed}")
assert 1 < len(after) <= 4
assert after <= decayed
PYTHON
