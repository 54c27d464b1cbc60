#!/usr/bin/env bash
# adversarial-robustness-toolbox 1.20.1 beside torch 2.13.0.
# Guess: CarliniL0Method changes fewer pixels than CarliniL2Method does, for it fixes pixels one after the other until
# the attack fails.
# Seen: on images it changes as many pixels as CarliniL2Method does. It goes at most as many rounds as its input's second
# axis is long, plus one, and fixes one value a round: on images that axis counts channels. What is reported as a
# distance in L0 is that of an attack which hardly minimised it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 \
    six==1.17.0 tqdm==4.70.1 packaging==26.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps adversarial-robustness-toolbox==1.20.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging

import torch
from art.attacks.evasion import CarliniL0Method, CarliniL2Method
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn

logging.disable(logging.CRITICAL)
torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
y = torch.tensor(digits.target)
network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(8):
    for rows in torch.randperm(len(x)).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
        optimiser.step()
classifier = PyTorchClassifier(
    network.eval(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
)
images, labels = x[:3], y[:3]
changed = {}
for attack in (CarliniL2Method, CarliniL0Method):
    points = attack(classifier, max_iter=10, verbose=False).generate(images.numpy().copy(), labels.numpy())
    points = torch.tensor(points)
    changed[attack.__name__] = ((points - images).abs() > 1e-6).flatten(1).sum(1).tolist()
    broken = int((network(points).argmax(1) != labels).sum())
    print(f"{attack.__name__}: {broken} of 3 broken, pixels changed of 64: {changed[attack.__name__]}")
    assert broken == 3
assert changed["CarliniL0Method"] == changed["CarliniL2Method"]
assert max(changed["CarliniL0Method"]) > 20
PYTHON
