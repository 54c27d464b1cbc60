"""The nearest adversarial example that our attacks find, and whether they needed a repaired gradient for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..attacks import APGD, FAB, Attack, HopSkipJump, RayS
from ..classifier import Classifier
from ..errors import GradientFailed, Unsupported
from ..gradients import Exact, GradientEstimator
from ..objectives import margin_loss
from ..randomness import Streams
from ..remedies import candidates
from ..threat import Linf, ThreatModel, norm_ball
from ..tracing.analyse import Analysis, analyse
from ..tracing.suspect import Asks, Suspect
from .flat import by_search, by_walks
from .found import Found
from .shrinking import by_branches, by_descent

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]

# A repair counts as evidence of masking if it finds a point nearer than this share of the exact gradient's distance
# on at least that share of the examples. Ours.
NEARER = 0.8
OFTEN = 0.25
# Radii of the attacks with a fixed ball, as shares of the threat's. Ours.
LADDER = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Upper bounds of the distance to the decision boundary.

    **Fields**
    - `x_adv`: shape of `x`; the nearest point that meets the goal, `x` itself where none was found.
    - `distance`: `[batch]`, float64; +inf where none was found, 0 where `x` meets the goal already.
    - `exact_distance`: what the exact gradient alone reached.
    - `zero_at_x`: `[batch]`, whether the exact gradient of the margin at `x` is zero everywhere.
    - `masking`: where the gradient is masked, in words; empty if no masking was found.
    """

    x_adv: Images
    distance: Float[Tensor, " batch"]
    exact_distance: Float[Tensor, " batch"]
    zero_at_x: Bool[Tensor, " batch"]
    masking: str


@dataclass(frozen=True, kw_only=True)
class NearestSearch:
    """Attacks along the exact gradient, along every repair that the tracer proposes, and by labels alone.

    FAB looks for the nearest point. Its steps need slopes of the right length, which a repair cannot promise, so APGD,
    which needs their signs or directions only, climbs the margin loss in ever smaller balls as well, and each point is
    drawn back towards its example. Where the exact gradient is zero at `x`, or leads to no point at all, walks from
    the other images and searches without gradients follow (`flat`). At last every ball shrinks while something in it
    fools: a descent from the point that stands, and on small networks branch and bound, look for the next.

    **Fields**
    - `steps`, `restarts`: of FAB, each target class on its own; APGD takes as many steps. A repair gets no restart.
    - `targets`: classes that FAB aims at, the likeliest first; None for all.
    - `queries`: forwards of the decision-based attack, on examples that nothing else breaks; of a search in one ball
      a half.
    - `traced`: examples that are traced in search of masking.

    **Cost**: FAB and four APGDs, once and once more per proposed repair; on flat examples `by_walks` and
    `by_search`; then `by_descent` and `by_branches`.
    """

    steps: int = 50
    restarts: int = 2
    targets: int | None = 9
    queries: int = 2000
    traced: int = 8

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Nearest:
        """Searches the whole box, beyond `threat.epsilon` too; that radius is only the scale at which is traced.

        **Raises** `Unsupported` for a random network: it has no fixed decision boundary.
        """
        threat, streams = norm_ball(threat, "the search for the nearest point"), Streams.of(generator, len(x))
        few = slice(0, self.traced)
        analysis = analyse(
            classifier,
            x[few],
            y[few],
            threat,
            seed=streams.fork("trace").batch_seed(),
            generator=streams[few],
        )
        if not analysis.deterministic:
            raise Unsupported(
                "the network is random, so that no example has a fixed distance; use unmask audit, "
                "which judges it on fresh draws"
            )
        found = Found(classifier, x, y, replace(threat, epsilon=threat.widest(x.shape[1:])), streams)
        slope = Exact().estimate(classifier, margin_loss.for_goal(threat.goal), x, y, generator=streams)
        zero_at_x = (slope.grad.flatten(1) == 0).all(1)
        self._climb(found, Exact(), "exact", threat)
        exact_distance = found.distance
        flat = (zero_at_x | exact_distance.isinf()) & (exact_distance > 0)
        # CLEVER uses no cross-entropy.
        suspects = [s for s in analysis.suspects if s.symptom.asks is not Asks.RESCALE]
        repairs = _repairs(analysis, threat) if suspects else []
        for number, gradient in enumerate(repairs):
            # What this network cannot run, such as double precision where it casts by itself, is left out.
            with suppress(Unsupported):
                self._climb(found, gradient, f"repaired {number}", threat)
        if flat.any():
            by_walks(found, flat, threat, [Exact(), *repairs], steps=self.steps)
            by_search(found, flat, threat, queries=self.queries // 2)
        if (left := found.distance.isinf()).any():
            attack: Attack = HopSkipJump(queries=self.queries, early_stop=False)
            if isinstance(threat, Linf):
                attack = RayS(queries=self.queries, early_stop=False)
            if threat.goal == "untargeted":
                found.offer(attack, "labels", left.nonzero()[:, 0])
                found.walk_back()
        with suppress(GradientFailed):  # its own backward refuses
            by_descent(found)
        by_branches(found)
        return Nearest(
            found.x_adv,
            found.distance,
            exact_distance,
            zero_at_x & (found.distance > 0),
            _masking(suspects, exact_distance, found.distance),
        )

    def _climb(self, found: Found, gradient: GradientEstimator, tag: str, threat: ThreatModel) -> None:
        fab = FAB(
            steps=self.steps,
            restarts=self.restarts if isinstance(gradient, Exact) else 1,
            targets=self.targets,
            one_by_one=True,
            early_stop=False,
            gradient=gradient,
        )
        found.offer(fab, tag)
        apgd = APGD(steps=self.steps, objective=margin_loss, gradient=gradient)
        for share in LADDER:
            ball = replace(threat, epsilon=share * threat.epsilon)
            found.offer(apgd, f"{tag} {share}", found.farther(ball.epsilon), ball)
            found.walk_back()


def _repairs(analysis: Analysis, threat: ThreatModel) -> list[GradientEstimator]:
    """Every remedy of the margin's gradient that costs about a pass; the dear ones only where there is no other."""
    found = candidates(analysis, threat, deterministic=True, detector=False, draws=1)[1:]
    found = [c for c in found if c.objective == margin_loss]
    cheap = [c.gradient for c in found if c.passes <= 2]
    return cheap or [c.gradient for c in found]


def _masking(suspects: list[Suspect], exact: Tensor, best: Tensor) -> str:
    """Names the first suspect if its repair brought the examples notably nearer."""
    open_ = best > 0
    if not suspects or not open_.any():
        return ""
    nearer = best[open_] < NEARER * exact[open_]
    if float(nearer.double().mean()) < OFTEN:
        return ""
    first = suspects[0]
    return f"masked at {_short(str(first.site))} ({first.operation}: {first.symptom.name})"


def _short(place: str) -> str:
    """A place relative to the working directory, where it is inside it."""
    inside = Path(place).is_relative_to(Path.cwd())
    return str(Path(place).relative_to(Path.cwd())) if inside else place
