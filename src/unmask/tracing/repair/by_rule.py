"""The surrogate of an operation under a rule, as a function of what the operation was given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...classifier import LEAST
from ..attention import ATTENTION, cooled
from ..intercept.interceptor import Interceptor
from ..intercept.operations import EXITS, WRITES, tensors_in
from ..pointwise import GATED
from ..record.freeze import exchange
from ..record.shadows import Shadows
from .joints import Joints
from .measured import linear_map, secant
from .own_forward import own_forward
from .rules import Gain, Measure, PassThrough, Redifferentiate, Rule, Smooth
from .surrogate_gradient import Finite, SurrogateGradient
from .surrogates import CURVES, SHARES, SMOOTH, Made, Shadow, base_name, through, typical_width

Given = tuple[Any, ...]
Surrogate = Callable[[Given], Made]

# What a surrogate raises where it does not fit this form of the call.
REFUSALS = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
_AUGMENTED = frozenset(
    "__iadd__ __isub__ __imul__ __itruediv__ __iand__ __ior__ __ixor__ __ifloordiv__".split()
)
# Makes a rewriter that runs inside a custom function and softens by that much; with it, where a tensor leads then.
Inside = tuple[Interceptor, Callable[[Tensor], Tensor | Shadow]]
Inner = Callable[[Tensor, float | None], Inside]
# Steps only in one of their forms, or none at all.
_OTHERWISE = frozenset(
    "clone detach data tensor as_tensor half bfloat16 fake_quantize_per_tensor_affine".split()
)


def steps(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether an operation is a step, wherever it stands."""
    base = base_name(name)
    if base in ("div", "divide"):
        return kwargs.get("rounding_mode") is not None
    return base in SMOOTH and base not in _OTHERWISE


def surrogate_of(
    rule: Rule, name: str, func: Callable[..., Any], kwargs: dict[str, Any], inner: Inner
) -> Surrogate | None:
    """What a rule puts in the place of an operation's derivative; None where it says nothing of this operation.

    **Arguments**
    - `inner`: makes a rewriter that runs inside a custom function, softened, on what this was given; and asks it where
      its tensors lead.
    """
    base = base_name(name)
    match rule:
        case PassThrough():
            return first_float
        case Measure():
            return lambda given: _measured(rule, func, given, kwargs)
        case Redifferentiate():
            return lambda given: _own(rule, func, given, kwargs, inner)
        case Gain() if base in SHARES:
            return lambda given: SHARES[base](given[0] * rule.gain, dimension(given, kwargs))
        case Gain() if base in GATED:
            return lambda given: _gated(rule.gain, given, kwargs)
        case Gain() if base in ATTENTION:
            return lambda given: cooled(func, rule.gain, given, kwargs)
        case Gain() if base in CURVES:
            return lambda given: None if (a := first_float(given)) is None else CURVES[base](a * rule.gain)
        case Gain():
            return None
        case Smooth() if base in SMOOTH:
            return lambda given: SMOOTH[base](rule.width, given, kwargs)
    return first_float


def probabilities(func: Callable[..., Any], args: Given, kwargs: dict[str, Any]) -> Tensor:
    """A soft-max that never returns zero, with a gradient where it underflows."""
    shares = func(*args, **kwargs).clamp_min(LEAST)
    return SurrogateGradient.apply(shares.detach(), _never_zero(args[0], dimension(args, kwargs)))


def dimension(args: Given, kwargs: dict[str, Any]) -> int:
    """Along which a soft-max runs."""
    return kwargs.get("dim", args[1] if len(args) > 1 else -1)


def _gated(gain: float, given: Given, kwargs: dict[str, Any]) -> Tensor:
    """A gated unit whose gate, and it alone, has less gain."""
    content, gate = given[0].chunk(2, dimension(given, kwargs))
    return content * torch.sigmoid(gate * gain)


def _own(
    rule: Redifferentiate, func: Callable[..., Any], given: Given, kwargs: dict[str, Any], inner: Inner
) -> Made:
    """A custom function's forward, with its steps softened; its slope measured, where autograd does not follow."""
    function = getattr(func, "function", None)
    if function is not None:
        start = first_float(given)
        assert start is not None, "a suspect has a gradient to lose"
        rewriter, led = inner(start, rule.soften)
        try:
            made = own_forward(function, given, kwargs, rewriter)
        except REFUSALS:
            made = None
        several = list(made) if isinstance(made, tuple | list) else [made]
        seen = [led(t) if isinstance(t, Tensor) else None for t in several]
        if any(t is not None and (isinstance(t, Shadow) or t.requires_grad) for t in seen):
            return seen if isinstance(made, tuple | list) else seen[0]
    return _measured(Measure(), func, given, kwargs)


