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
from ..objectives import cross_entropy, margin
from ..randomness import Streams
from ..remedies import DEAD, LOST, Group
from ..tracing.suspect import Analysis, Suspect
from .records import Fact, MaskingFinding, Mechanism, Scalar

# A gradient below this is dead; see `tracing.flow.DEAD`.
_DEAD = 1e-30
# Least gap, in accuracy, between the exact gradient and its repair before a partial loss is named. Ours.
GAP = 0.05
# Gradients of two draws that agree as well as this lead a standard attack where their mean would. Ours: of the fixtures
# whose noise misleads it 0.37 to 0.58, of noise that does not 0.73 and more.
STEADY = 0.7
# From this overestimate on, a standard attack counts as misled even if no operation is to blame. Ours: on undefended
# networks more targets and restarts alone took up to 13 points off it, on one trained with label smoothing 31.
MISLED = 0.25
# From this on, the change of the logits hardly shrinks with the move: sixteen times smaller, and nearly as large. Ours.
CHAOTIC = 0.8

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
    """Looks at the gradients that a standard attack would follow. **Cost**: two forwards and backwards."""
    dead, spoiled, elements = [], 0.0, torch.zeros(0)
    for objective in (cross_entropy, margin):
        try:
            grad = Exact().estimate(classifier, objective, x, y, generator=generator).grad.flatten(1)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, GradientFailed):  # autograd refuses: no gradient is as good as a dead one
            grad = torch.zeros_like(x).flatten(1)
        finite = torch.isfinite(grad).all(1)
        dead.append(float(((grad.abs().amax(1) < _DEAD) & finite).float().mean()))
        spoiled = max(spoiled, float((~finite).float().mean()))
        if objective is cross_entropy:
            elements = grad.flatten().detach()
    return GradientState(dead[0], dead[1], spoiled, elements)


_MECHANISM: dict[str, Mechanism] = {
    **dict.fromkeys((*LOST, "effect", "declared"), "shattered"),
    **dict.fromkeys(DEAD, "vanishing"),
    "non_finite": "exploding",
    "random": "stochastic",
}


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
    """The suspects that deserve a name.

    **Arguments**
    - `gap`: accuracy that the best repaired gradient takes off the exact one, same attack and examples.
    - `naive_gap`: accuracy that the whole audit takes off the standard attack.
    - `gained`: the same, as far as luck does not explain it.
    - `steady`: mean cosine between the gradients of two draws at the same point.
    - `repaired`: the places where the winner of the race follows another gradient.

    Drawing random numbers is no offence, and neither is a backward pass of one's own: the one is named where a standard
    attack lost something on gradients that scatter, the other where a repair takes accuracy away, or where it matters
    so much to the standard attack that a gradient which is false at the attack's scale explains it.
    """
    kept = []
    for s in analysis.suspects:
        if s.symptom == "random":
            keep = not deterministic and gained >= GAP and not steady >= STEADY
        elif s.symptom == "wrong":
            # Where gradients are NaN, slopes nearby are steep: torch's own derivatives are not to blame for that.
            keep = _suspicious(s, state) and (gap >= GAP or gained >= MISLED or state.dead_margin >= 0.5)
        elif s.symptom in ("zero", "discrete", "effect", "cut", "opaque"):
            # NaN explains a failed attack by itself: then a step needs more than a share of the effect.
            keep = state.dead_margin >= 0.5 or (gap >= GAP and (not state.non_finite or s.share > 0.5))
            keep = keep or (deterministic and _chaotic(s))
        elif s.symptom == "declared":
            keep = gap >= GAP and s.group in repaired
        elif s.symptom == "underflow":
            keep = state.dead_cross_entropy > 0.1 and naive_gap >= GAP
        elif s.symptom in ("vanished", "saturated"):
            dead = max(state.dead_margin, state.dead_cross_entropy)
            keep = (dead > 0.1 or gap >= GAP) and max(gap, naive_gap) >= GAP
        else:
            keep = state.non_finite > 0
        if keep:
            kept.append(s)
    return kept


def _suspicious(s: Suspect, state: GradientState) -> bool:
    return s.kind != "torch" or state.non_finite < 0.5 or s.share > 0.5


