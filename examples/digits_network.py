"""A small classifier of digits, adversarially trained: `unmask audit examples/claim.toml`.

Running this file trains it again (seconds) and writes the weights beside it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unmask import Classifier, Linf
from unmask.attacks import PGD
from unmask.data import load

WEIGHTS = Path(__file__).with_name("digits_network.safetensors")
EPSILON = 0.1


def architecture() -> nn.Sequential:
    """Input `[batch, 1, 8, 8]` in [0, 1], output logits `[batch, 10]`."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def network() -> nn.Module:
    """The trained network, as `unmask audit` calls it."""
    found = architecture()
    found.load_state_dict(load_file(WEIGHTS))
    return found.eval()


def train() -> nn.Sequential:
    """Adversarial training (Madry et al. 2018): every step is taken at the worst point that PGD finds."""
    torch.manual_seed(0)
    data, trained = load("digits", split="train"), architecture()
    attack, threat = PGD(steps=7, rel_step_size=0.3, early_stop=False), Linf(epsilon=EPSILON)
    optimizer = torch.optim.Adam(trained.parameters(), 3e-3)
    for _ in range(60):
        for part in torch.randperm(len(data)).split(128):
            x, y = data.x[part], data.y[part]
            classifier = Classifier(trained, deterministic=True)
            x_adv = attack.run(classifier, x, y, threat, generator=torch.Generator().manual_seed(0))
            optimizer.zero_grad()
            nn.functional.cross_entropy(trained(x_adv), y).backward()
            optimizer.step()
    return trained


if __name__ == "__main__":
    save_file(train().state_dict(), WEIGHTS)