def _measured(rule: Measure, func: Callable[..., Any], given: Given, kwargs: dict[str, Any]) -> Tensor | None:
    """An operation whose slope is measured at the point where it stands."""
    x = first_float(given)
    if x is None:
        return None

    def run(point: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            made = func(*(point if a is x else detached(a) for a in given), **kwargs)
        return made if isinstance(made, Tensor) else next(tensors_in(made))

    with torch.no_grad():
        value = run(x)
    value = value if value.is_floating_point() else value.to(x)
    width = typical_width("", [x])
    shapes = (x.shape[1:], value.shape[1:])
    if shapes not in rule.learned:
        rule.learned[shapes] = linear_map(run, x, value, width)
    weight = rule.learned[shapes]
    if weight is None:
        return secant(run, x, value, width)
    return (x.flatten(1) @ weight).reshape(value.shape)


def following_shadows(
    name: str, func: Callable[..., Any], kwargs: dict[str, Any], joints: Joints
) -> Surrogate:
    """The surrogate of an operation on integers or booleans beside which a shadow travels."""

    def surrogate(given: Given) -> Made:
        try:
            made = through(name, func, given, kwargs, joints.shadow_of)
        except REFUSALS:
            made = None
        return _asked_in_integers(name, func, given, kwargs, joints) if made is None else made

    return surrogate


def _asked_in_integers(
    name: str, func: Callable[..., Any], given: Given, kwargs: dict[str, Any], joints: Joints
) -> Tensor | None:
    """An operation on shadowed integers for which there is no rule: measured, from one whole number to others."""
    found = next(((a, s) for a in given if (s := joints.shadow_of(a)) is not None), None)
    if found is None or name in WRITES or name in EXITS or not found[1].value.requires_grad:
        return None
    tensor, shadow = found

    def run(point: Tensor) -> Tensor:
        whole = point > 0.5 if tensor.dtype == torch.bool else point.round().to(tensor.dtype)
        made = func(*(whole if a is tensor else detached(a) for a in given), **kwargs)
        return made.to(point) if isinstance(made, Tensor) else point[:0]

    with torch.no_grad():
        value = run(tensor.to(shadow.value))
    return secant(run, shadow.value, value, 1.0) if value.numel() else None


def _never_zero(logits: Tensor, dim: int) -> Tensor:
    """A soft-max whose log has the gradient of a log-soft-max, also where the soft-max itself underflows."""
    logs = torch.log_softmax(logits, dim)
    return (logs + (logs.clamp_min(math.log(LEAST)) - logs).detach()).exp()


def finite(item: Any) -> Any:
    """The argument, with a gradient that stays finite."""
    return Finite.apply(item) if isinstance(item, Tensor) and item.requires_grad else item


def detached(item: Any) -> Any:
    """The argument without its graph."""
    if isinstance(item, Tensor):
        return item.detach()
    if isinstance(item, (list, tuple)) and any(isinstance(i, Tensor) for i in item):
        return type(item)(detached(i) for i in item)
    return item


def first_float(args: Given) -> Tensor | None:
    """The first argument that a gradient goes back to."""
    return next((a for a in tensors_in(args) if a.is_floating_point() and a.requires_grad), None)


def answering(made: Any, beside: Shadows | None = None) -> Any:
    """What an operation made, cut where torch has no derivative: one that raises would lose the whole attempt.

    What goes `beside` a tensor that is cut goes beside what stands for it then.
    """
    refusing = {id(t): t.detach() for t in tensors_in(made) if _refuses(t)}
    if beside is not None:
        for t in tensors_in(made):
            if id(t) in refusing and (shadow := beside.of(t)) is not t:
                beside.lead(refusing[id(t)], shadow)
    return exchange(made, refusing) if refusing else made


def _refuses(tensor: Tensor) -> bool:
    return tensor.grad_fn is not None and tensor.grad_fn.name().endswith("NotImplemented")


def writes(name: str) -> bool:
    """Whether an operation writes into its first argument."""
    return name in WRITES or (name.endswith("_") and not name.endswith("__")) or name in _AUGMENTED