def harmless(
    analysis: Analysis, kept: list[Suspect], state: GradientState, *, deterministic: bool
) -> list[Fact]:
    """What was suspected of hiding something, hides nothing, and is worth knowing all the same; a line each."""
    named = {(s.site.file, s.site.line) for s in kept}
    found: dict[tuple[str, int], Fact] = {}
    for s in analysis.suspects:
        if s.symptom == "random" and not deterministic:
            statement = "draws random numbers; hides nothing"
        elif s.symptom == "wrong" and _suspicious(s, state):
            statement = "its gradient is not the slope of its output; hides nothing"
        else:
            continue
        place = (s.site.file or s.site.module, s.site.line)
        if (s.site.file, s.site.line) in named or place in found:
            continue
        found[place] = Fact(
            statement=statement,
            operation=s.operation,
            file=s.site.file or None,
            line=s.site.line or None,
            code=s.site.code or None,
        )
    return list(found.values())


def _chaotic(s: Suspect) -> bool:
    """Whether what passes here is noise that the input seeds: fooled or not, no gradient can follow it."""
    return s.share > 0.5 and s.statistics.get("jump", 0.0) > CHAOTIC


def unlocated(gained: float, found: list[MaskingFinding], *, detector: bool) -> list[MaskingFinding]:
    """What is said where the standard attack is badly wrong although no operation is to blame.

    `gained` is the accuracy that the whole audit takes off it, as far as luck does not explain that.
    """
    if found or gained < MISLED:
        return []
    wrong = f"the standard attack overestimates robust accuracy by {100 * gained:.0f} points"
    if detector:
        symptom = f"{wrong}: the detector rejects what it finds, but not all that fools the classifier"
        return [MaskingFinding(mechanism="detector", symptom=symptom, repair=JOINT)]
    symptom = f"{wrong}, although no operation falsifies its gradient: the loss surface misleads it"
    return [
        MaskingFinding(mechanism="evaluation", symptom=symptom, repair="other losses, targets and restarts")
    ]


def _symptom(s: Suspect) -> str:
    share = f"{s.share:.0%} of the change of the logits passes through it" if s.share == s.share else ""
    numbers = s.statistics
    if s.symptom in ("zero", "discrete", "cut", "opaque") and _chaotic(s):
        return (
            f"no gradient leads through, yet {share}, and the smallest move changes them as much as the largest: a "
            "pseudo-random function of the input"
        )
    if s.symptom == "zero":
        return f"its gradient is exactly zero, yet {share}"
    if s.symptom == "effect":
        decided = int(s.statistics.get("decided_at_line", 0))
        return f"the decision of line {decided}, which has no gradient, takes effect here"
    if s.symptom == "discrete":
        return f"its result has no gradient, yet {share}"
    if s.symptom in ("cut", "opaque"):
        return f"the gradient is cut here, yet {share}"
    if s.symptom == "wrong":
        cosine = numbers.get("cosine", float("nan"))
        return f"its gradient does not say how its output changes (cosine {cosine:.2f} at the attack's scale)"
    if s.symptom == "declared":
        return "the backward that it declares leads an attack less far than what it computes"
    if s.symptom == "underflow":
        dead, size = numbers.get("dead_at_logits", 0.0), numbers.get("largest_logit", 0.0)
        return (
            f"logits up to {size:.3g} saturate the softmax of a cross-entropy: on {dead:.0%} of the examples its "
            "gradient is exactly zero"
        )
    if s.symptom == "vanished":
        return f"on {numbers.get('killed', 0.0):.0%} of the examples the gradient dies here"
    if s.symptom == "saturated":
        return "its output changes although its own derivative is practically zero: it is saturated"
    if s.symptom == "non_finite":
        return (
            f"on {numbers.get('spoiled', 0.0):.0%} of the examples the gradient becomes NaN or infinite here"
        )
    effect = numbers.get("change_of_logits", float("nan"))
    return "it draws random numbers" + (f": a logit moves by up to {effect:.3g}" if effect == effect else "")


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
        mechanism = _MECHANISM[s.symptom]
        inside = None if s.site.inside is None else "{}:{}".format(*s.site.inside)
        key = (mechanism, s.site.file or s.site.module, s.site.line, inside or "")
        if key in found:
            continue
        statistics: dict[str, Scalar] = {
            k: (round(v, 6) if v == v and abs(v) != float("inf") else None) for k, v in s.statistics.items()
        }
        found[key] = MaskingFinding(
            mechanism=mechanism,
            symptom=_symptom(s)
            + (" (one opaque operation: repaired as a whole)" if s.kind == "opaque" else ""),
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
