"""Gives a network another read-out: its last linear layer answers a question of ours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..classifier import Classifier, Network
from ..randomness import Streams
from ..types import Outputs

Features = Float[Tensor, "batch features"]


def last_linear(
    classifier: Classifier, x: Tensor, *, generator: torch.Generator | Streams
) -> nn.Linear | None:
    """The linear layer that runs last and makes the logits, on any module; None where there is no such layer.

    **Cost**: one forward of `x`.
    """
    network = classifier.network
    if not isinstance(network, nn.Module):
        return None
    calls: list[tuple[nn.Linear, Tensor]] = []

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        calls.append((module, output))

    hooks = [m.register_forward_hook(record) for m in network.modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad():
            logits = classifier(x, generator=generator).logits
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[-1][1].shape != logits.shape:
        return None
    return calls[-1][0]


class Inside(nn.Module):
    """A network whose output is what goes into `layer` and what comes out of it, side by side.

    Without a layer, the logits stand for both. Where the layer runs several times in a pass, the mean over
    its runs.
    """

    def __init__(self, network: Network, layer: nn.Linear | None):
        super().__init__()
        self.network = network
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if self.layer is None:
            logits = _logits(self.network(x))
            return torch.cat([logits, logits], 1)
        seen: list[Tensor] = []
        hook = self.layer.register_forward_hook(
            lambda _, args, output: seen.append(torch.cat([args[0], output], 1))
        )
        try:
            self.network(x)
        finally:
            hook.remove()
        return torch.stack(seen).mean(0)


@dataclass(frozen=True)
class ReadOut:
    """A linear question about features, answered with a positive number for the planted point.

    The answer is `gain * ((features - centre) @ weight - threshold)`.

    **Fields**
    - `gain`: brings the answer to the scale of the logits that it replaces.
    - `classes`: how many logits to return; the first two carry the answer, the others never win.
    """

    weight: Float[Tensor, " features"]
    centre: Float[Tensor, " features"]
    threshold: float
    gain: float
    classes: int

    def __call__(self, features: Features) -> Float[Tensor, "batch classes"]:
        answer = self.gain * ((features - self.centre) @ self.weight.to(features.dtype) - self.threshold)
        pair = torch.stack([-answer / 2, answer / 2], 1)
        # One unit of logits below the loser, so that losses that rank classes (DLR) stay defined.
        others = (pair.detach().amin(1) - 1)[:, None].expand(-1, self.classes - 2)
        return torch.cat([pair, others], 1)


class Replanted(nn.Module):
    """The network with `readout` in the place of `layer`, or behind the logits where there is no layer."""

    def __init__(self, network: Network, layer: nn.Linear | None, readout: ReadOut):
        super().__init__()
        self.network = network
        self.layer = layer
        self.readout = readout

    def forward(self, x: Tensor) -> Tensor:
        if self.layer is None:
            return self.readout(_logits(self.network(x)))
        hook = self.layer.register_forward_hook(lambda _, args, output: self.readout(args[0]))
        try:
            return _logits(self.network(x))
        finally:
            hook.remove()


def _logits(returned: object) -> Tensor:
    outputs = Outputs.of(returned)
    assert outputs is not None, "it ran before, and was read"
    return outputs.logits


def separate(
    inner: Features, planted: Float[Tensor, " features"], *, ridge: float = 1e-3
) -> Float[Tensor, " features"]:
    """Direction that tells one point from a cloud best.

    Fisher's discriminant, the cloud's inverse covariance times the difference of means, in float64, with a
    ridge of `ridge` times the mean variance, solved in the space of the points, since there are usually fewer
    points than features.

    >>> cloud = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> w = separate(cloud, torch.tensor([1.0, 1.0]))
    >>> bool(w[1] > 100 * w[0])  # the cloud does not vary in the second feature
    True
    """
    inner, planted = inner.double(), planted.double()
    centre = inner.mean(0)
    spread, difference = inner - centre, planted - centre
    count = len(inner)
    penalty = ridge * spread.square().mean().clamp_min(1e-30)
    # (S'S/n + r)^-1 d = (d - S' (S S' + n r)^-1 S d) / r
    gram = spread @ spread.T + count * penalty * torch.eye(count, dtype=spread.dtype, device=spread.device)
    return (difference - spread.T @ torch.linalg.solve(gram, spread @ difference)) / penalty
