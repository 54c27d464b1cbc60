"""Whether images of the data's own levels break what no point between the levels breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..attacks import PGD, Attack
from ..classifier import Classifier, Network
from ..randomness import Streams
from ..threat import Linf, ThreatModel
from ..types import Outputs, per_example
from .base import Diagnostic, Images, Labels, Reading, survives
from .first_look import Partly, first_look

# Steps between black and white that images are stored with: four bits from 0 to 16 as the digits, and bytes. Ours.
LEVELS = (16, 255)


def levels_of(x: Tensor) -> int | None:
    """The steps from 0 to 1 on which all values of `x` lie, or None.

    >>> levels_of(torch.tensor([0.0, 0.25, 1.0])), levels_of(torch.tensor([0.0, 1 / 3]))
    (16, 255)
    >>> levels_of(torch.tensor([0.0, 0.123])) is None
    True
    """
    for levels in LEVELS:
        steps = x.double() * levels
        if bool(((steps - steps.round()).abs() < 1e-3).all()):
            return levels
    return None


class _Snapped(nn.Module):
    """The network behind a rounding to the levels, which the gradient passes as if it were not there."""

    def __init__(self, network: Network, levels: int):
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, x: Tensor) -> Tensor | Outputs:
        return self.network(x + ((x * self.levels).round() / self.levels - x).detach())


@dataclass(frozen=True, kw_only=True)
class OnGrid(Attack):
    """Another attack, all of whose questions and whose points lie on the levels on which images are stored.

    **Fields**
    - `attack`: what is run, on the network behind a rounding.
    - `levels`: steps from 0 to 1.

    **Cost**: the attack.
    """

    attack: Attack
    levels: int

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        snapped = classifier.replace(network=_Snapped(classifier.network, self.levels))
        steps = math.floor(threat.epsilon * self.levels + 1e-6)
        whole = isinstance(threat, Linf) and steps > 0 and not threat.weights
        within = replace(threat, epsilon=steps / self.levels) if whole else threat
        found = self.attack.run(snapped, x, y, within, generator=generator)
        rounded = (found * self.levels).round() / self.levels
        # Towards the image, where rounding went out of the ball.
        inward = x + ((found - x) * self.levels + 1e-4 * (found - x).sign()).trunc() / self.levels
        inside = threat.distance(rounded, x) <= threat.epsilon
        return torch.where(per_example(inside, x), rounded, inward)


@dataclass(frozen=True, kw_only=True)
class DataLevels(Diagnostic):
    """An attack among the images that could be stored as the data are.

    A network may answer otherwise between the levels of its data, where every usual attack asks, and cameras never do.
    `value` is the accuracy under the attack on the levels. It says nothing by itself: its points count as all do.

    Only what nobody has broken yet is attacked, and more than a first look (`first_look`) only where that breaks one.

    **Fields**
    - `attack`: what is run.
    - `standing`: `[n]` with `n` at least that of the images, what nobody has broken yet; None: all of them.

    **Cost**: the attack on what is standing of a few images, or of all, and one judgement.
    """

    attack: OnGrid
    standing: Bool[Tensor, " n"] | None = field(default=None, repr=False)
    draws: int = 1

    @staticmethod
    def of(
        x: Tensor,
        threat: ThreatModel,
        standing: Bool[Tensor, " n"] | None = None,
        *,
        early_stop: bool = False,
    ) -> DataLevels | None:
        """With PGD; None where the images lie on no levels, or the ball holds none but the image's own."""
        levels = levels_of(x)
        if levels is None or threat.epsilon * levels < 1 - 1e-6:
            return None
        attack = PGD(steps=20, rel_step_size=0.125, early_stop=early_stop)
        return DataLevels(attack=OnGrid(attack=attack, levels=levels), standing=standing)

    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        streams = Streams.of(generator, len(x)).fork("attack")
        of = (classifier, x, y, threat)
        challenger = Partly("attack", self.attack, *of, draws=self.draws, streams=streams)
        every = torch.ones(len(x), dtype=torch.bool, device=x.device)
        standing = every if self.standing is None else self.standing[: len(x)].to(x.device)
        challenger.on(standing & (standing.cumsum(0) <= first_look()))
        if (challenger.failures > 0.5).any():
            challenger.on(standing)
        asked = challenger.attacked
        left = survives(challenger.failures[asked]) if asked.any() else None
        return Reading(
            name="data_levels",
            passed=None,
            value=left,
            expected="accuracy under an attack among images of the data's own levels",
            explanation="Nothing was left to attack."
            if left is None
            else f"{left:.1%} of {int(asked.sum())} survive an attack on the {self.attack.levels + 1} levels of the "
            "data.",
            tried=(challenger.first(len(x)),),
        )
