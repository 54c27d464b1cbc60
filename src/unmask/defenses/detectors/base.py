"""A detector says how suspicious an input looks; held to a false-positive rate, it becomes a defence that rejects."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...classifier import Classifier, Network
from ...errors import Unsupported, UnusableInput, plural
from ...types import Outputs
from ..base import Defense

Images = Float[Tensor, "batch *dims"]
Scores = Float[Tensor, " batch"]


class Detector(nn.Module):
    """Maps images to suspicion, `[batch]`: the larger, the less an input looks like the clean ones.

    What it learns it learns when it is made, from clean training data; it is differentiable unless it says otherwise.
    """

    @abstractmethod
    def forward(self, x: Images) -> Scores:
        """The suspicion of each image. May draw from torch's global generator, which `Classifier` seeds."""
        raise NotImplementedError


def threshold_at(scores: Scores, false_positive_rate: float) -> float:
    """The least threshold above which at most this share of clean scores lies.

    >>> threshold_at(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.25)
    3.0

    **Raises** `UnusableInput` for a rate outside [0, 1) or scores that are not finite.
    """
    if not 0 <= false_positive_rate < 1:
        raise UnusableInput(
            f"the false-positive rate is {false_positive_rate}; give a share of at least 0, below 1"
        )
    if not len(scores) or not torch.isfinite(scores).all():
        bad = int((~torch.isfinite(scores)).sum())
        raise UnusableInput(
            f"{bad} of {len(scores)} clean scores {plural(bad, 'is', 'are')} not finite; give clean "
            "images that the detector was not made of"
        )
    allowed = math.floor(false_positive_rate * len(scores) + 1e-9)
    return float(scores.sort(descending=True).values[allowed])


class Guarded(nn.Module):
    """A network beside a detector: returns logits and the detector's score, above zero where it rejects."""

    def __init__(self, network: Network, detector: Detector, threshold: float):
        super().__init__()
        self.network, self.detector, self.threshold = network, detector, threshold

    def forward(self, x: Images) -> Outputs:
        """Logits and suspicion above the threshold."""
        logits = self.network(x.clone())  # the detector must see what came in
        assert isinstance(logits, Tensor)
        return Outputs(logits, self.detector(x) - self.threshold)


@dataclass(frozen=True, kw_only=True)
class Detection(Defense):
    """Rejects what a detector finds more suspicious than a threshold.

    **Fields**
    - `detector`: built from clean training data.
    - `threshold`: suspicion above which an input is rejected; `Detection.at` finds it.

    **Cost**: a forward pass of the network and the detector's own, counted as one.
    """

    detector: Detector
    threshold: float

    @classmethod
    def at(
        cls,
        false_positive_rate: float,
        detector: Detector,
        x: Images,
        *,
        generator: torch.Generator,
        batch: int = 500,
    ) -> Detection:
        """Held to a false-positive rate on clean images `x` that the detector was not made of."""
        scores = suspicion(detector, x, generator=generator, batch=batch)
        return cls(detector=detector, threshold=threshold_at(scores, false_positive_rate))

    def wrap(self, classifier: Classifier) -> Classifier:
        """The classifier beside the detector. Without its detector it is the surrogate."""
        return classifier.replace(
            network=Guarded(classifier.network, self.detector, self.threshold).eval(),
            surrogate=classifier.network,
        )


def suspicion(detector: Detector, x: Images, *, generator: torch.Generator, batch: int = 500) -> Scores:
    """What a detector makes of `x`, without gradient, in batches, on randomness from `generator`."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.no_grad(), torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        return torch.cat([detector(part) for part in x.split(batch)])


class Layers(nn.Module):
    """A network that also hands out what goes into some of its modules.

    **Arguments**
    - `names`: dotted names of the modules whose inputs are handed out. By default that of the last `nn.Linear`, whose
      input is the last hidden layer.

    **Raises** `Unsupported` where there is no such module.
    """

    def __init__(self, network: nn.Module, names: Sequence[str] | None = None):
        super().__init__()
        if names is None:
            names = weighted(network, nn.Linear)[-1:]
            if not names:
                raise Unsupported("the network has no nn.Linear; name the modules whose inputs are looked at")
        modules = dict(network.named_modules())
        for name in names:
            if name not in modules:
                raise Unsupported(
                    f"the network has no module {name!r}; it has {', '.join(filter(None, modules))}"
                )
        self.network, self.names = network, tuple(names)

    def forward(self, x: Images) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the input of each named module, `[batch, …]`."""
        seen: dict[str, Tensor] = {}
        modules = dict(self.network.named_modules())

        def keep(name: str) -> torch.utils.hooks.RemovableHandle:
            return modules[name].register_forward_pre_hook(lambda _, given: seen.update({name: given[0]}))

        handles = [keep(name) for name in self.names]
        try:
            logits = self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        return logits, [seen[name] for name in self.names]


def weighted(network: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[str]:
    """Names of the modules of a kind, in the order of their definition."""
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


def hidden_layers(network: nn.Module) -> list[str]:
    """Names of all convolutions and linear layers but the first: what goes into them are the hidden layers.

    Where an `nn.Flatten` stands right before one, it is named instead, so that a hidden layer keeps its space.
    """
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    found = []
    for place, (name, module) in enumerate(leaves):
        if isinstance(module, nn.Conv2d | nn.Linear):
            before, previous = leaves[place - 1] if place else ("", None)
            found.append(before if isinstance(previous, nn.Flatten) else name)
    return found[1:]
