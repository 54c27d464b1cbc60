#!/usr/bin/env bash
# spikingjelly 2.0.0, torch 2.13.0.
# Guess: a neuron without `reset_net` goes on from the voltage of the call before, or refuses another batch size.
# Seen: for a batch of the same size it goes on, for another size it silently begins at rest. So the same image gets
# another answer by whether the batch before had as many images, which a data set's last, smaller batch has not.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 matplotlib==3.11.2 tqdm==4.70.1 tensorboard==2.21.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check einops==0.8.2 psutil==7.2.2 requests==2.34.2 loguru==0.7.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps spikingjelly==2.0.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from spikingjelly.activation_based import neuron

layer = neuron.LIFNode(tau=2.0, v_threshold=10.0).eval()
voltages = []
with torch.no_grad():
    for images in (4, 4, 2, 4):
        layer(torch.ones(images, 3))
        voltages.append(float(layer.v[0, 0]))
        print(f"batch of {images} ones: voltage {voltages[-1]}")
assert voltages == [0.5, 0.75, 0.5, 0.5], "went on only where the size stayed the same"
PYTHON
