"""The cascade: cheap attacks on everything, dear ones only where the margin is already small."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..judge import fooled
from ..objectives import Undetected, margin
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import Outputs, per_example
from .base import Attack, Images, Labels
from .targeted_apgd import TargetedAPGD


@dataclass(frozen=True)
class Stage:
    """One step of a cascade.

    **Fields**
    - `name`: distinct within a cascade; it labels the record and seeds the stage's randomness.
    - `attack`: what runs.
    - `fraction`: share, in (0, 1], of the examples not yet broken that it runs on: those of lowest margin.
    """

    name: str
    attack: Attack
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UnusableInput(f"stage `{self.name}` has fraction={self.fraction}; give a number in (0, 1]")


@dataclass(frozen=True)
class StageRecord:
    """What one stage did: how many examples it ran on and broke, and what that cost, scoring included."""

    name: str
    attacked: int
    newly_broken: int
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where a cascade stands after a stage.

    **Fields**
    - `x_adv`: the best point found for each example, shape of `x`.
    - `broken`: `[batch]`, whether that point met the goal when it was scored. The judge has the last word.
    - `value`: `[batch]`, its margin (largest other logit minus the label's), less what a detector objects.
    - `records`: one per stage so far; the first, `clean`, scores the examples as they came.
    """

    x_adv: Images
    broken: Bool[Tensor, " batch"]
    value: Float[Tensor, " batch"]
    records: tuple[StageRecord, ...]


def run_stages(
    classifier: Classifier,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    stages: Sequence[Stage],
    *,
    generator: torch.Generator | Streams,
    start: Images | None = None,
    draws: int = 1,
    batch_size: int = 256,
    after_stage: Callable[[Progress], None] | None = None,
) -> Progress:
    """Runs the stages in order, each on the examples of lowest margin that none before has broken.

    Each stage's proposals are scored once more and kept where they raise the margin, so that nothing found is
    lost. An example's randomness does not depend on the others; whether a stage with a `fraction` runs on it
    does.

    **Arguments**
    - `start`: points of ball and box to go on from, for instance another attack's or an interrupted run's;
      `x` if None.
    - `draws`: scores are margins of the mean logits over this many predictions (each of `classifier.passes`
      forwards). A random network needs several, and attacks without early stop.
    - `batch_size`: examples that are attacked at once. Halved, for good, when memory runs out.
    - `after_stage`: called with the state after each stage, the first scoring included.

    **Cost**: that of the stages, and `draws * passes` forwards per example and stage for scoring.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise UnusableInput(f"the stages are named {', '.join(names)}; every stage needs a name of its own")
    return _Cascade(classifier, x, y, threat, Streams.of(generator, len(x)), draws, batch_size).run(
        stages, x if start is None else start, after_stage
    )


class _Cascade:
    """The state of one run."""

    def __init__(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        streams: Streams,
        draws: int,
        batch_size: int,
    ):
        self.classifier, self.x, self.y, self.threat, self.streams = classifier, x, y, threat, streams
        self.draws = 1 if classifier.deterministic else draws * classifier.passes
        self.batch_size = batch_size
        self.x_adv = x.clone()
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.value = torch.full((len(x),), -torch.inf, device=x.device)
        self.records: tuple[StageRecord, ...] = ()

    def run(
        self, stages: Sequence[Stage], start: Images, after_stage: Callable[[Progress], None] | None
    ) -> Progress:
        everyone = torch.arange(len(self.x), device=self.x.device)
        self._record("clean", everyone, lambda part: start[part])
        if after_stage:
            after_stage(self._progress())
        for stage in stages:
            if self.threat.goal == "targeted" and isinstance(stage.attack, TargetedAPGD):
                continue  # it chooses its own targets; here the target is given
            streams = self.streams.fork(stage.name)
            attack = stage.attack

            def propose(part: Tensor, attack: Attack = attack, streams: Streams = streams) -> Images:
                return attack.run(
                    self.classifier, self.x[part], self.y[part], self.threat, generator=streams[part]
                )

            self._record(stage.name, self._lowest(stage.fraction), propose)
            if after_stage:
                after_stage(self._progress())
        return self._progress()

    def _progress(self) -> Progress:
        return Progress(self.x_adv.clone(), self.broken.clone(), self.value.clone(), self.records)

    def _lowest(self, fraction: float) -> Tensor:
        """Indices of the unbroken examples nearest to breaking, ascending. A margin of NaN comes last."""
        left = (~self.broken).nonzero()[:, 0]
        nearness = self.value[left].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        nearest = nearness.argsort(descending=True, stable=True)[: math.ceil(fraction * len(left))]
        return left[nearest].sort().values

    def _record(self, name: str, chosen: Tensor, propose: Callable[[Tensor], Images]) -> None:
        before, began = self.classifier.meter.snapshot(), time.perf_counter()
        broken_before = int(self.broken.sum())
        done = 0
        while done < len(chosen):
            part = chosen[done : done + self.batch_size]
            try:
                self._offer(name, part, propose(part))
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, min(self.batch_size, len(part)) // 2)
                continue
            done += len(part)
        spent = self.classifier.meter.since(before)
        self.records += (
            StageRecord(
                name,
                len(chosen),
                int(self.broken.sum()) - broken_before,
                spent.forwards,
                spent.backwards,
                time.perf_counter() - began,
            ),
        )

    def _offer(self, name: str, part: Tensor, x_adv: Images) -> None:
        """Scores proposals and keeps those that break their example or raise its margin."""
        y, streams = self.y[part], self.streams.fork(f"score {name}")[part]
        with torch.no_grad():
            outputs = self.classifier(x_adv, generator=streams)
            for n in range(2, self.draws + 1):
                outputs = _running_mean(outputs, self.classifier(x_adv, generator=streams), n)
        value = Undetected(margin).for_goal(self.threat.goal)(outputs, y)
        won = fooled(outputs, y, self.threat)
        better = won | (value > self.value[part])
        self.x_adv[part] = torch.where(per_example(better, x_adv), x_adv, self.x_adv[part])
        self.value[part] = torch.where(better, value.to(self.value.dtype), self.value[part])
        self.broken[part] |= won


def _running_mean(mean: Outputs, new: Outputs, n: int) -> Outputs:
    score = mean.detector_score
    if score is not None and new.detector_score is not None:
        score = score + (new.detector_score - score) / n
    return Outputs(mean.logits + (new.logits - mean.logits) / n, score)


@dataclass(frozen=True, kw_only=True)
class Cascade(Attack):
    """Stages of rising cost on ever fewer examples: an ensemble at a fraction of the price.

    An example leaves once it is broken, and what still is breakable after a few steps lies among the lowest
    margins.

    **Fields**
    - `stages`: what runs, in order; `budgets.quick`, `standard` and `thorough` make some.
    - `draws`, `batch_size`: as for `run_stages`, which also tells what each stage did.

    **Cost**: that of the stages, each times its `fraction`; and one forward per stage for scoring.
    **Source**: ours; the parts are Croce & Hein 2020 (arXiv:2003.01690) and Andriushchenko et al. 2020
    (arXiv:1912.00049).
    """

    stages: tuple[Stage, ...]
    draws: int = 1
    batch_size: int = 256

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        return run_stages(
            classifier,
            x,
            y,
            threat,
            self.stages,
            generator=generator,
            draws=self.draws,
            batch_size=self.batch_size,
        ).x_adv
