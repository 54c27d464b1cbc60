"""Where randomness enters a network: the first operations that differ although everything before them is equal."""

from __future__ import annotations

from torch import Tensor

from ...classifier import Classifier
from ..intercept.operations import EXITS, UNSET
from ..intercept.sites import Frame, Site
from ..record.compare import equal, inputs_differ
from ..record.freeze import logits_with
from ..record.keeping import Recording
from ..record.values import Record, Trace
from ..suspect import Origin, Suspect
from ..symptoms.random import RANDOM
from .drawing import drawing_line
from .runs import Runs


def random_origins(
    recording: Recording, base: Trace, other: Trace, x: Tensor, seeds: tuple[int, int]
) -> list[Origin]:
    """Compares two runs on the same input, under two seeds or, where these do not rule all randomness, under one.

    **Cost**: one forward per origin that can be held still, and one recorded for all of these; two for a draw in Python
    that nobody saw.
    """
    classifier = recording.classifier

    def by_python(before: Record, after: Record) -> Origin:
        return _python_origin(classifier, x, seeds, base, before, after)

    found: dict[tuple[str, str, int], Record] = {}
    draws: list[Origin] = []
    left_torch = False  # a random number already became a Python number: what it steers is a consequence
    for before, after in zip(base.records, other.records, strict=False):
        if before.name in EXITS and before.key == after.key and inputs_differ(before, after):
            left_torch = True
        if before.key != after.key and left_torch:
            break
        if before.key != after.key:
            draws.append(by_python(before, after))
            break
        if inputs_differ(before, after):
            continue
        chosen = [
            (a, b)
            for a, b in zip(before.inputs, after.inputs, strict=True)
            if a.producer < 0 and a.fixed != b.fixed
        ]
        unknown = [(a, b) for a, b in chosen if not equal(a, b)]
        if left_torch and (unknown or before.scalars != after.scalars):
            continue
        if before.scalars != after.scalars or unknown:
            draws.append(by_python(before, after))
        elif before.name in UNSET:
            continue
        elif any(not equal(a, b) for a, b in zip(before.outputs, after.outputs, strict=False)):
            if before.kind == "source" or (not before.inputs and before.name in ("tensor", "as_tensor")):
                draws.append(by_python(before, after))
            else:
                found.setdefault(before.group, before)
    origins = {(o.site.file, o.site.line): o for o in draws}
    drawn = []
    if len(found) + len(draws) > 1:
        keys = {r.key for r in base.records if r.group in found}
        drawn = [r for r in recording.again(base, keys).records if r.key in keys]
    for group, first in found.items():
        held = [r for r in drawn if r.group != group]
        effect = float("nan")
        if len(found) + len(draws) > 1:
            logits = logits_with(classifier, x, held, seed=seeds[1])
            effect = float((logits - base.logits.detach()).abs().max())
            if effect == 0:
                continue  # drawn, but nothing depends on it
        else:
            effect = float((other.logits - base.logits).detach().abs().max())
        operation = f"torch.{first.name}" if first.kind == "torch" else first.name
        origins.setdefault(
            (first.site.file, first.site.line), Origin(operation, first.site, group, False, effect)
        )
    if not origins and found:  # each says what the others do, as where one draw seeds the next
        first = next(iter(found.values()))
        effect = float((other.logits - base.logits).detach().abs().max())
        operation = f"torch.{first.name}" if first.kind == "torch" else first.name
        return [Origin(operation, first.site, first.group, False, effect)]
    return list(origins.values())


def sources(runs: Runs, found: list[Suspect]) -> list[Suspect]:
    """Every origin of randomness."""
    return [
        Suspect(RANDOM, o.operation, o.site, o.group, statistics={"change_of_logits": o.effect})
        for o in runs.origins
    ]


def _python_origin(
    classifier: Classifier, x: Tensor, seeds: tuple[int, int], base: Trace, before: Record, after: Record
) -> Origin:
    """A draw in Python code: the draw itself where it was seen, else the line after which two passes differ."""
    # What was seen came from the global generators: under one seed these are not what differs.
    seen = [site for index, site in base.draws if index <= before.index and seeds[0] != seeds[1]]
    place = seen[-1] if seen else drawing_line(classifier, x, seeds)
    place = place or _shared(before.frames, after.frames) or before.site
    return Origin("Python-level randomness", place, ("python", place.file, place.line), True, float("nan"))


def _shared(one: list[Frame], two: list[Frame]) -> Site | None:
    """The innermost user frame up to which two stacks, read from outside, are the same."""
    last = None
    for a, b in zip(reversed(one), reversed(two), strict=False):
        if a.owner != b.owner:
            break
        if a.file:
            last = Site(a.file, a.line)
        if (a.file, a.line) != (b.file, b.line):
            break
    return last
