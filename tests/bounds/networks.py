"""Small random networks of every kind that bounds support."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Two branches that meet; the shortcut drops every other pixel and pads channels, as ResNet-20's option A."""

    def __init__(self, act: type[nn.Module], projection: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1)
        self.act = act()
        self.shortcut = nn.Conv2d(2, 4, 1, 2) if projection else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.act(self.norm(self.conv1(x))))
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) if self.shortcut is None else self.shortcut(x)
        return F.relu(x + y)


class Normalize(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / 0.4


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 2 - self.out(x.mean((2, 3)).view(x.size(0), -1))


class Joined(nn.Module):
    """Two branches side by side, one of them twice, by every name that joins."""

    def __init__(self, act: type[nn.Module]):
        super().__init__()
        self.left, self.right, self.act = nn.Linear(72, 4), nn.Linear(72, 4), act()
        self.out = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        a, b = self.left(x), self.act(self.right(x))
        c = torch.stack([a, b], dim=-1).flatten(1)  # interleaved
        joined = torch.cat([torch.hstack((a, b)), self.act(c), torch.concat([b, b], -1)], dim=1)
        return self.out(joined)


def mlp(act: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 8), act(), nn.Linear(8, 6), act(), nn.Linear(6, 3))


def cnn(act: type[nn.Module], pool: nn.Module) -> nn.Module:
    return nn.Sequential(Normalize(), nn.Conv2d(2, 4, 3), act(), pool, nn.Conv2d(4, 4, 2), act(), Head())


def residual(act: type[nn.Module], projection: bool) -> nn.Module:
    return nn.Sequential(Normalize(), Residual(act, projection), nn.Dropout(0.5), Head())


BUILDERS = {
    "mlp_relu": lambda: mlp(nn.ReLU),
    "mlp_sigmoid": lambda: mlp(nn.Sigmoid),
    "mlp_tanh": lambda: mlp(nn.Tanh),
    "cnn_relu_avg": lambda: cnn(nn.ReLU, nn.AvgPool2d(2)),
    "cnn_relu_max": lambda: cnn(nn.ReLU, nn.MaxPool2d(2)),
    "cnn_tanh_overlapping_max": lambda: cnn(nn.Tanh, nn.MaxPool2d(3, 1, 1)),
    "residual_relu": lambda: residual(nn.ReLU, True),
    "joined_relu": lambda: Joined(nn.ReLU),
    "joined_tanh": lambda: Joined(nn.Tanh),
    "residual_sigmoid": lambda: residual(nn.Sigmoid, False),
}


def random_network(kind: str, seed: int, gain: float = 2.0) -> nn.Module:
    """A network in eval mode on `[2, 6, 6]` images with 3 classes; `gain` widens the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BUILDERS[kind]()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.weight.data.normal_()
                module.bias.data.normal_()
        for parameter in network.parameters():
            parameter.data.mul_(gain)
    return network.eval().requires_grad_(False)


def planar_networks() -> Iterator[tuple[nn.Module, Tensor, Tensor, Tensor]]:
    """Networks of two pixels whose ReLUs cut the square into many pieces, for brute force.

    With each an image, its class, and those points of a fine grid (float64) that are of another class.
    """
    side = torch.linspace(0, 1, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)[:, None, None]
    for seed in range(6):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Flatten(), nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)
            )
        network.requires_grad_(False)
        network[1].weight.mul_(4)
        network[1].bias.sub_(network[1].weight.sum(1) * 0.5)
        x = torch.rand(1, 1, 1, 2, generator=torch.Generator().manual_seed(seed))
        y = network(x).argmax(1)
        wrong = grid[network.double()(grid).argmax(1) != y]
        network.float()
        yield network, x, y, wrong


def needle(dims: int) -> nn.Module:
    """Class 1 wins beyond 0.1067 along one diagonal alone; at the middle of the image the slope leads the other way."""
    diagonal = torch.tensor([1.0, -1.0]).repeat(dims // 2) / dims
    network = nn.Sequential(nn.Flatten(), nn.Linear(dims, 3), nn.ReLU(), nn.Linear(3, 2)).requires_grad_(
        False
    )
    network[1].weight.copy_(torch.stack([-diagonal, diagonal, diagonal]))
    network[1].bias.copy_(torch.tensor([0.0, 0.0, -0.099]))
    network[3].weight.copy_(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 40.0]]))
    network[3].bias.copy_(torch.tensor([0.2, 0.0]))
    return network
