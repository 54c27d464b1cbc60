"""The detectors, in the order in which their suspects are told."""

from __future__ import annotations

from collections.abc import Callable

from ..suspect import Suspect
from ..symptoms.declared import DECLARED
from .declared import declared
from .misleading import misleading
from .origins import sources
from .runs import Runs
from .sampling import draws_beside
from .vanishing import vanishing_and_exploding

# Each is given the runs and what those before it have found. The places that lose the gradient come before them all:
# finding these takes forwards of the network (`losses.lost_gradients`).
DETECTORS: tuple[Callable[[Runs, list[Suspect]], list[Suspect]], ...] = (
    misleading,
    vanishing_and_exploding,
    sources,
    draws_beside,
    declared,
)


def detected(runs: Runs) -> list[Suspect]:
    """All suspects of these runs."""
    found = list(runs.lost)
    for detector in DETECTORS:
        found += detector(runs, found)
    return [s for s in found if not _around_another(s, found)]


def _around_another(s: Suspect, found: list[Suspect]) -> bool:
    """Whether it is an operator of `torch.library` with a function inside that misleads, whose stand-in says more."""
    misleads = (s for s in found if s.kind == "function" and s.symptom is not DECLARED)
    inside = {r.index for other in misleads for r in other.records}
    return s.kind == "torch" and any(n in inside for r in s.records for n in range(r.began, r.index))
