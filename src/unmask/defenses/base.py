"""A defence wraps a classifier and gives a classifier back."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ..classifier import Classifier, Network


class Defense(ABC):
    """Something put around, or inside, a trained network."""

    @abstractmethod
    def wrap(self, classifier: Classifier) -> Classifier:
        """The defended classifier. The one given stays as it was; its meter is shared."""


def randomised(classifier: Classifier, network: nn.Module, passes: int) -> Classifier:
    """`classifier` with a random network, whose undefended self serves as the surrogate for BPDA and transfer.

    The undefended self is the surrogate that `classifier` has already, where another defence gave it one.
    """
    return classifier.replace(
        network=network.train(mode_of(classifier.network)),
        passes=passes,
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
