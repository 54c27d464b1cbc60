"""What an analysis finds: places whose gradient cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field

from .detect.origins import Origin
from .record.sites import Site
from .record.values import Record, Trace
from .repair.rules import Bridge

Group = tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class Suspect:
    """One place whose gradient cannot be trusted.

    **Fields**
    - `symptom`: `zero`, `discrete`, `cut`, `wrong`, `saturated`, `vanished`, `underflow`, `non_finite`, `random`,
      `opaque`, or `effect`: where a discrete decision comes back into the arithmetic.
    - `group`: name and place under which the operation is found again in another pass.
    - `share`: share of the change of the logits that passes through it, where that was measured.
    - `records`: its operations in the base run.
    """

    symptom: str
    operation: str
    site: Site
    group: Group
    kind: str = "torch"
    share: float = float("nan")
    statistics: dict[str, float] = field(default_factory=dict)
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, eq=False)
class Analysis:
    """All suspects, the runs that they were found in, and what was seen on the way.

    `stand_in` is a learned bridge and the cosine between its slopes and the changes seen, where one was learned.
    `draws` are runs on the same input under different seeds, for a random network.
    `warning`: what could not be examined, or "".
    """

    suspects: tuple[Suspect, ...]
    base: Trace
    moved: dict[float, Trace]
    deterministic: bool
    controlled: bool
    origins: tuple[Origin, ...]
    draws: tuple[Trace, ...] = ()
    stand_in: tuple[Bridge, float] | None = None
    warning: str = ""

    def where(self, *symptoms: str) -> list[Suspect]:
        """The suspects of some symptoms."""
        return [s for s in self.suspects if s.symptom in symptoms]


def title(name: str, r: Record) -> str:
    """What a report calls the operation."""
    if name == "no_grad":
        return "torch.no_grad"
    if r.kind == "hook":
        return name
    if r.kind == "function":
        return f"{name} (autograd.Function)"
    return name.strip("_") if r.kind != "torch" else f"torch.{name}"


def base_name(r: Record) -> str:
    """Without the underscore of an in-place form."""
    return r.name if r.name.startswith("__") else r.name.rstrip("_")
