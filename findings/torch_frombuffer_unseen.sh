#!/usr/bin/env bash
# torch 2.13.0.
# Guess: a `TorchFunctionMode` sees every function of torch that makes a tensor.
# Seen: it sees `torch.tensor`, `torch.as_tensor` and `torch.zeros`, and neither `torch.frombuffer` nor
# `torch.from_numpy`, through which values come back from bytes and NumPy.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from torch.overrides import TorchFunctionMode

seen = []


class Watching(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


with Watching():
    torch.tensor([1.0])
    torch.as_tensor(np.zeros(3))
    torch.zeros(3)
    torch.from_numpy(np.zeros(3))
    torch.frombuffer(bytearray(12), dtype=torch.float32)
print("seen:", seen)
assert seen == ["tensor", "as_tensor", "zeros"], seen
PYTHON
