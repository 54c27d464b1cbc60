"""A defence wraps a classifier and gives a classifier back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ..classifier import Classifier, Network
from ..types import Average


class Defense(ABC):
    """Something put around, or inside, a trained network."""

    @abstractmethod
    def wrap(self, classifier: Classifier) -> Classifier:
        """The defended classifier. The one given stays as it was; its meter is shared."""


@dataclass(frozen=True, kw_only=True)
class RandomDefense(Defense):
    """A defence that draws anew in every pass, so that a prediction is a mean over several.

    **Fields**
    - `passes`: forward passes of one prediction.
    - `average`: what its mean is a mean of, `logits` or `probabilities` (after a soft-max); None for what the
      wrapped classifier averages, else what its network returns.
    """

    passes: int = 10
    average: Average | None = None

    def randomised(self, classifier: Classifier, network: nn.Module) -> Classifier:
        """As the function of that name, with this defence's passes and mean."""
        return randomised(classifier, network, self.passes, self.average)


def randomised(
    classifier: Classifier, network: nn.Module, passes: int, average: Average | None = None
) -> Classifier:
    """`classifier` with a random network, whose undefended self serves as the surrogate for BPDA and transfer.

    The undefended self is the surrogate that `classifier` has already, where another defence gave it one.
    """
    return classifier.replace(
        network=network.train(mode_of(classifier.network)),
        passes=passes,
        average=average or classifier.average,
        deterministic=False,
        surrogate=undefended(classifier),
    )


def undefended(classifier: Classifier) -> Network:
    """What an attacker differentiates: the classifier's surrogate, else its network."""
    return classifier.network if classifier.surrogate is None else classifier.surrogate


def mode_of(network: Network) -> bool:
    """Whether it is in train mode."""
    return isinstance(network, nn.Module) and getattr(network, "training", False)


class Transformed(nn.Module):
    """A network behind a transformation of its input."""

    def __init__(self, transform: nn.Module, network: Network):
        super().__init__()
        self.transform = transform
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the transformed images."""
        return self.network(self.transform(x))  # type: ignore[return-value]
