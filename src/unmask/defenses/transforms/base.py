"""A transformation of the image in front of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ...classifier import Classifier
from ...gradients import StraightThrough
from ..base import Defense, RandomDefense, Transformed, mode_of, randomised, undefended

Images = Float[Tensor, "batch channels height width"]
Smooth = Callable[[Tensor], Tensor]


class Preprocessing(Defense):
    """A transformation g in front of a network f: F(x) = f(g(x)).

    As in the published code, which leaves autograd for NumPy, SciPy or Pillow, g runs without a gradient. The
    wrapped classifier's surrogate has the same values, and on the way back a stand-in takes the place of g
    (`stand_in`): attack it with `BPDA(same_values=True)`.
    """

    @abstractmethod
    def transformation(self) -> nn.Module:
        """The function g, from images in [0, 1] to what the network sees."""

    @property
    def stand_in(self) -> Smooth | None:
        """A differentiable function near g, known in advance; None for the identity."""
        return None

    @property
    def draws(self) -> int | None:
        """Passes that a prediction averages, where g is random; None where it is deterministic."""
        return None

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        return self.with_stand_in(classifier, self.stand_in)

    def with_stand_in(self, classifier: Classifier, stand_in: Smooth | None) -> Classifier:
        """As `wrap`, with another function in the place of g on the surrogate's way back, such as a learned one."""
        g = self.transformation()
        network = Transformed(g, classifier.network)
        surrogate = Transformed(StraightThrough(g, stand_in), undefended(classifier))
        surrogate.train(mode_of(classifier.network))
        if self.draws is None:
            network.train(mode_of(classifier.network))
            return classifier.replace(network=network, surrogate=surrogate)
        average = self.average if isinstance(self, RandomDefense) else None
        return randomised(classifier, network, self.draws, average).with_surrogate(surrogate)
