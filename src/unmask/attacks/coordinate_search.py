"""Coordinate search: one feature after the other at the best of a grid of its reachable values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..judge import fooled
from ..objectives import Objective, margin_loss
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, norm_ball
from .base import Attack, Cost, Images, Labels, Setting, beside
from .batch import Batch, Incumbent

_RANDOM_DRAWS = 4  # forwards averaged into one score of a random network; ours
_ELEMENTS = 256  # of a vector, beyond which a plan leaves this out; ours
_FEWEST = 2  # values of a feature: the ends of its range


@dataclass(frozen=True, kw_only=True)
class CoordinateSearch(Attack):
    """Tries a grid of the values that each feature can take, and keeps what raises the objective most.

    Score cards, trees and tables of points are flat almost everywhere and go up and down along a feature: no slope
    says where, and random search, which sits on the edge of the ball, jumps over what lies inside. First every feature
    is tried alone; then the best values of the first 1, 2, … features together, in the order of their gains; then one
    feature after the other from the point that stands, until a sweep changes nothing. Where the margin of two classes
    is a sum over the features, the second is the worst case under Linf, up to the grid. What only pays when two
    features move at once from a flat place is not found.

    Of equal values the least change is kept. Under L2 and L1 a candidate is projected, so that the other features give
    way to the one that moves.

    **Fields**
    - `queries`: forwards per example. They bound the grid: about half are for the first look at all features.
    - `grid`: values tried a feature, at most.
    - `objective`: what a change must raise to be kept.
    - `draws`: forwards averaged into one score, out of `queries`; for random networks.
    - `early_stop`: leave at the first query that fools.

    **Cost**: at most `queries` forwards per example, no backward; `grid + 1` of them, or one a feature, in a batch.
    **Raises** `Unsupported` where few pixels change: use `SparseRS`.
    **Source**: coordinate ascent with the best value of each coordinate, as surveyed by Wright 2015 (arXiv:1502.04759).
    **Differs**: a grid instead of an exact search; the order by gains and the joint step are ours.
    """

    queries: int = 1000
    grid: int = 16
    objective: Objective = margin_loss
    draws: int = 1
    early_stop: bool = True

    def describe(self) -> str:
        return f"coordinate search-{self.queries}"

    def fit(self, setting: Setting) -> Attack | None:
        """Past the setting's detector, and to the end where it is random; None but for vectors of few features."""
        if len(setting.shape) != 1 or setting.shape[0] > _ELEMENTS:
            return None
        draws = max(self.draws, _RANDOM_DRAWS) if setting.random else self.draws
        objective = beside(self.objective, setting.detector)
        return replace(self, draws=draws, early_stop=not setting.random, objective=objective)

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
        threat, x = norm_ball(threat, "`CoordinateSearch`"), x.detach()
        best = Incumbent(x)
        if x.numel():
            with torch.no_grad():
                batch = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
                _Search(self, classifier, threat, best).run(batch)
        return threat.settle(best.x_adv, x)


