"""What operations make of shadows: a table of small rules by name.

An index or a truth value comes with a shadow; here stands what a look-up, a vote, a comparison or a cast of it is when
the shadow stands in. What has no rule is asked with floats in the place of integers, and what refuses those is measured
(`measured.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...intercept.operations import plain_name
from . import bits, lookups, order, votes
from .call import Call
from .layers import LAYERS, stored
from .shadow import Made, Shadow, ShadowOf, chosen, hat, names
from .steps import SMOOTH
from .tables import or_else

# Width of a step of what is a truth value or a whole number already.
HALF = 0.5


# --- truth values ------------------------------------------------------------------------------------------------


def _where(call: Call) -> Made:
    if len(call.plain) != 3:
        return None
    condition, yes, no = call.plain
    if condition.dtype == torch.bool:
        condition = condition.to(torch.float32)
    return condition * yes + (1 - condition) * no


def _fill(call: Call) -> Made:
    of, mask, value = call.plain[:3]
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = mask.to(torch.float32)
    return of * (1 - mask) + mask * value


def _not(call: Call) -> Made:
    return Shadow(1 - call.plain[0])


def _any(call: Call) -> Made:
    return Shadow(call.plain[0].amax(*call.plain[1:2], **call.kwargs))


def _all(call: Call) -> Made:
    return Shadow(call.plain[0].amin(*call.plain[1:2], **call.kwargs))


def _nonzero_count(call: Call) -> Made:
    return Shadow((1 - hat(call.plain[0])).sum(*call.plain[1:2]))


# --- numbers -----------------------------------------------------------------------------------------------------


def _equal(call: Call) -> Made:
    """Which class it is: the soft choice of that class, where one is known."""
    for one, other in ((0, 1), (1, 0)):
        shadow, value = call.shadow_of(call.args[one]), call.args[other]
        if shadow is None or shadow.choice is None or call.shadow_of(value) is not None:
            continue
        if isinstance(value, int):
            return Shadow(shadow.choice[..., value])
        if isinstance(value, Tensor) and not value.is_floating_point():
            shape = torch.broadcast_shapes(call.args[one].shape, value.shape)
            options = shadow.choice.shape[-1]
            at = value.expand(shape).long()
            choice = shadow.choice.expand(*shape, options)
            inside = (at >= 0) & (at < options)
            picked = choice.gather(-1, at.clamp(0, options - 1)[..., None])[..., 0]
            return Shadow(picked * inside)
    return _stepping(call)


def _unequal(call: Call) -> Made:
    made = _equal(Call("eq", call.func, call.args, call.kwargs, call.shadow_of))
    return Shadow(1 - made.value) if isinstance(made, Shadow) else None


def _stepping(call: Call) -> Made:
    """A step of a float that stands in for whole numbers, or for truth values."""
    return SMOOTH[plain_name(call.name)](HALF, call.plain, call.named)


def _first(sign: int) -> Callable[[Call], Made]:
    def rule(call: Call) -> Made:
        shadow = call.shadow_of(call.args[0])
        if shadow is None or not order.zeros_and_ones(call.args[0]):
            return _stepping(call)
        return order.first_extreme(sign, shadow.value, call.args, call.kwargs)

    return rule


def _layer_or(layer: Callable[[Call], Made], rule: Callable[[Call], Made]) -> Callable[[Call], Made]:
    """The first on quantised tensors, which bear the same name; else the second."""

    def either(call: Call) -> Made:
        return layer(call) if any(map(stored, call.args)) else rule(call)

    return either


def _kept(call: Call) -> Made:
    """A cast, or a rounding of what is whole."""
    return call.shadow_of(call.args[0])


def _as_stored(call: Call) -> Made:
    """The whole numbers in which a quantised tensor is stored."""
    shadow, stored = call.shadow_of(call.args[0]), call.args[0]
    if shadow is None or stored.qscheme() != torch.per_tensor_affine:
        return None
    return Shadow(shadow.value / stored.q_scale() + stored.q_zero_point())


def _moved(call: Call) -> Made:
    """A change of shape or type takes the choice and the bits along."""
    shadow = call.shadow_of(call.args[0])
    if shadow is None or (shadow.choice is None and shadow.bits is None):
        made = call.func(*call.plain, **call.named)
        return made if isinstance(made, Tensor) else None

    def moved(of: Tensor) -> Tensor:
        return call.func(of, *call.plain[1:], **call.named)

    choice = shadow.choice
    choice = None if choice is None else torch.stack([moved(o) for o in choice.unbind(-1)], -1)
    known = shadow.bits
    known = None if known is None else tuple(b if b is None else moved(b) for b in known)
    return Shadow(moved(shadow.value), choice=choice, bits=known)


def _floats(call: Call) -> Made:
    """Floats in the place of integers, where the operation takes them."""
    made = call.func(*call.plain, **call.named)
    return made if isinstance(made, Tensor) else None


def _argsort(call: Call) -> Made:
    shadow = call.shadow(0, "input")
    if shadow is None or shadow.choice is None or call.args[0].ndim < 2:
        return _stepping(call)
    # The order of an order is its inverse: which place each option has.
    places = shadow.choice.transpose(-1, -2)
    return chosen(places / places.sum(-1, keepdim=True))


# Steps come first, so that what has a rule of its own among whole numbers overrides them.
PASSING: dict[str, Callable[[Call], Made]] = {
    **names(_stepping, " ".join(SMOOTH)),
    **LAYERS,
    "__getitem__": lookups.item,
    "__setitem__": lookups.set_item,
    "embedding": lookups.embedding,
    "index_select": lookups.index_select,
    "take": lookups.take,
    **names(lookups.distinct, "unique unique_consecutive"),
    **names(lookups.gather, "gather take_along_dim"),
    "scatter": votes.scatter,
    "scatter_add": votes.scatter_add,
    "scatter_reduce": votes.scatter_reduce,
    "one_hot": votes.as_one_hot,
    "bincount": votes.bincount,
    "mode": votes.mode,
    "argmax": _first(1),
    "argmin": _first(-1),
    "argsort": _argsort,
    "unbind": votes.unbind,
    "where": _where,
    "masked_fill": _fill,
    **names(_not, "logical_not"),
    **names(or_else(bits.inverted), "__invert__ bitwise_not"),
    **names(bits.combined(bits.both), "__and__ logical_and bitwise_and __rand__ __iand__"),
    **names(bits.combined(bits.either), "__or__ logical_or bitwise_or __ror__ __ior__"),
    **names(bits.combined(bits.one_of), "__xor__ logical_xor bitwise_xor __rxor__ __ixor__"),
    **names(bits.shifted(1), "__lshift__ bitwise_left_shift __ilshift__"),
    **names(bits.shifted(-1), "__rshift__ bitwise_right_shift __irshift__"),
    "__rlshift__": bits.power,
    **names(or_else(_stepping), "remainder fmod __mod__ floor_divide __floordiv__"),
    **names(or_else(bits.times, begun=True), "multiply __mul__ __rmul__ __imul__"),
    **names(or_else(bits.added, begun=True), "__add__ __radd__ __iadd__"),
    "mul": _layer_or(LAYERS["mul"], or_else(bits.times, begun=True)),
    "add": _layer_or(LAYERS["add"], or_else(bits.added, begun=True)),
    **names(or_else(_floats, begun=True), "sub subtract __sub__ __rsub__ __isub__ abs neg __neg__"),
    **names(bits.product, "matmul __matmul__ mv"),
    "sum": bits.total,
    "int_repr": _as_stored,
    "any": _any,
    "all": _all,
    "count_nonzero": _nonzero_count,
    **names(_kept, "float double half to type type_as bfloat16 dequantize bool"),
    **names(_kept, "long int byte short char round floor ceil trunc fix"),
    **names(_equal, "eq __eq__"),
    **names(_unequal, "ne __ne__ not_equal"),
    **names(_floats, "detach data clone tensor as_tensor div divide"),
    **names(
        _moved,
        "T mT unsqueeze squeeze view reshape permute transpose expand flatten contiguous repeat movedim t cpu "
        "expand_as view_as clone detach",
    ),
}


def through(
    name: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    shadow_of: ShadowOf,
) -> Made:
    """What an operation on shadowed tensors gives when their shadows take their place; None where no rule fits.

    **Raises** whatever the operation does that refuses floats.
    """
    call = Call(name, func, tuple(args), kwargs, shadow_of)
    return PASSING.get(plain_name(name), _floats)(call)
