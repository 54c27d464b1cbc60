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
Surrogate = Callable[[Tensor], Tensor]


class Preprocessing(Defense):
    """A transformation g in front of a network f: F(x) = f(g(x)).

    As in the published code, which leaves autograd for NumPy, SciPy or Pillow, g runs without a gradient. The
    wrapped classifier's surrogate has the same values, and on the way back g's own surrogate takes the place of g
    (`surrogate`): attack it with `BPDA(same_values=True)`.
    """

    @abstractmethod
    def transformation(self) -> nn.Module:
        """The function g, from images in [0, 1] to what the network sees."""

    @property
    def surrogate(self) -> Surrogate | None:
        """A differentiable function near g, known in advance; None for the identity."""
        return None

    @property
    def draws(self) -> int | None:
        """Passes that a prediction averages, where g is random; None where it is deterministic."""
        return None

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        return self.with_surrogate(classifier, self.surrogate)

    def with_surrogate(self, classifier: Classifier, surrogate: Surrogate | None) -> Classifier:
        """As `wrap`, with another function in the place of g on the way back, such as a learned one."""
        g = self.transformation()
        network = Transformed(g, classifier.network)
        whole = Transformed(StraightThrough(g, surrogate), undefended(classifier))
        whole.train(mode_of(classifier.network))
        if self.draws is None:
            network.train(mode_of(classifier.network))
            return classifier.replace(network=network, surrogate=whole)
        average = self.average if isinstance(self, RandomDefense) else None
        return randomised(classifier, network, self.draws, average).with_surrogate(whole)
