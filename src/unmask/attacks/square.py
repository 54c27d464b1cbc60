"""The Square attack: random search that needs nothing but scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..errors import Unsupported
from ..judge import fooled
from ..objectives import Objective, margin
from ..randomness import Streams
from ..threat import L1, L2, Linf, ThreatModel
from ..types import per_example
from .base import Attack, Images, Labels, Setting, beside
from .batch import Batch, Incumbent
from .square_moves import LinfMoves, LpMoves

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries; the paper's section 5
_RANDOM_DRAWS = 4  # ours: forwards averaged into one score of a random network
_AHEAD = 64  # random numbers are drawn for this many queries at once


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search over square-shaped changes that always sit on the edge of the ball.

    Every example has its own windows, so that a batch costs one forward a query; an example that is fooled
    leaves.

    **Fields**
    - `queries`: forwards per example, at least 1.
    - `p_init`: share of the pixels in the first windows; it halves on the paper's schedule, stretched to
      `queries`.
    - `objective`: what a change must raise to be kept.
    - `draws`: forwards averaged into one score, out of `queries`; for random networks.
    - `early_stop`: leave at the first query that fools. Off, on a random network, the point that stands is
      scored again beside every candidate, so that one lucky draw does not stand for good.

    **Cost**: at most `queries` forwards per example, no backward.
    **Raises** `Unsupported` for inputs of more dimensions than volumes, and for unknown norms.
    **Source**: Andriushchenko et al. 2020, arXiv:1912.00049; L1 as in Croce & Hein 2021, arXiv:2103.01208.
    **Differs**: a change that would leave the point where it is takes the opposite sign instead of costing a
    query.
    """

    queries: int = 5000
    p_init: float = 0.8
    objective: Objective = margin
    draws: int = 1
    early_stop: bool = True

    def describe(self) -> str:
        return f"Square-{self.queries}"

    def fit(self, setting: Setting) -> Attack | None:
        """Past the setting's detector; to the end, and on several draws a score, where they are random."""
        draws = max(self.draws, _RANDOM_DRAWS) if setting.random else self.draws
        objective = beside(self.objective, setting.detector)
        return replace(self, draws=draws, early_stop=not setting.random, objective=objective)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if not 2 <= x.ndim <= 5:
            raise Unsupported(
                f"`Square` needs vectors, signals, images or volumes, not {x.ndim - 1}-D inputs; use `RayS`"
            )
        x = x.detach()
        best = Incumbent(x)
        batch = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        if len(x):
            with torch.no_grad():
                self._search(classifier, batch, threat, best)
        return threat.settle(best.x_adv, x)

    def _search(self, classifier: Classifier, batch: Batch, threat: ThreatModel, best: Incumbent) -> None:
        moves = _moves(threat, batch.x)
        noisy = not self.early_stop and not classifier.deterministic
        rounds = max(self.queries // (self.draws * (2 if noisy else 1)), 1)
        x_adv = moves.start(batch.streams)
        value, won = self._score(classifier, batch, x_adv, threat)
        count = torch.ones_like(value)  # scores averaged into `value`
        ahead = torch.empty(0)
        for query in range(rounds):
            if self.early_stop and won.any():
                stay = best.fooled(batch, won, x_adv)
                if not len(stay):
                    return
                batch, moves = batch.take(stay), moves.take(stay)
                x_adv, value, count = x_adv[stay], value[stay], count[stay]
                ahead = ahead[stay] if query else ahead
            if query == rounds - 1:
                break
            if query % _AHEAD == 0:
                ahead = moves.draw(batch.streams, min(_AHEAD, rounds - 1 - query))
            candidate = moves.propose(x_adv, self._share(query, rounds), ahead[:, query % _AHEAD])
            new, won = self._score(classifier, batch, candidate, threat)
            if noisy:
                again, _ = self._score(classifier, batch, x_adv, threat)
                count += 1
                value = value + (again - value) / count
            better = (new > value) | won if self.early_stop else new > value
            x_adv = torch.where(per_example(better, x_adv), candidate, x_adv)
            value = torch.where(better, new, value)
            count = torch.where(better, 1.0, count)
        best.offer(batch.index, x_adv, value)

    def _score(
        self, classifier: Classifier, batch: Batch, x_adv: Images, threat: ThreatModel
    ) -> tuple[Float[Tensor, " batch"], Tensor]:
        outputs = classifier(x_adv, generator=batch.streams)
        value = batch.objective(outputs, batch.y)
        for _ in range(self.draws - 1):
            value = value + batch.objective(classifier(x_adv, generator=batch.streams), batch.y)
        return value / self.draws, fooled(outputs, batch.y, threat)

    def _share(self, query: int, rounds: int) -> float:
        """Share of the pixels that the window of this query covers."""
        return self.p_init / 2 ** sum(10_000 * query / rounds > halving for halving in _HALVINGS)


def _moves(threat: ThreatModel, x: Images) -> LinfMoves | LpMoves:
    if isinstance(threat, Linf):
        return LinfMoves(threat, x)
    if isinstance(threat, L1 | L2):
        return LpMoves(threat, x)
    raise Unsupported(f"`Square` knows no moves for {type(threat).__name__}; use Linf, L2 or L1")
