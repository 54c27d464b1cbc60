"""Where an audit stands: the worst point found so far for every example, as the judge saw it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...attacks import Attack
from ...attacks.base import Ascent, Images, Labels
from ...classifier import Classifier, Meter
from ...judge import Judgement, judge
from ...randomness import Streams
from ...threat import ThreatModel
from ...worst_case import WorstCase
from ..runtime.journal import Journal
from ..runtime.processes import Processes
from ..runtime.progress import Progress
from .rounds import Rounds

# A random network's example counts as broken for good at this failure rate on the selection draws. Ours.
SETTLED = 0.98

Propose = Callable[[Tensor, Streams], Images]


@dataclass(frozen=True)
class Spent:
    """What a step of the plan cost and brought."""

    recipe: str
    robust_accuracy: float
    newly_broken: int
    meter: Meter
    seconds: float
    examples: int
    ascent: Ascent


class Standing:
    """Per-example worst over everything tried, with every finished batch in the journal.

    **Arguments**
    - `classifier`: the network as deployed; every proposal is judged on it.
    - `y`: labels; under a targeted goal the classes to reach.
    - `draws`: fresh predictions per proposal while choosing; 1 if deterministic. The final score draws again.
    - `seed`, `index`: name each example's random streams, so that neither batch size nor order matters.
    - `batch_size`, `journal`, `processes`, `elsewhere`: as of `Rounds`; all processes know the whole standing.
    """

    def __init__(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        seed: int,
        index: Tensor,
        draws: int,
        batch_size: int,
        journal: Journal | None,
        progress: Progress,
        processes: Processes | None = None,
        elsewhere: Meter | None = None,
    ):
        self.classifier, self.x, self.y, self.threat = classifier, x, y, threat
        self.seed, self.index, self.draws = seed, index, draws
        self.rounds = Rounds(
            classifier.meter, batch_size, journal, progress, processes or Processes(), elsewhere
        )
        self.progress = progress
        self.worst = WorstCase(x)  # by failure rate; -inf until the clean images have been judged
        self.seen = torch.zeros(len(x), device=x.device)  # draws behind each rate
        self.mute = torch.zeros(
            len(x), dtype=torch.bool, device=x.device
        )  # no finite logits at a point of theirs
        self.spent: list[Spent] = []
        self.track: list[tuple[int, int, float]] = []

    # --- what is known ---------------------------------------------------------------------------------------------

    @property
    def x_adv(self) -> Images:
        """The worst point of every example."""
        return self.worst.x_adv

    @property
    def rate(self) -> Tensor:
        """`[examples]`, its failure rate on the draws that chose it."""
        return self.worst.value

    @property
    def margin_loss(self) -> Tensor:
        """`[examples]`, its margin loss."""
        return self.worst.margin_loss

    @property
    def robust_accuracy(self) -> float:
        """Upper bound so far, on the draws that chose the points."""
        return float(1 - self.rate.clamp_min(0).mean())

    @property
    def broken(self) -> int:
        """How many examples fail on at least half of those draws."""
        return int((self.rate >= 0.5).sum())

    def streams(self, tag: str) -> Streams:
        """Each example's own random numbers for one step of the plan."""
        return Streams.seeded(self.seed, self.index, tag)

    def unbroken(self, fraction: float = 1.0) -> Tensor:
        """Indices of examples not yet broken for good, those nearest to breaking if only a fraction is wanted."""
        settled = 0.5 if self.classifier.deterministic else SETTLED
        left = (self.rate < settled).nonzero()[:, 0]
        if fraction >= 1:
            return left
        nearness = self.margin_loss[left].nan_to_num(nan=-1e30, posinf=1e30, neginf=-1e30).double()
        order = nearness.argsort(descending=True, stable=True)
        return left[order[: math.ceil(fraction * len(left))]].sort().values

    def judged(
        self, x_adv: Images, tag: str, draws: int, *, goal: tuple[Labels, ThreatModel] | None = None
    ) -> Judgement:
        """Judges a point of every example on fresh draws; chooses nothing. `goal` may be another than the attacks'.

        A network that draws once for a batch is asked about each example alone: else they fail together, and no
        number of them says how far their mean is luck.
        """
        y, threat = goal or (self.y, self.threat)
        everyone, streams = torch.arange(len(self.x), device=self.x.device), self.streams(tag)

        def by(classifier: Classifier) -> Judgement:
            def seen(part: Tensor) -> dict[str, Tensor]:
                mine, of = streams[part], (x_adv[part], self.x[part], y[part], threat)
                return vars(judge(classifier, *of, draws=draws, generator=mine))

            return Judgement(**self.rounds.over(everyone, seen))

        found = by(self.classifier)
        if not found.drawn_together(draws):
            return found
        return replace(by(self.classifier.replace(alone=True)), shared=found.shared)

    # --- doing something -------------------------------------------------------------------------------------------

    def attack(self, name: str, recipe: str, attack: Attack, chosen: Tensor) -> Tensor:
        """Runs an attack on the chosen examples, judges its proposals and keeps the worse.

        Returns this attack's own failure rates `[len(chosen)]`.
        """

        def propose(part: Tensor, streams: Streams) -> Images:
            return attack.run(self.classifier, self.x[part], self.y[part], self.threat, generator=streams)

        return self.step(name, recipe, propose, chosen, ascent=attack.ascent)[0]

    def step(
        self, name: str, recipe: str | None, propose: Propose, chosen: Tensor, *, ascent: Ascent = "none"
    ) -> tuple[Tensor, Tensor]:
        """As `attack`, for anything that makes proposals; one without a recipe is no attack, and not listed.

        Returns failure rates and margin losses of the proposals.
        """
        rates = torch.zeros(len(chosen), device=self.x.device)
        losses = torch.zeros(len(chosen), device=self.x.device)
        before, total, seconds, done, number = self.robust_accuracy, Meter(), 0.0, 0, 0
        broken_before = self.broken
        while done < len(chosen):
            part = chosen[done : done + self.rounds.size]
            found, spent, took = self.rounds.run(
                f"{name}/{number}", part, lambda mine: self._propose(name, mine, propose)
            )
            part = found["part"]
            self._keep(**found)
            rates[done : done + len(part)] = found["rate"]
            losses[done : done + len(part)] = found["margin_loss"]
            total.add(spent)
            seconds, done, number = seconds + took, done + len(part), number + 1
            self.progress.update(self.robust_accuracy, done, len(chosen))
            spent_so_far = self.rounds.total()
            self.track.append((spent_so_far.forwards, spent_so_far.backwards, self.robust_accuracy))
        if recipe is not None:
            alone = 1 - float(rates.mean()) if len(chosen) else before
            newly = self.broken - broken_before
            self.spent.append(Spent(recipe, alone, newly, total, seconds, len(chosen), ascent))
        return rates, losses

    def _propose(self, name: str, part: Tensor, propose: Propose) -> dict[str, Tensor]:
        """A proposal, what the judge saw of it, and of a random network what two points show on further draws."""
        x, y = self.x[part], self.y[part]
        x_adv = self.threat.settle(propose(part, self.streams(name)[part]), x)
        generator = self.streams(f"{name} judged")[part]
        seen = judge(self.classifier, x_adv, x, y, self.threat, draws=self.draws, generator=generator)
        found = {
            "x_adv": x_adv,
            "rate": seen.failure_rate,
            "margin_loss": seen.margin_loss,
            "finite": seen.finite,
        }
        if not self.classifier.deterministic:
            found["again"] = self._again(name, part, x_adv, seen.failure_rate)
        return found

    def _again(self, name: str, part: Tensor, x_adv: Images, rate: Tensor) -> Tensor:
        """Failure rates `[2, len(part)]` of proposal and incumbent on the same fresh draws; NaN where none is needed.

        Of many proposals judged on a few draws each, the best-looking is the luckiest: whoever looks better than the
        incumbent must do so twice.
        """
        again = torch.full((2, len(part)), torch.nan, device=self.x.device)
        rows = ((self.rate[part] >= 0) & (rate > self.rate[part])).nonzero()[:, 0]
        if len(rows):
            some = part[rows]
            for n, points in enumerate((x_adv[rows], self.x_adv[some])):
                generator = self.streams(f"{name} judged again")[some]
                of = (points, self.x[some], self.y[some], self.threat)
                seen = judge(self.classifier, *of, draws=self.draws, generator=generator)
                again[n, rows] = seen.failure_rate
        return again

    def _keep(
        self,
        part: Tensor,
        x_adv: Images,
        rate: Tensor,
        margin_loss: Tensor,
        finite: Tensor,
        again: Tensor | None = None,
    ) -> None:
        self.mute[part] |= ~finite
        kept, seen = self.rate[part], self.seen[part]
        draws = torch.full_like(seen, self.draws)
        if again is not None:
            met = ~torch.isnan(again[0])
            rate = torch.where(met, (rate + again[0]) / 2, rate)
            kept = torch.where(met, (kept * seen + again[1] * self.draws) / (seen + self.draws), kept)
            seen, draws = seen + met * self.draws, draws + met * self.draws
        self.worst.value[part] = kept
        worse = self.worst.offer(part, x_adv, rate, margin_loss)
        self.seen[part] = torch.where(worse, draws, seen)
