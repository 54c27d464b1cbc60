"""The nearest adversarial examples found so far, whoever finds them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..attacks import Attack
from ..classifier import Classifier
from ..judge import fooled
from ..randomness import Streams
from ..threat import NormBall, ThreatModel
from ..types import per_example
from ..worst_case import WorstCase

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]


class Found:
    """The nearest points so far."""

    def __init__(self, classifier: Classifier, x: Images, y: Labels, threat: NormBall, streams: Streams):
        self.classifier, self.x, self.y, self.threat, self.streams = classifier, x, y, threat, streams
        self.worst = WorstCase(x)  # by distance with its sign turned
        everyone = torch.arange(len(x), device=x.device)
        self.worst.offer(everyone, x, torch.where(self._meets_goal(x, y), 0.0, -torch.inf).double())

    @property
    def x_adv(self) -> Images:
        """The nearest points; `x` where none was found."""
        return self.worst.x_adv

    @property
    def distance(self) -> Float[Tensor, " batch"]:
        """Their distances, float64; +inf where none was found."""
        return self.worst.value.abs()

    def farther(self, distance: float) -> Tensor:
        """The examples whose nearest point so far is not nearer than this."""
        return (self.distance >= distance).nonzero()[:, 0]

    def offer(
        self, attack: Attack, tag: str, chosen: Tensor | None = None, ball: ThreatModel | None = None
    ) -> None:
        """Runs an attack on the chosen examples (those not wrong) in a ball (the whole box); keeps what is nearer."""
        open_ = (self.distance > 0).nonzero()[:, 0] if chosen is None else chosen
        if not len(open_):
            return
        x, y = self.x[open_], self.y[open_]
        streams = self.streams.fork(tag)[open_]
        point = attack.run(self.classifier, x, y, ball or self.threat, generator=streams)
        self.keep(open_, point)

    def walk_back(self, halvings: int = 12) -> None:
        """Bisection on the way from each point to `x`, by labels alone: a masked loss misleads FAB's own."""
        some = ((self.distance > 0) & self.distance.isfinite()).nonzero()[:, 0]
        near, far = torch.zeros_like(self.distance[some]), torch.ones_like(self.distance[some])
        x, x_adv, y = self.x[some], self.x_adv[some], self.y[some]
        for _ in range(halvings):
            middle = (near + far) / 2
            point = torch.lerp(x, x_adv, per_example(middle, x).to(x.dtype))
            won = self._meets_goal(point, y)
            self.keep(some[won], point[won])
            near, far = torch.where(won, near, middle), torch.where(won, middle, far)

    def keep(self, chosen: Tensor, point: Images) -> None:
        """Takes the points of the chosen examples that meet the goal and are nearer."""
        counts = self._meets_goal(point, self.y[chosen]) & self.threat.contains(point, self.x[chosen])
        length = self.threat.distance(point, self.x[chosen])
        self.worst.offer(chosen[counts], point[counts], -length[counts])

    def _meets_goal(self, point: Images, y: Labels) -> Bool[Tensor, " batch"]:
        if not len(point):
            return torch.zeros(0, dtype=torch.bool, device=point.device)
        return fooled(self.classifier.predict(point, generator=self.streams), y, self.threat)
