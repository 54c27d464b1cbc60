"""RayS: the nearest decision boundary along sign vectors, from labels alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..classifier import Classifier
from ..errors import Unsupported
from ..judge import fooled
from ..objectives import margin_loss
from ..randomness import Streams
from ..threat import Linf, ThreatModel
from .base import Attack, Cost, Images, Labels, Setting
from .batch import Batch, Incumbent

_HALVINGS = 10  # of the radius, after each better direction


@dataclass(frozen=True, kw_only=True)
class RayS(Attack):
    """Searches the sign vector along which the boundary is nearest, flipping ever smaller blocks of pixels.

    It sees the predicted class and nothing else, and it is deterministic. With `early_stop` an example leaves
    as soon as the boundary lies inside the ball; without, the distance is made as small as the queries allow.

    **Fields**
    - `queries`: forwards per example.

    **Cost**: at most `queries` forwards per example, no backward.
    **Raises** `Unsupported` for norms other than Linf.
    **Source**: Chen & Gu 2020, arXiv:2006.12792.
    **Differs**: the bisection ends after 10 halvings instead of at an absolute tolerance.
    """

    queries: int = 5000
    early_stop: bool = True

    def describe(self) -> str:
        return f"RayS-{self.queries} (labels only)"

    def fit(self, setting: Setting) -> Attack | None:
        """None for a random network: a bisection along a ray needs one boundary."""
        return None if setting.random else self

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
        if not isinstance(threat, Linf):
            raise Unsupported(
                f"`RayS` searches the Linf ball, not {type(threat).__name__}; use `HopSkipJump`"
            )
        x = x.detach()
        best = Incumbent(x)
        if len(x):
            with torch.no_grad():
                self._search(classifier, Batch.whole(x, y, generator, margin_loss), threat, best)
        return threat.settle(best.x_adv, x)

    def _search(self, classifier: Classifier, batch: Batch, threat: Linf, best: Incumbent) -> None:
        pixels = batch.x[0].numel()
        signs = torch.ones(len(batch), pixels, dtype=batch.x.dtype, device=batch.x.device)
        radius = batch.x.new_full((len(batch),), threat.widest(batch.x.shape[1:]))  # every pixel at a wall
        found = torch.zeros(len(batch), dtype=torch.bool, device=batch.x.device)
        used = torch.zeros(len(batch), dtype=torch.int64, device=batch.x.device)
        level, block = 0, -1  # block -1: the first direction itself, all ones
        while True:
            attempt = signs.clone()
            if block >= 0:
                size = -(-pixels // 2**level)
                attempt[:, block * size : (block + 1) * size] *= -1
            won = self._adversarial(classifier, batch, attempt, radius, threat)
            used += 1
            better = won.nonzero()[:, 0]
            if len(better):
                signs[better] = attempt[better]
                part = batch.take(better)
                radius[better] = self._bisect(classifier, part, attempt[better], radius[better], threat)
                used[better] += _HALVINGS
                found[better] = True

            near = found & (radius <= threat.epsilon)
            spent = used + 1 + _HALVINGS > self.queries
            leaving = (near & self.early_stop) | spent
            if leaving.any():
                length = radius.clamp_max(threat.epsilon)
                x_adv = batch.x + threat.from_units((length[:, None] * signs).reshape(batch.x.shape))
                value = torch.where(near & self.early_stop, torch.inf, -radius)
                best.offer(batch.index[leaving], x_adv[leaving], value[leaving])
                batch, signs, radius, found, used = batch.keep(~leaving, signs, radius, found, used)
                if not len(batch):
                    return

            block += 1
            if block * -(-pixels // 2**level) >= pixels:
                block = 0
                level = level + 1 if 2**level < pixels else 0

    def _adversarial(
        self,
        classifier: Classifier,
        batch: Batch,
        signs: Tensor,
        radius: Float[Tensor, " batch"],
        threat: Linf,
    ) -> Bool[Tensor, " batch"]:
        moved = batch.x + threat.from_units((radius[:, None] * signs).reshape(batch.x.shape))
        outputs = classifier(moved.clamp_(*threat.box), generator=batch.streams)
        return fooled(outputs, batch.y, threat)

    def _bisect(
        self,
        classifier: Classifier,
        batch: Batch,
        signs: Tensor,
        radius: Float[Tensor, " batch"],
        threat: Linf,
    ) -> Float[Tensor, " batch"]:
        """A smaller radius along the same direction that is still adversarial."""
        inner, outer = torch.zeros_like(radius), radius
        for _ in range(_HALVINGS):
            middle = (inner + outer) / 2
            won = self._adversarial(classifier, batch, signs, middle, threat)
            inner, outer = torch.where(won, inner, middle), torch.where(won, middle, outer)
        return outer
