"""A small classifier of digits behind randomised smoothing, an honest random defence that comes out certified.

    unmask audit examples/smoothed_network.py:network --data digits --norm l2 --epsilon 0.25 --claim 0.8

Running this file trains it again (seconds) and writes the weights beside it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from unmask import Classifier
from unmask.data import load
from unmask.defenses import RandomizedSmoothing

WEIGHTS = Path(__file__).with_name("smoothed_network.safetensors")
SIGMA = 0.25


def architecture() -> nn.Sequential:
    """Input `[batch, 1, 8, 8]` in [0, 1], output logits `[batch, 10]`."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def undefended() -> nn.Module:
    """The network that was trained with noise."""
    model = architecture()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def network() -> Classifier:
    """Votes of 100 noisy copies, with their certificate, as `unmask audit` calls it."""
    smoothing = RandomizedSmoothing(sigma=SIGMA, samples=10_000, passes=100)
    return smoothing.wrap(Classifier(undefended(), deterministic=True))


def train(epochs: int = 150) -> nn.Module:
    """Cross-entropy on noisy copies of the images, fresh ones in every epoch."""
    torch.manual_seed(0)
    data = load("digits", split="train")
    model = architecture()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for part in torch.randperm(len(data.x)).split(64):
            noisy = data.x[part] + SIGMA * torch.randn_like(data.x[part])
            optimiser.zero_grad()
            F.cross_entropy(model(noisy), data.y[part]).backward()
            optimiser.step()
        schedule.step()
    return model.eval()


if __name__ == "__main__":
    save_file(train().state_dict(), WEIGHTS)
