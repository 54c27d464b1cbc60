"""Custom functions on the way: what a backward that somebody wrote by hand is worth, only an attack can tell."""

from __future__ import annotations

from ..record.compare import changed, twins_of
from ..suspect import Suspect, title
from ..symptoms.declared import DECLARED
from .runs import Runs

# What torch puts around a module that has backward hooks: an identity, and the hooks are seen at the module.
_AROUND_HOOKS = "BackwardHookFunction"


def declared(runs: Runs, found: list[Suspect]) -> list[Suspect]:
    """Every custom function whose result depends on the input and that nothing else has named.

    A straight-through estimator may be all that an attack needs, or lead it nowhere near what its forward does: no
    cosine at one point says which. Such a function is a suspect whose own forward enters the race, and is named only if
    that wins.
    """
    twins, known = twins_of(runs.moved), {s.group for s in found}
    suspects: dict[tuple[str, str, int], Suspect] = {}
    for r in runs.base.records:
        if r.kind != "function" or r.name == _AROUND_HOOKS or r.group in known or r.group in suspects:
            continue
        if any(v.carries for v in r.inputs) and any(changed(r, run.get(r.key)) for run in twins.values()):
            suspects[r.group] = Suspect(DECLARED, title(r.name, r), r.site, r.group, r.kind, records=(r,))
    return list(suspects.values())
