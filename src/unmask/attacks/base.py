"""An attack proposes; it never judges itself. It says of itself what it is and where it fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import UnusableInput
from ..gradients import Exact, GradientEstimator
from ..gradients.base import Slopes
from ..objectives import Objective, TargetedObjective, Undetected, cross_entropy
from ..randomness import Streams
from ..threat import ThreatModel, threat_model

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]
Ascent = Slopes | Literal["none"]


@dataclass(frozen=True)
class Others:
    """Images that an attack may start from.

    **Fields**
    - `x`: `[others, *dims]`, for instance the other images of the test set.
    - `classes`: `[others]`, what the network takes them for.
    """

    x: Images
    classes: Labels


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a plan tells its attacks about the network that they meet.

    **Fields**
    - `gradient`: the estimator that the race chose.
    - `random`: equal inputs may give different outputs, so that one lucky draw proves nothing.
    - `detector`: a rejected input is no success.
    - `classes`: among which an attack may choose; two, where the goal names the class.
    - `shape`: of an input, without the batch.
    - `others`: images to start from.
    """

    gradient: GradientEstimator = Exact()
    random: bool = False
    detector: bool = False
    classes: int = 2
    shape: tuple[int, ...] = ()
    others: Others | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Passes of the network that an attack makes for an example that holds out to the end, at most.

    **Fields**
    - `forwards`: answers alone.
    - `estimates`: of the gradient; one of the exact gradient is one forward and one backward pass, others cost what
      their estimator says.
    """

    forwards: int = 0
    estimates: int = 0


class Attack(ABC):
    """Finds, for each example, a point of ball and box that the classifier gets wrong.

    An attack of one's own needs `run` alone; the rest says more about it, to whoever plans.

    **Class fields**
    - `needs_gradient`: whether it follows the gradient that a plan chooses; False for one that sees answers only, or
      the network's own operations.
    - `chooses_targets`: whether it aims at classes of its own choice, and so needs a goal that leaves one.
    """

    needs_gradient: ClassVar[bool] = False
    chooses_targets: ClassVar[bool] = False

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

    def __call__(
        self,
        network: Classifier | nn.Module,
        x: Images,
        y: Labels,
        *,
        epsilon: float | str | Sequence[float],
        norm: str = "linf",
        seed: int = 0,
    ) -> Images:
        """Attacks a network on plain tensors: `APGD(steps=50)(network, x, y, epsilon=8 / 255)`.

        **Arguments**
        - `network`: logits from inputs in [0, 1], in evaluation mode.
        - `x`, `y`: `[batch, *dims]`, and the labels to leave; tensors or arrays.

        **Returns** points of ball and box, whether they fool the network or not.
        **Raises** `UnusableInput` for a network in training mode, inputs outside [0, 1], or labels that are no classes.
        """
        x, y = torch.as_tensor(x), _classes(torch.as_tensor(y), len(x))
        classifier = network if isinstance(network, Classifier) else Classifier(network)
        if isinstance(classifier.network, nn.Module) and classifier.network.training:
            raise UnusableInput("the network is in training mode; call its eval() first")
        threat = threat_model(norm, epsilon)
        low, high = threat.box
        if not bool(((x >= low) & (x <= high)).all()):
            raise UnusableInput(
                f"x lies in [{float(x.min()):g}, {float(x.max()):g}], not in [0, 1]; scale it, and put the "
                "network's own normalisation inside the network"
            )
        streams = Streams.seeded(seed, torch.arange(len(x), device=x.device), type(self).__name__)
        return threat.settle(self.run(classifier, x, y, threat, generator=streams), x)

    def describe(self) -> str:
        """What it is, in a few words with its numbers, for the report."""
        return type(self).__name__

    @property
    def ascent(self) -> Ascent:
        """By which slopes of the network it goes up, step by step inside the ball, as PGD does; `none` if it does not.

        A stand-alone script repeats such an ascent, and no other attack.
        """
        return "none"

    def cost(self, classes: int) -> Cost | None:
        """What it declares to cost on a network of so many classes; None where it does not say."""
        return None

    def fit(self, setting: Setting) -> Attack | None:
        """The same attack for the network at hand; None where it has nothing to do there."""
        return self


def _classes(y: Tensor, count: int) -> Labels:
    if y.shape != (count,) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = str(y.dtype).removeprefix("torch.")
        raise UnusableInput(
            f"y is {kind} of shape {list(y.shape)}; give a whole number for each of the {count} inputs, such as "
            "y.argmax(1) of what is one-hot"
        )
    return y.to(torch.int64)


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """An attack that follows a gradient. `objective` and `gradient` are the two axes on which it adapts.

    **Fields**
    - `objective`: what is maximised; its negative where the threat model's goal is `targeted` (`for_goal`).
    - `gradient`: how its slope is estimated.
    - `early_stop`: an example leaves the batch at the step that fools one estimate. Turn off for random
      networks, where one lucky draw proves nothing.

    **Class fields**
    - `ascends`: whether it goes up step by step inside the ball, as PGD does.
    """

    needs_gradient: ClassVar[bool] = True
    ascends: ClassVar[bool] = False

    objective: Objective = cross_entropy
    gradient: GradientEstimator = Exact()
    early_stop: bool = True

    @property
    def ascent(self) -> Ascent:
        return self.gradient.slopes if self.ascends else "none"

    def fit(self, setting: Setting) -> Attack | None:
        """Along the setting's gradient, past its detector, and to the end where draws are random."""
        if self.chooses_targets and setting.classes < 3:
            return None
        return replace(
            self,
            gradient=setting.gradient,
            early_stop=not setting.random,
            objective=beside(self.objective, setting.detector),
        )


def beside(objective: Objective, detector: bool) -> Objective:
    """The objective where a detector looks on. One that awaits its targets stays: it pulls, whatever objects."""
    return Undetected(objective) if detector and not isinstance(objective, TargetedObjective) else objective
