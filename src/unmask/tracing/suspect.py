"""What an analysis finds: places whose gradient cannot be trusted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from .intercept.operations import plain_name
from .intercept.sites import Site
from .record.values import Record, Trace

Group = tuple[str, str, int]
Mechanism = Literal["shattered", "vanishing", "exploding", "stochastic"]


# In `Analysis.leading`: the gradient goes back to the input itself.
FROM_INPUT = -1


class Asks(Enum):
    """What kind of repair a symptom asks for. `repair/` and `remedies` propose by it and know no symptom by name."""

    REPLACE = "another derivative for the operation: a smooth surrogate, straight through, a measured slope"
    REOPEN = "a way on behind a cut"
    LESS_GAIN = "a derivative from where the function is not flat"
    FINITE = "a gradient that stays finite"
    RESCALE = "smaller logits before the loss"
    OWN_FORWARD = "the function's own forward, differentiated; an offer, until it wins"
    AVERAGE = "a mean over draws"
    FOLLOW_DRAWS = "the slope of what is drawn on average; an offer, until it wins"
    NOTHING = "none of its own: what it follows from is repaired"


# What is no reason to suspect a network by itself.
OFFERS = (Asks.OWN_FORWARD, Asks.FOLLOW_DRAWS)


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What an audit has measured when it decides which suspects deserve a name.

    **Fields**
    - `deterministic`: two passes over the same images give the same logits.
    - `gap`: accuracy that the best repaired gradient takes off the exact one, same attack and examples.
    - `naive_gap`: accuracy that the whole audit takes off the standard attack.
    - `gained`: the same, as far as luck does not explain it.
    - `steady`: mean cosine between the gradients of two draws at the same point; NaN where it was not measured.
    - `dead_cross_entropy`, `dead_margin`, `non_finite`: shares of clean examples, in [0, 1], whose exact gradient is
      zero or not finite.
    - `repaired`: the places where the winner of the race follows another gradient.
    """

    deterministic: bool
    gap: float = 0.0
    naive_gap: float = 0.0
    gained: float = 0.0
    steady: float = float("nan")
    dead_cross_entropy: float = 0.0
    dead_margin: float = 0.0
    non_finite: float = 0.0
    repaired: Collection[Group] = ()


@dataclass(frozen=True, kw_only=True)
class Symptom(ABC):
    """A way in which an operation spoils a gradient, and all that is decided by it.

    A detector makes `Suspect`s of it; the audit asks it whether a suspect deserves a name, and for the sentence; the
    repairs ask what it `asks` for. Nothing else tells symptoms apart.

    **Fields**
    - `name`: one word, distinct.
    - `mechanism`: what a finding counts it under (Athalye et al. 2018, arXiv:1802.00420, section 3).
    - `hidden`: the operation is a closed box to autograd, so that a surrogate may be learned for the whole of it.
    """

    name: str
    mechanism: Mechanism
    asks: Asks
    hidden: bool = False

    @abstractmethod
    def sentence(self, s: Suspect) -> str:
        """What was measured, for the report."""

    @abstractmethod
    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Whether it fooled an attack, or surely would."""

    def harmless(self, s: Suspect, m: Measurements) -> str:
        """What is worth knowing about it even where it is not confirmed, in a sentence, or ""."""
        return ""


@dataclass(frozen=True, eq=False)
class Suspect:
    """One place whose gradient cannot be trusted.

    **Fields**
    - `group`: name and place under which the operation is found again in another pass.
    - `kind`: as of `Record`.
    - `share`: share of the change of the logits that passes through it, in [0, 1]; NaN where it was not measured.
    - `statistics`: numbers for the report, by name.
    - `records`: its operations in the base run.
    """

    symptom: Symptom
    operation: str
    site: Site
    group: Group
    kind: str = "torch"
    share: float = float("nan")
    statistics: dict[str, float] = field(default_factory=dict)
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Origin:
    """A source of randomness.

    **Fields**
    - `operation`, `site`, `group`: what draws, where, and its name in another pass.
    - `python`: drawn by Python or NumPy code, not by a torch operation.
    - `effect`: largest change of a logit that this source alone causes, or NaN where it cannot be held still.
    """

    operation: str
    site: Site
    group: Group
    python: bool
    effect: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """All suspects, the runs that they were found in, and what was seen on the way.

    **Fields**
    - `base`: the recorded run on the images; `moved`: those on moved images, by the share of epsilon. Their graphs are
      gone; the numbers that repairs ask about are in `base` and `draws` (`asked.py`).
    - `deterministic`: neither at the images nor between them does another seed change the logits.
    - `controlled`: equal seeds give equal logits.
    - `origins`: where randomness enters.
    - `draws`: runs on the same input under different seeds, for a random network.
    - `leading`: the cuts behind which a gradient of the logits arrives: indices of operations, or `FROM_INPUT`.
    - `squashing`: the soft-max at the end of the network, where there is one.
    - `warning`: what could not be examined, or "".
    - `elsewhere`: an analysis at points where the network's code goes another way, of suspects that are no others'.
    """

    suspects: tuple[Suspect, ...]
    base: Trace
    moved: dict[float, Trace]
    deterministic: bool
    controlled: bool
    origins: tuple[Origin, ...]
    draws: tuple[Trace, ...] = ()
    leading: frozenset[int] = frozenset()
    squashing: Record | None = None
    warning: str = ""
    elsewhere: Analysis | None = None

    @property
    def everywhere(self) -> tuple[Suspect, ...]:
        """Its own suspects, and those elsewhere."""
        return self.suspects + (() if self.elsewhere is None else self.elsewhere.suspects)

    def where(self, *symptoms: Symptom) -> list[Suspect]:
        """Its own suspects of some symptoms."""
        return [s for s in self.suspects if s.symptom in symptoms]

    def asking(self, *kinds: Asks) -> list[Suspect]:
        """Its own suspects whose symptoms ask for some kinds of repair."""
        return [s for s in self.suspects if s.symptom.asks in kinds]


_OF_AN_OPERATOR = "GeneratedBackwardFor_"


def title(name: str, r: Record) -> str:
    """What a report calls the operation."""
    if name == "no_grad":
        return "torch.no_grad"
    if r.kind == "hook":
        return name
    if r.kind == "function":
        operator = name.removeprefix(_OF_AN_OPERATOR)  # torch writes the Function of such an operator itself
        return (
            f"{name} (autograd.Function)" if operator == name else f"{operator} (operator of torch.library)"
        )
    return name.strip("_") if r.kind != "torch" else f"torch.{name}"


def base_name(r: Record) -> str:
    """As of `plain_name`."""
    return plain_name(r.name)
