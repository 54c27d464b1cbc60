"""What every network here is trained on and with: digits, Adam, a few epochs, seconds."""

import torch
import torch.nn.functional as F
from tests.fixtures.digits_split import Split, digits_split
from torch import nn


def held_out(images: int = 50) -> Split:
    _, test = digits_split()
    return Split(test.x[:images], test.y[:images])


def fit(network: nn.Module, *, epochs: int = 12, rate: float = 3e-3, batch: int = 64) -> nn.Module:
    """Trains with the cross-entropy of what `network` returns; the same weights every time."""
    data, _ = digits_split()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(data.x), generator=generator).split(batch):
            returned = network(data.x[index])
            loss = F.cross_entropy(getattr(returned, "logits", returned), data.y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


def mlp(hidden: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def trained_mlp() -> nn.Sequential:
    network = mlp()
    fit(network)
    return network
