"""A diagnostic asks one question of a network or of an attack, and changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from torch import Tensor

from ..attacks import Attack
from ..classifier import Classifier
from ..judge import judge
from ..randomness import Streams
from ..threat import ThreatModel

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """What a diagnostic tried on the examples it was given, and what came of it: no point that breaks one is lost.

    **Fields**
    - `by`: the diagnostic's field that holds the attack; empty where it proposed the points itself.
    - `threat`: the ball in which it looked, which may be smaller or larger than the one under examination.
    - `x_adv`: shape of the examples.
    - `failure_rate`: `[batch]`, as the diagnostic judged them on `draws` fresh draws; None where it did not.
    """

    by: str
    threat: ThreatModel
    x_adv: Images
    failure_rate: Float[Tensor, " batch"] | None = None
    draws: int = 1


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a diagnostic measured.

    **Fields**
    - `name`: the diagnostic's name, stable.
    - `passed`: True for what an honest network under a sound attack shows, False for a symptom, None where
      nothing could be measured.
    - `value`: the one number that decided, or None.
    - `expected`: what `value` should be, in words.
    - `explanation`: one sentence for a reader.
    - `statistics`: everything else that was measured.
    - `decisive`: whether a failure alone proves that the *attack* is not to be trusted.
    - `curve`: points for a plot, where the diagnostic has one.
    - `tried`: the points behind all this.
    """

    name: str
    passed: bool | None
    value: float | None
    expected: str
    explanation: str
    statistics: dict[str, float] = field(default_factory=dict)
    decisive: bool = False
    curve: tuple[tuple[float, float], ...] = ()
    tried: tuple[Tried, ...] = field(default=(), compare=False, repr=False)


class Diagnostic(ABC):
    """Examines a classifier on a few examples. Mutates nothing, prints nothing."""

    @abstractmethod
    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        """Measures on `x` in the box with labels `y` (targets, if the threat model is targeted)."""


def tried(
    by: str,
    attack: Attack,
    classifier: Classifier,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    *,
    draws: int,
    generator: torch.Generator | Streams,
) -> Tried:
    """Runs an attack and has its result judged on `draws` fresh draws."""
    streams = Streams.of(generator, len(x))
    x_adv = attack.run(classifier, x, y, threat, generator=streams.fork("attack"))
    judgement = judge(classifier, x_adv, x, y, threat, draws=draws, generator=streams.fork("judge"))
    return Tried(by=by, threat=threat, x_adv=x_adv, failure_rate=judgement.failure_rate, draws=draws)


def rates(of: Tried) -> Float[Tensor, " batch"]:
    """Failure rates of something that was judged."""
    assert of.failure_rate is not None, of.by
    return of.failure_rate


def survives(failures: Float[Tensor, " batch"]) -> float:
    """Robust accuracy of per-example failure rates."""
    return 1.0 - float(failures.mean())


def breaks_more(
    first: Bool[Tensor, " batch"], second: Bool[Tensor, " batch"], *, level: float = 0.05
) -> bool:
    """Whether `first` breaks more of the same examples than `second`, beyond chance.

    The one-sided exact sign test on the examples that only one of the two breaks (McNemar 1947). Both sets
    come from the same examples, so that comparing two accuracies as if they were independent would miss most
    of what can be seen.

    >>> import torch
    >>> breaks_more(torch.ones(10, dtype=bool), torch.zeros(10, dtype=bool))
    True
    >>> breaks_more(torch.ones(3, dtype=bool), torch.zeros(3, dtype=bool))
    False
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first <= only_second:
        return False
    test = binomtest(only_first, only_first + only_second, 0.5, alternative="greater")
    return float(test.pvalue) < level
