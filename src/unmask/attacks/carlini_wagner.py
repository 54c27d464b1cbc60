"""The Carlini-Wagner attack: least L2 distance at a chosen confidence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..errors import Unsupported
from ..judge import fooled
from ..objectives import Confident, Objective, margin_loss
from ..randomness import Streams
from ..threat import L2, ThreatModel, one_radius
from ..types import per_example
from .base import Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent

_INSIDE = 1e-3  # pixels on a wall start this far inside (relative), where the tanh still has a slope


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(GradientAttack):
    """Minimises `|delta|² + c * max(confidence - objective, 0)` by Adam, with a binary search for `c`.

    Returns the nearest point that fools with the confidence asked for, drawn back into the ball. With
    `early_stop` an example leaves as soon as such a point lies inside the ball; without, the distance is made
    as small as the steps allow.

    **Fields**
    - `confidence`: what the objective must reach (the paper's kappa); for the margin loss, in units of the logits.
    - `steps`: Adam steps for each `c`.
    - `searches`: values of `c` that are tried.
    - `initial_c`: the first of them; ten times as much after each failure until one succeeds.
    - `learning_rate`: of Adam, in the tanh variable.

    **Cost**: at most `searches * (steps + 1)` estimates per example.
    **Raises** `Unsupported` for norms other than L2.
    **Source**: Carlini & Wagner 2017, arXiv:1608.04644, section 5.
    **Differs**: fewer and longer steps than the paper's 10,000 (ours), no abort when the loss stands
    still; pixels on the walls start slightly inside, for the tanh has no slope there.
    """

    confidence: float = 0.0
    steps: int = 200
    searches: int = 9
    initial_c: float = 1.0
    learning_rate: float = 0.05
    objective: Objective = margin_loss

    def describe(self) -> str:
        return f"Carlini-Wagner-{self.steps}, {self.searches} constants"

    def cost(self, classes: int) -> Cost:
        return Cost(estimates=self.searches * (self.steps + 1))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if not isinstance(threat, L2):
            raise Unsupported(
                f"`CarliniWagner` minimises the L2 distance, the threat model is {type(threat).__name__}; "
                "use `APGD(objective=margin_loss)` or `FAB`"
            )
        one_radius(threat, "`CarliniWagner`")
        x = x.detach()
        batch = Batch.whole(x, y, generator, Confident(self.objective.for_goal(threat.goal), self.confidence))
        best = Incumbent(x)
        low, high = x.new_zeros(len(x)), x.new_full((len(x),), torch.inf)
        c = x.new_full((len(x),), self.initial_c)
        for _ in range(self.searches):
            if not len(batch):
                break
            reached = self._minimise(classifier, batch, c, threat, best)
            high = torch.where(reached, torch.minimum(high, c), high)
            low = torch.where(reached, low, torch.maximum(low, c))
            c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
            batch, low, high, c = batch.keep(best.value[batch.index] != torch.inf, low, high, c)
        return threat.settle(best.x_adv, x)

    def _minimise(
        self,
        classifier: Classifier,
        batch: Batch,
        c: Float[Tensor, " batch"],
        threat: ThreatModel,
        best: Incumbent,
    ) -> Tensor:
        """One run of Adam: which examples reached the confidence. Their nearest points go to `best`."""
        low, high = threat.box
        middle, half = (low + high) / 2, (high - low) / 2
        w = torch.atanh(((batch.x - middle) / half).clamp(-1 + _INSIDE, 1 - _INSIDE))
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        places = torch.arange(len(batch), device=w.device)
        reached = torch.zeros(len(batch), dtype=torch.bool, device=w.device)
        for step in range(1, self.steps + 2):
            tanh = torch.tanh(w)
            x_adv = middle + half * tanh
            est = self.gradient.estimate(classifier, batch.objective, x_adv, batch.y, generator=batch.streams)
            success = fooled(est.outputs, batch.y, threat) & (est.value >= self.confidence)
            grad = est.grad
            if success.any():
                distance = threat.distance(x_adv, batch.x)
                near = success & (distance <= threat.epsilon) & self.early_stop
                best.offer(
                    batch.index,
                    x_adv,
                    torch.where(near, torch.inf, -distance).masked_fill(~success, -torch.inf),
                )
                reached[places[success]] = True
                if near.any():
                    batch, places, c, w, tanh, x_adv, grad, first, second = batch.keep(
                        ~near, places, c, w, tanh, x_adv, grad, first, second
                    )
                    if not len(batch):
                        break
            if step > self.steps:
                break
            slope = 2 * (x_adv - batch.x) - per_example(c, w) * grad
            slope = slope * half * (1 - tanh.square())
            first = torch.lerp(slope, first, 0.9)
            second = torch.lerp(slope.square(), second, 0.999)
            scale = (second / (1 - 0.999**step)).sqrt().add_(1e-8)
            w = w - self.learning_rate * (first / (1 - 0.9**step)) / scale
        return reached
