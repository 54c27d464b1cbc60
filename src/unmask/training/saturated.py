"""Saturated networks: a penalty that drives hidden units to where their activation is flat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data import Data
from ..errors import UnusableInput
from ..threat import ThreatModel
from .base import History
from .loop import Loop, Seen
from .run import Images, Labels, Run


def complementary(activation: nn.Module, z: Tensor) -> Tensor:
    """How far each pre-activation is from where the activation is flat, shape of `z`.

    The papers' complementary functions: `s (1 - s)` for a sigmoid s, and the activation itself for a ReLU.
    """
    if isinstance(activation, nn.Sigmoid):
        s = torch.sigmoid(z)
        return s * (1 - s)
    return torch.relu(z)


def widen(network: nn.Module, gain: float, *, generator: torch.Generator) -> None:
    """Draws all linear layers anew: normal weights of `gain` times Glorot's standard deviation, biases zero.

    Ours. A larger gain starts the network nearer to saturation: sigmoids by their inputs, a soft-max by its logits.
    """
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                size = gain * (2 / (layer.in_features + layer.out_features)) ** 0.5
                drawn = size * torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(drawn)
                layer.bias.zero_()


@dataclass(frozen=True, kw_only=True)
class Saturated(Loop):
    """Cross-entropy plus `lambda` times the sum of complementary functions over all hidden units, by Adam.

    Hidden units are those of `nn.Sigmoid` and `nn.ReLU` modules. `threat` is not used.

    **Fields**
    - `first_strength`, `strength`: lambda grows from the one to the other by the same factor in every step; a
      `strength` of 0 is no penalty at all, from the first step on.
    - `reach`: a sigmoid's penalty is measured at `z / r`, and r grows from 1 to this; the learning rate grows with
      it. 1 is the paper's penalty, which stops pushing once a unit is some dozen away from its threshold.
    - `sharpening`: a sigmoid's output is that at `k z`, its slope that at z, and k grows from 1 to this over the first
      half of the steps; at the end k is multiplied into the weights. The network learns on while its own slopes
      vanish, by the same softer slopes that the stable attack uses. Validation on the way, and weights in a
      checkpoint, are those of the network before k. 1 is ordinary training.
    - `gain`: what `widen` draws the first weights with; None keeps those that the network has.
    - `learning_rate`: of Adam; it falls to zero over the last fifth of the steps.

    **Cost**: `epochs * len(data)` forwards and backwards.
    **Source**: Nayebi & Ganguli 2017, arXiv:1703.09202 (penalty and complementary functions), through Brendel &
    Bethge 2017, arXiv:1704.01547.
    **Differs**: `sharpening` and `reach` are ours, and so are schedule, strengths and optimiser, which the comment does
    not state.
    """

    learning_rate: float = 0.01
    weight_decay: float = 0.0
    average: float = 0.0
    pad: int = 0
    mirror: bool = False
    first_strength: float = 1e-4
    strength: float = 1.0
    reach: float = 16.0
    sharpening: float = 1.0
    gain: float | None = 4.0

    hardens = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.first_strength < float("inf"):
            raise UnusableInput(
                f"`Saturated` has first_strength={self.first_strength}; give a positive number"
            )
        if not 0 <= self.strength < float("inf"):
            raise UnusableInput(f"`Saturated` has strength={self.strength}; give 0 or a positive number")
        self.at_least("reach", 1)
        self.at_least("sharpening", 1)

    def fit(self, network: nn.Module, *arguments: Any, **options: Any) -> History:
        sharpened = _before_sigmoids(network) if self.sharpening > 1 else []
        history = super().fit(network, *arguments, **options)
        with torch.no_grad():
            for layer in sharpened:
                for p in layer.parameters():
                    p.mul_(self.sharpening)
        return history

    def _begin(self, network: nn.Module, threat: ThreatModel | None, generator: torch.Generator) -> Run:
        if not hidden_units(network):
            raise UnusableInput("`Saturated` found no nn.Sigmoid and no nn.ReLU in the network; use modules")
        if self.gain is not None:
            widen(network, self.gain, generator=generator)
        return Run(
            network,
            torch.optim.Adam(network.parameters(), weight_decay=self.weight_decay),
            rate=lambda step: self.learning_rate,
            decay=self.average,
            generator=generator,
            half=self.half,
            compiled=self.compiled,
            processes=self.processes,
        )

    def set_aside(self, run: Run, data: Data) -> Data:
        run.state["steps"] = torch.tensor(max(1, len(data) // self.batch_size * self.passes))
        return data

    def rate(self, step: int, steps: int) -> float:
        place = step / steps
        return self.learning_rate * self.reach**place * min(1.0, (1 - place) / 0.2)

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        place = run.done / int(run.state["steps"])
        strength = self.first_strength * (self.strength / self.first_strength) ** place
        sharpness = self.sharpening ** min(1.0, 2 * place)
        with penalties_of(run.network, self.reach**place) as penalties, _sharpened(run.network, sharpness):
            logits = run.logits(x)
        loss = nn.functional.cross_entropy(logits, y) + strength * torch.stack(penalties).sum()
        run.descend(loss)
        return Seen(loss, logits)


def _before_sigmoids(network: nn.Module) -> list[nn.Linear]:
    """The layers whose weights can take up a sigmoid's gain, by the order in which modules are registered."""
    found: list[nn.Linear] = []
    for before, module in pairwise(network.modules()):
        if isinstance(module, nn.Sigmoid):
            if not isinstance(before, nn.Linear):
                raise UnusableInput(
                    f"`Saturated` sharpens sigmoids that follow an nn.Linear, not {type(before).__name__}; "
                    "give sharpening=1"
                )
            found.append(before)
    return found


@contextmanager
def _sharpened(network: nn.Module, gain: float) -> Iterator[None]:
    """Sigmoids with the values of steeper ones, and their own slopes."""

    def sharpen(activation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + (torch.sigmoid(gain * inputs[0]) - output).detach()

    sigmoids = [m for m in network.modules() if isinstance(m, nn.Sigmoid)] if gain > 1 else []
    hooks = [m.register_forward_hook(sharpen) for m in sigmoids]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def hidden_units(network: nn.Module) -> list[nn.Module]:
    """The modules whose activation can be flat."""
    return [m for m in network.modules() if isinstance(m, (nn.Sigmoid, nn.ReLU))]


@contextmanager
def penalties_of(network: nn.Module, reach: float = 1.0) -> Iterator[list[Float[Tensor, ""]]]:
    """Collects the penalty of each activation, summed over units, mean over the batch, in a forward pass."""
    found: list[Tensor] = []

    def collect(activation: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        z = inputs[0] / reach if isinstance(activation, nn.Sigmoid) else inputs[0]
        found.append(complementary(activation, z).flatten(1).sum(1).mean())

    hooks = [m.register_forward_pre_hook(collect) for m in hidden_units(network)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
