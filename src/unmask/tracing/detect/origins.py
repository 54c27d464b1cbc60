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
from ..suspect import Group, Origin, Suspect
from ..symptoms.random import RANDOM
from .drawing import drawing_line
from .runs import Runs


def random_origins(
    recording: Recording, base: Trace, other: Trace, x: Tensor, seeds: tuple[int, int]
) -> list[Origin]:
    """Compares two runs on the same input, under two seeds or, where these do not rule all randomness, under one.

    `x`: `[batch, …]`, that input.

    **Cost**: one forward per origin that can be held still, and one recorded for all of these; two for a draw in Python
    that nobody saw.
    """
    draws, found = _places(base, other)
    classifier = recording.classifier
    origins = [_python_origin(classifier, x, seeds, base, before, after) for before, after in draws]
    places = {(o.site.file, o.site.line): o for o in origins}
    drawn = []
    if len(found) + len(draws) > 1:
        keys = {r.key for r in base.records if r.group in found}
        drawn = [r for r in recording.again(base, keys).records if r.key in keys]
    whole = float((other.logits - base.logits).detach().abs().max())
    for group, first in found.items():
        effect = whole
        if len(found) + len(draws) > 1:
            held = [r for r in drawn if r.group != group]
            logits = logits_with(classifier, x, held, seed=seeds[1])
            effect = float((logits - base.logits.detach()).abs().max())
        if effect or len(found) + len(draws) == 1:  # else it is drawn, but nothing depends on it
            places.setdefault((first.site.file, first.site.line), _origin(first, effect))
    if not places and found:  # each says what the others do, as where one draw seeds the next
        return [_origin(next(iter(found.values())), whole)]
    return list(places.values())


def _places(base: Trace, other: Trace) -> tuple[list[tuple[Record, Record]], dict[Group, Record]]:
    """Where two runs part although all before was equal: draws in Python, and operations of torch's by their group."""
    draws: list[tuple[Record, Record]] = []
    found: dict[Group, Record] = {}
    left_torch = False  # a random number already became a Python number: what it steers is a consequence
    for before, after in zip(base.records, other.records, strict=False):
        same, differ = before.key == after.key, inputs_differ(before, after)
        if before.name in EXITS and same and differ:
            left_torch = True
        if not same:
            return draws + ([] if left_torch else [(before, after)]), found
        if differ:
            continue
        if _chosen_otherwise(before, after):
            draws += [] if left_torch else [(before, after)]
        elif before.name not in UNSET and not _same_outputs(before, after):
            if before.kind == "source" or (not before.inputs and before.name in ("tensor", "as_tensor")):
                draws.append((before, after))
            else:
                found.setdefault(before.group, before)
    return draws, found


def _chosen_otherwise(before: Record, after: Record) -> bool:
    """Whether Python code gave an operation other numbers, or other tensors of its own."""
    chosen = [
        (a, b)
        for a, b in zip(before.inputs, after.inputs, strict=True)
        if a.producer < 0 and a.fixed != b.fixed
    ]
    return before.scalars != after.scalars or any(not equal(a, b) for a, b in chosen)


def _same_outputs(before: Record, after: Record) -> bool:
    return all(equal(a, b) for a, b in zip(before.outputs, after.outputs, strict=False))


def _origin(first: Record, effect: float) -> Origin:
    """An operation of torch's that drew; `effect` is the largest change of a logit."""
    operation = f"torch.{first.name}" if first.kind == "torch" else first.name
    return Origin(operation, first.site, first.group, False, effect)


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
