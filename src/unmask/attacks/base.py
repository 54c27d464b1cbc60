"""An attack proposes; it never judges itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..gradients import Exact, GradientEstimator
from ..objectives import Objective, cross_entropy
from ..randomness import Streams
from ..threat import ThreatModel

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]


class Attack(ABC):
    """Finds, for each example, a point of ball and box that the classifier gets wrong."""

    @abstractmethod
    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        """Returns `x_adv`, shape, dtype and device of `x`, inside ball and box.

        Leaves `x`, the network's mode, its parameters' `.grad` and the global random state as they were.
        """


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """An attack that follows a gradient. `objective` and `gradient` are the two axes on which it adapts.

    **Fields**
    - `objective`: what is maximised; its negative where the threat model's goal is `targeted` (`for_goal`).
    - `gradient`: how its slope is estimated.
    - `early_stop`: an example leaves the batch at the step that fools one estimate. Turn off for random
      networks, where one lucky draw proves nothing.
    """

    objective: Objective = cross_entropy
    gradient: GradientEstimator = Exact()
    early_stop: bool = True