class _Search:
    """One run: what its steps share, and how many queries are left."""

    def __init__(self, attack: CoordinateSearch, classifier: Classifier, threat: NormBall, best: Incumbent):
        self.attack, self.classifier, self.threat, self.best = attack, classifier, threat, best
        self.left = max(attack.queries // attack.draws, 1)  # scores of an example

    def run(self, batch: Batch) -> None:
        features = batch.x[0].numel()
        shares = self._shares(features, batch.x)
        x_adv = batch.x.clone()
        gains = batch.x.new_full((len(batch), features), -torch.inf, dtype=torch.float64)
        alone = batch.x.flatten(1).clone()  # the best value of each feature
        for feature in range(features):
            if self.left <= len(shares):
                break
            column = torch.full_like(batch.index, feature)
            points = self._along(batch, x_adv, column, shares)
            value, chosen, won = self._best_of(batch, points)
            gains[:, feature] = _gain(value, chosen)
            alone[:, feature] = _picked(points, chosen).flatten(1)[:, feature]
            batch, x_adv, gains, alone = batch.keep(~won, x_adv, gains, alone)
            if not len(batch):
                return
        self._sweeps(*self._together(batch, alone, gains), shares)

    def _shares(self, features: int, like: Tensor) -> Float[Tensor, " values"]:
        """Of the way to either end of a feature's range, and whether up or down by the sign; the least first."""
        values = min(self.attack.grid, max(self.left // (2 * features) - 1, _FEWEST))
        steps = torch.arange(1, values // 2 + 1, dtype=like.dtype, device=like.device) / (values // 2)
        return torch.stack([steps, -steps], 1).flatten()

    def _along(
        self, batch: Batch, x_adv: Images, column: Int[Tensor, " batch"], shares: Tensor
    ) -> Float[Tensor, "batch points *dims"]:
        """The point that stands, and those with one feature, each example's own, elsewhere in its range."""
        threat, flat = self.threat, batch.x.flatten(1)
        reach = (torch.ones_like(batch.x) * threat.reach(batch.x)).flatten(1)
        here, far = (rows.gather(1, column[:, None]) for rows in (flat, reach))
        up, down = ((here + side * far).clamp(*threat.box) - here for side in (1, -1))
        values = here + torch.where(shares > 0, up, -down) * shares
        points = x_adv.flatten(1)[:, None].repeat(1, 1 + len(shares), 1)
        places = column[:, None, None].expand(-1, len(shares), 1)
        points[:, 1:].scatter_(2, places, values[..., None])
        return self._allowed(batch, points)

    def _allowed(self, batch: Batch, points: Tensor) -> Float[Tensor, "batch points *dims"]:
        """In ball and box."""
        many, shape = points.shape[1], batch.x.shape[1:]
        x = batch.x.repeat_interleave(many, 0)
        return self.threat.project(points.reshape(x.shape), x).reshape(-1, many, *shape)

    def _best_of(self, batch: Batch, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values `[batch, points]`, which is best, and the examples that leave: their points are taken in."""
        many = points.shape[1]
        rows = torch.arange(len(batch), device=points.device).repeat_interleave(many)
        each, total, won = batch.take(rows), 0.0, torch.zeros_like(rows, dtype=torch.bool)
        for _ in range(self.attack.draws):
            outputs = self.classifier(points.flatten(0, 1), generator=each.streams)
            total = total + each.objective(outputs, each.y)
            won |= fooled(outputs, each.y, self.threat)
        self.left -= many
        value = (
            torch.as_tensor(total)
            .double()
            .div(self.attack.draws)
            .nan_to_num(nan=-torch.inf)
            .reshape(-1, many)
        )
        won = won.reshape(-1, many)
        chosen = value.argmax(1)  # the first of equals
        leaves = won.any(1) & self.attack.early_stop
        chosen = torch.where(leaves, value.masked_fill(~won, -torch.inf).argmax(1), chosen)
        self.best.fooled(batch, leaves, _picked(points, chosen))
        return value, chosen, leaves

    def _together(self, batch: Batch, alone: Tensor, gains: Tensor) -> tuple[Batch, Images, Tensor, Tensor]:
        """The best of the points in which the features that gain most are at their best values, so many at a time.

        Of those that stay: the point, its value, and the gains.
        """
        most = min(gains.shape[1], self.left)
        rank = gains.argsort(dim=1, descending=True, stable=True).argsort(1)
        among = torch.arange(most, device=gains.device)[None, :, None] > rank[:, None] - 1
        flat = batch.x.flatten(1)[:, None]
        points = torch.where(among & (gains > 0)[:, None], alone[:, None], flat)
        if most < 1:
            return batch, batch.x.clone(), torch.full_like(gains[:, 0], -torch.inf), gains
        points = self._allowed(batch, points)
        values, chosen, won = self._best_of(batch, points)
        value = values.gather(1, chosen[:, None])[:, 0]
        batch, x_adv, value, gains = batch.keep(~won, _picked(points, chosen), value, gains)
        return batch, x_adv, value, gains

    def _sweeps(self, batch: Batch, x_adv: Images, value: Tensor, gains: Tensor, shares: Tensor) -> None:
        """One feature after the other from a point of that value, until nothing improves or the queries are spent."""
        shares = torch.cat([shares.new_zeros(1), shares])  # back to where it was
        while len(batch):
            order = gains.argsort(dim=1, descending=True, stable=True)
            moved = torch.zeros(len(batch), dtype=torch.bool, device=x_adv.device)
            for place in range(order.shape[1]):
                if self.left <= len(shares):
                    self.best.offer(batch.index, x_adv, value)
                    return
                column = order[:, place]
                points = self._along(batch, x_adv, column, shares)
                values, chosen, won = self._best_of(batch, points)
                gains.scatter_(1, column[:, None], _gain(values, chosen)[:, None])
                x_adv, moved = _picked(points, chosen), moved | (chosen > 0)
                value = values.gather(1, chosen[:, None])[:, 0]
                batch, x_adv, gains, order, moved, value = batch.keep(~won, x_adv, gains, order, moved, value)
                if not len(batch):
                    return
            self.best.offer(batch.index[~moved], x_adv[~moved], value[~moved])
            batch, x_adv, gains, value = batch.keep(moved, x_adv, gains, value)


def _gain(value: Tensor, chosen: Tensor) -> Tensor:
    """What the best point has over the first, the one that stands."""
    best = value.gather(1, chosen[:, None])[:, 0]
    return (best - value[:, 0]).nan_to_num(nan=-math.inf)


def _picked(points: Tensor, chosen: Tensor) -> Images:
    """Of each example's points the chosen one."""
    return points[torch.arange(len(points), device=points.device), chosen]
