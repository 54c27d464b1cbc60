"""Random search: a change is kept where it raises the objective, and nothing but the answers is asked for."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..judge import fooled
from ..objectives import Objective, margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import per_example
from .base import Attack, Cost, Images, Labels, Setting, beside
from .batch import Batch, Incumbent

_RANDOM_DRAWS = 4  # ours: forwards averaged into one score of a random network


@runtime_checkable
class Moves(Protocol):
    """What a query changes, for some examples at once. Where the search stands is one tensor an example."""

    ahead: ClassVar[int]

    def take(self, chosen: Tensor) -> Moves:
        """Those of some of the examples."""
        ...

    def start(self, streams: Streams) -> Tensor:
        """Where the search begins: `[batch, …]`."""
        ...

    def draw(self, streams: Streams, queries: int) -> Float[Tensor, "batch queries draws"]:
        """The random numbers of some queries, `ahead` at most."""
        ...

    def propose(self, state: Tensor, share: float, draws: Float[Tensor, "batch draws"]) -> Tensor:
        """A state beside `state`; `share` in (0, 1] says how large the change is."""
        ...

    def image(self, state: Tensor) -> Images:
        """The input that a state stands for, inside ball and box."""
        ...


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack):
    """What random searches share; which changes are tried is the subclass's.

    Every example has its own changes, so that a batch costs one forward a query; an example that is fooled leaves.

    **Fields**
    - `queries`: forwards per example, at least 1.
    - `objective`: what a change must raise to be kept.
    - `draws`: forwards averaged into one score, out of `queries`; for random networks.
    - `early_stop`: leave at the first query that fools. Off, on a random network, the point that stands is
      scored again beside every candidate, so that one lucky draw does not stand for good.
    """

    queries: int = 5000
    objective: Objective = margin_loss
    draws: int = 1
    early_stop: bool = True

    def fit(self, setting: Setting) -> Attack | None:
        """Past the setting's detector; to the end, and on several draws a score, where they are random."""
        draws = max(self.draws, _RANDOM_DRAWS) if setting.random else self.draws
        objective = beside(self.objective, setting.detector)
        return replace(self, draws=draws, early_stop=not setting.random, objective=objective)

    @abstractmethod
    def moves(self, threat: ThreatModel, x: Images) -> Moves:
        """The changes that are tried around `x`.

        **Raises** `Unsupported` for a threat model or a shape that it has none for.
        """

    @abstractmethod
    def share(self, query: int, rounds: int) -> float:
        """How much a query changes, as a share in (0, 1], when it comes after `query` of `rounds`."""

    def cost(self, classes: int) -> Cost:
        return Cost(forwards=self.queries)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        x = x.detach()
        best = Incumbent(x)
        batch = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        if len(x):
            with torch.no_grad():
                self._search(classifier, batch, threat, best)
        return threat.settle(best.x_adv, x)

    def _search(self, classifier: Classifier, batch: Batch, threat: ThreatModel, best: Incumbent) -> None:
        moves = self.moves(threat, batch.x)
        noisy = not self.early_stop and not classifier.deterministic
        rounds = max(self.queries // (self.draws * (2 if noisy else 1)), 1)
        state = moves.start(batch.streams)
        value, won = self._score(classifier, batch, moves.image(state), threat)
        count = torch.ones_like(value)  # scores averaged into `value`
        ahead = value.new_empty(len(batch), 0)  # random numbers of the queries to come
        for query in range(rounds):
            if self.early_stop and won.any():
                best.fooled(batch, won, moves.image(state))
                batch, moves, state, value, count, ahead = batch.keep(~won, moves, state, value, count, ahead)
                if not len(batch):
                    return
            if query == rounds - 1:
                break
            if query % moves.ahead == 0:
                ahead = moves.draw(batch.streams, min(moves.ahead, rounds - 1 - query))
            candidate = moves.propose(state, self.share(query, rounds), ahead[:, query % moves.ahead])
            new, won = self._score(classifier, batch, moves.image(candidate), threat)
            if noisy:
                again, _ = self._score(classifier, batch, moves.image(state), threat)
                count += 1
                value = value + (again - value) / count
            better = (new > value) | won if self.early_stop else new > value
            state = torch.where(per_example(better, state), candidate, state)
            value = torch.where(better, new, value)
            count = torch.where(better, 1.0, count)
        best.offer(batch.index, moves.image(state), value)

    def _score(
        self, classifier: Classifier, batch: Batch, x_adv: Images, threat: ThreatModel
    ) -> tuple[Float[Tensor, " batch"], Tensor]:
        outputs = classifier(x_adv, generator=batch.streams)
        value = batch.objective(outputs, batch.y)
        for _ in range(self.draws - 1):
            value = value + batch.objective(classifier(x_adv, generator=batch.streams), batch.y)
        return value / self.draws, fooled(outputs, batch.y, threat)
