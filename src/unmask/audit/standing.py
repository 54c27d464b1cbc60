"""Where an audit stands: the worst point found so far for every example, as the judge saw it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks import Attack
from ..attacks.base import Images, Labels
from ..classifier import Classifier, Meter
from ..judge import Judgement, judge
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import per_example
from .journal import Journal
from .progress import Progress

# A random network's example counts as broken for good at this failure rate on the selection draws. Ours.
SETTLED = 0.98


@dataclass(frozen=True)
class Spent:
    """What a step of the plan cost and brought."""

    recipe: str
    robust_accuracy: float
    newly_broken: int
    meter: Meter
    seconds: float


class Standing:
    """Per-example worst over everything tried, with every finished batch in the journal.

    **Arguments**
    - `classifier`: the network as deployed; every proposal is judged on it.
    - `draws`: fresh predictions per proposal while choosing; 1 if deterministic. The final score draws again.
    - `seed`, `index`: name each example's random streams, so that neither batch size nor order matters.
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
    ):
        self.classifier, self.x, self.y, self.threat = classifier, x, y, threat
        self.seed, self.index, self.draws = seed, index, draws
        self.batch_size, self.journal, self.progress = batch_size, journal, progress
        self.x_adv = x.clone()
        self.rate = torch.full((len(x),), -1.0, device=x.device)
        self.margin = torch.full((len(x),), -torch.inf, device=x.device)
        self.spent: list[Spent] = []
        self.track: list[tuple[int, int, float]] = []
        self.replayed = Meter()

    # --- what is known ---------------------------------------------------------------------------------------------

    @property
    def robust_accuracy(self) -> float:
        """Upper bound so far, on the draws that chose the points."""
        return float(1 - self.rate.clamp_min(0).mean())

    def streams(self, tag: str) -> Streams:
        """Each example's own random numbers for one step of the plan."""
        return Streams.seeded(self.seed, self.index, tag)

    def unbroken(self, fraction: float = 1.0) -> Tensor:
        """Indices of examples not yet broken for good, those nearest to breaking if only a fraction is wanted."""
        settled = 0.5 if self.classifier.deterministic else SETTLED
        left = (self.rate < settled).nonzero()[:, 0]
        if fraction >= 1:
            return left
        nearness = self.margin[left].nan_to_num(nan=-1e30, posinf=1e30, neginf=-1e30).double()
        order = nearness.argsort(descending=True, stable=True)
        return left[order[: math.ceil(fraction * len(left))]].sort().values

    def judged(self, x_adv: Images, tag: str, draws: int) -> Judgement:
        """Judges a point of every example on fresh draws; chooses nothing."""
        streams = self.streams(tag)
        seen = [
            judge(
                self.classifier,
                x_adv[part],
                self.x[part],
                self.y[part],
                self.threat,
                draws=draws,
                generator=streams[part],
            )
            for part in torch.arange(len(self.x), device=self.x.device).split(self.batch_size)
        ]
        return Judgement(*(torch.cat([getattr(s, f) for s in seen]) for f in Judgement.__dataclass_fields__))

    # --- doing something -------------------------------------------------------------------------------------------

    def attack(self, name: str, recipe: str, attack: Attack, chosen: Tensor) -> Tensor:
        """Runs an attack on the chosen examples, judges its proposals and keeps the worse.

        Returns this attack's own failure rates `[len(chosen)]`.
        """

        def propose(part: Tensor, streams: Streams) -> Images:
            return attack.run(self.classifier, self.x[part], self.y[part], self.threat, generator=streams)

        return self.step(name, recipe, propose, chosen)[0]

    def step(
        self, name: str, recipe: str, propose: Callable[[Tensor, Streams], Images], chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `attack`, for anything that makes proposals. Returns failure rates and margins of the proposals."""
        rates = torch.zeros(len(chosen), device=self.x.device)
        margins = torch.zeros(len(chosen), device=self.x.device)
        before, total, seconds, done, number = self.robust_accuracy, Meter(), 0.0, 0, 0
        broken_before = int((self.rate >= 0.5).sum())
        while done < len(chosen):
            entry = self.journal.get(f"{name}/{number}") if self.journal else None
            if entry is not None:
                part = entry.tensors["part"].to(self.x.device)
                rate, margin, x_adv = (
                    entry.tensors[k].to(self.x.device) for k in ("rate", "margin", "x_adv")
                )
                spent, took = Meter(**entry.record["meter"]), entry.record["seconds"]
                self.replay(spent)
            else:
                part = chosen[done : done + self.batch_size]
                began, meter = time.perf_counter(), self.classifier.meter.snapshot()
                try:
                    x_adv, rate, margin = self._propose(name, part, propose)
                except torch.OutOfMemoryError:
                    if self.batch_size == 1:
                        raise
                    self.batch_size = max(1, min(self.batch_size, len(part)) // 2)
                    self.progress.note(f"out of memory: going on with batches of {self.batch_size}")
                    continue
                spent, took = self.classifier.meter.since(meter), time.perf_counter() - began
                if self.journal:
                    record = {"meter": vars(spent), "seconds": took}
                    tensors = {"part": part, "rate": rate, "margin": margin, "x_adv": x_adv}
                    self.journal.put(f"{name}/{number}", record, tensors)
            self._keep(part, x_adv, rate, margin)
            rates[done : done + len(part)], margins[done : done + len(part)] = rate, margin
            self._add(total, spent)
            seconds, done, number = seconds + took, done + len(part), number + 1
            self.progress.update(self.robust_accuracy, done, len(chosen))
            spent_so_far = self.total_meter()
            self.track.append((spent_so_far.forwards, spent_so_far.backwards, self.robust_accuracy))
        if recipe:
            alone = 1 - float(rates.mean()) if len(chosen) else before
            newly = int((self.rate >= 0.5).sum()) - broken_before
            self.spent.append(Spent(recipe, alone, newly, total, seconds))
        return rates, margins

    def total_meter(self) -> Meter:
        """Everything spent, including what an interrupted run had spent before."""
        total = self.classifier.meter.snapshot()
        self._add(total, self.replayed)
        return total

    def replay(self, spent: Meter) -> None:
        """Counts what an interrupted run had spent before."""
        self._add(self.replayed, spent)

    @staticmethod
    def _add(total: Meter, more: Meter) -> None:
        total.forwards += more.forwards
        total.backwards += more.backwards
        total.judge_forwards += more.judge_forwards

    def _propose(
        self, name: str, part: Tensor, propose: Callable[[Tensor, Streams], Images]
    ) -> tuple[Images, Tensor, Tensor]:
        x, y = self.x[part], self.y[part]
        x_adv = self.threat.settle(propose(part, self.streams(name)[part]), x)
        generator = self.streams(f"{name} judged")[part]
        seen = judge(self.classifier, x_adv, x, y, self.threat, draws=self.draws, generator=generator)
        return x_adv, seen.failure_rate, seen.margin

    def _keep(self, part: Tensor, x_adv: Images, rate: Tensor, margin: Tensor) -> None:
        worse = (rate > self.rate[part]) | ((rate == self.rate[part]) & (margin > self.margin[part]))
        self.x_adv[part] = torch.where(per_example(worse, x_adv), x_adv, self.x_adv[part])
        self.rate[part] = torch.where(worse, rate, self.rate[part])
        self.margin[part] = torch.where(worse, margin, self.margin[part])
