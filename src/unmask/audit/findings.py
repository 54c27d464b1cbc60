"""From suspects and measurements to findings: a suspect is named only if it fooled an attack, or surely would."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks.base import Labels
from ..classifier import Classifier
from ..errors import GradientFailed
from ..gradients import Exact
from ..objectives import cross_entropy, margin_loss
from ..randomness import Streams
from ..tracing.detect.flow import DEAD
from ..tracing.intercept.operations import CLOSED
from ..tracing.suspect import Analysis, Group, Measurements, Suspect
from ..tracing.symptoms.thresholds import MISLED
from .records import Fact, MaskingFinding, Scalar

# What the audit does about a detector.
JOINT = "classifier and detector attacked together: weighted sum, selective and orthogonal gradients"


@dataclass(frozen=True)
class GradientState:
    """The exact gradient at clean inputs: shares of examples, in [0, 1]."""

    dead_cross_entropy: float
    dead_margin: float
    non_finite: float
    elements: Tensor


def gradient_state(classifier: Classifier, x: Tensor, y: Labels, *, generator: Streams) -> GradientState:
    """Looks at the gradients that a standard attack would follow, at clean images `x`, `[batch, …]`.

    **Cost**: two forwards and backwards.
    """
    dead, spoiled, elements = [], 0.0, torch.zeros(0)
    for objective in (cross_entropy, margin_loss):
        try:
            grad = Exact().estimate(classifier, objective, x, y, generator=generator).grad.flatten(1)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, GradientFailed):  # autograd refuses: no gradient is as good as a dead one
            grad = torch.zeros_like(x).flatten(1)
        finite = torch.isfinite(grad).all(1)
        dead.append(float(((grad.abs().amax(1) < DEAD) & finite).float().mean()))
        spoiled = max(spoiled, float((~finite).float().mean()))
        if objective is cross_entropy:
            elements = grad.flatten().detach()
    return GradientState(dead[0], dead[1], spoiled, elements)


def confirmed(
    analysis: Analysis,
    state: GradientState,
    *,
    deterministic: bool,
    gap: float,
    naive_gap: float,
    gained: float,
    steady: float,
    repaired: Collection[Group] = (),
) -> list[Suspect]:
    """The suspects that deserve a name, each by the rule of its symptom; arguments as of `Measurements`.

    Drawing random numbers is no offence, and neither is a backward pass of one's own: a symptom says what an attack
    must have lost to it.
    """
    measured = Measurements(
        deterministic=deterministic,
        gap=gap,
        naive_gap=naive_gap,
        gained=gained,
        steady=steady,
        dead_cross_entropy=state.dead_cross_entropy,
        dead_margin=state.dead_margin,
        non_finite=state.non_finite,
        repaired=repaired,
    )
    return [s for s in analysis.everywhere if s.symptom.confirmed(s, measured)]


def harmless(
    analysis: Analysis, kept: list[Suspect], state: GradientState, *, deterministic: bool
) -> list[Fact]:
    """What was suspected of hiding something, hides nothing, and is worth knowing all the same; a line each."""
    measured = Measurements(deterministic=deterministic, non_finite=state.non_finite)
    named = {(s.site.file, s.site.line) for s in kept}
    found: dict[tuple[str, int], Fact] = {}
    for s in analysis.everywhere:
        statement = s.symptom.harmless(s, measured)
        place = (s.site.file or s.site.module, s.site.line)
        if not statement or (s.site.file, s.site.line) in named or place in found:
            continue
        found[place] = Fact(
            statement=statement,
            operation=s.operation,
            file=s.site.file or None,
            line=s.site.line or None,
            code=s.site.code or None,
        )
    return list(found.values())


def unlocated(
    gained: float, found: list[MaskingFinding], state: GradientState, *, detector: bool
) -> list[MaskingFinding]:
    """What is said where the standard attack is badly wrong although no operation is to blame, or none was found.

    `gained` is the accuracy that the whole audit takes off it, as far as luck does not explain that.
    """
    if found or gained < MISLED:
        return []
    wrong = f"the standard attack overestimates robust accuracy by {100 * gained:.0f} points"
    if detector:
        symptom = f"{wrong}: the detector rejects what it finds, but not all that fools the classifier"
        return [MaskingFinding(mechanism="detector", symptom=symptom, repair=JOINT)]
    symptom = (
        f"{wrong}, although no operation was found to falsify its gradient: the loss surface misleads it"
    )
    if state.dead_margin >= 0.5:
        symptom = (
            f"{wrong}: on {state.dead_margin:.0%} of the images the gradient is zero, and the operation that does this "
            "could not be told from the others"
        )
    return [
        MaskingFinding(mechanism="evaluation", symptom=symptom, repair="other losses, targets and restarts")
    ]


def end_of_statement(file: str, line: int) -> int | None:
    """Last line of the innermost statement on that line, where it goes on beyond it."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not around:
        return None
    innermost = max(around, key=lambda node: (node.lineno, -(node.end_lineno or node.lineno)))
    end = innermost.end_lineno or line
    # Of a block such as `with no_grad():` the header alone would say too little and the whole of it enough.
    return end if end > line else None


def describe(
    suspects: list[Suspect], repairs: dict[tuple[str, str, int], str], general: str
) -> list[MaskingFinding]:
    """One finding for each place and mechanism. `general` is the repair where none is specific to the place."""
    found: dict[tuple[str, str, int, str], MaskingFinding] = {}
    for s in suspects:
        mechanism = s.symptom.mechanism
        inside = None if s.site.inside is None else "{}:{}".format(*s.site.inside)
        key = (mechanism, s.site.file or s.site.module, s.site.line, inside or "")
        if key in found:
            continue
        statistics: dict[str, Scalar] = {
            k: (round(v, 6) if v == v and abs(v) != float("inf") else None) for k, v in s.statistics.items()
        }
        found[key] = MaskingFinding(
            mechanism=mechanism,
            symptom=s.symptom.sentence(s)
            + (" (one opaque operation: repaired as a whole)" if s.kind in CLOSED else ""),
            operation=s.operation,
            file=s.site.file or None,
            line=s.site.line or None,
            end_line=end_of_statement(s.site.file, s.site.line),
            code=s.site.code or None,
            statistics=statistics,
            repair=repairs.get(s.group) or general,
            module=s.site.module or None,
            inside=inside,
        )
    return list(found.values())
