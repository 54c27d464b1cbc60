"""Small maps fitted to pairs of what went in and what came out: a linear one in closed form, a bent one by descent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Rows = Float[Tensor, "points features"]

# Updates and width of the bent part, ours.
STEPS, WIDTH = 600, 64


def regress(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, steps: int, rate: float
) -> float:
    """Fits a network to pairs (input, target), each `[rows, …]`, by Adam on the mean squared error.

    The rate falls by a cosine. Leaves the network in eval mode with frozen parameters; returns the error of the last
    batch.
    """
    network.train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    error = torch.tensor(torch.nan)
    for _, (x, target) in zip(range(steps), batches, strict=False):
        with torch.enable_grad():
            error = F.mse_loss(network(x), target)
            optimiser.zero_grad()
            error.backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)
    return float(error.detach())


class BentMap(nn.Module):
    """A linear map, fitted in closed form, and a bent correction to it, fitted by gradient descent where that helps.

    **Arguments**
    - `shape_in`, `shape_out`: of one example, without the batch.
    - `weight`, `offset`: the linear map on flattened examples.
    """

    def __init__(
        self,
        shape_in: torch.Size,
        shape_out: torch.Size,
        weight: Float[Tensor, "features results"],
        offset: Float[Tensor, " results"],
    ):
        super().__init__()
        self.shape_in, self.shape_out = shape_in, shape_out
        self.weight, self.offset = weight, offset
        self.bent: nn.Module | None = None
        self.center, self.spread = torch.zeros_like(weight[:, 0]), torch.ones_like(weight[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """One example `shape_in`, or a batch of them, to `shape_out`."""
        single = x.shape == self.shape_in
        flat = x.reshape(1 if single else len(x), -1).to(self.weight.dtype)
        made = flat @ self.weight + self.offset
        if self.bent is not None:
            made = made + self.bent((flat - self.center) / self.spread)
        return made.reshape(self.shape_out if single else (len(x), *self.shape_out))


def linear_regression(x: Rows, y: Rows) -> tuple[Tensor, Tensor]:
    """Weight `[inputs, outputs]` and bias `[outputs]` of a ridge regression in closed form.

    The ridge is a thousandth of a percent of the mean variance.
    """
    mean_x, mean_y = x.double().mean(0), y.double().mean(0)
    a, b = x.double() - mean_x, y.double() - mean_y
    ridge = 1e-5 * a.square().sum() / min(a.shape)
    if len(a) < a.shape[1]:
        gram = a @ a.T
        weight = a.T @ torch.linalg.solve(gram + ridge * torch.eye(len(a)).to(gram), b)
    else:
        gram = a.T @ a
        weight = torch.linalg.solve(gram + ridge * torch.eye(a.shape[1]).to(gram), a.T @ b)
    return weight.float(), (mean_y - mean_x @ weight).float()


def bend(linear: BentMap, x: Tensor, y: Tensor) -> BentMap:
    """What the linear map misses, learnt by a network of one hidden layer."""
    bent = BentMap(linear.shape_in, linear.shape_out, linear.weight, linear.offset)
    with torch.no_grad():
        missed = (y - linear(x)).flatten(1)
    bent.center, bent.spread = x.flatten(1).mean(0), x.flatten(1).std(0).clamp_min(1e-3)
    flat, size = (x.flatten(1) - bent.center) / bent.spread, missed.std().clamp_min(1e-12)
    # Smooth, for its slopes are what it is wanted for.
    layers = nn.Sequential(nn.Linear(flat.shape[1], WIDTH), nn.SiLU(), nn.Linear(WIDTH, missed.shape[1]))
    layers.to(x.device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            some = torch.randint(len(flat), (128,), device=x.device)
            yield flat[some], missed[some] / size

    regress(layers, batches(), steps=STEPS, rate=1e-2)
    with torch.no_grad():
        layers[2].weight.mul_(size)  # type: ignore[union-attr]
        layers[2].bias.mul_(size)  # type: ignore[union-attr]
    bent.bent = layers
    return bent
