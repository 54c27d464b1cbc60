"""Whole numbers bit by bit: shifts, masks, and numbers that are put together of truth values.

Of a number that was put together of truth values, as in a fern or a local binary pattern, the bits are known, and so is
the soft choice of the number itself: their product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import order
from .call import Call
from .shadow import Made, Shadow, chosen
from .tables import tabled

# Most bits of a number that are looked at one by one, and of one whose soft choice is made. Ours.
MOST, CHOICE = 16, 8

Bits = tuple[Tensor | None, ...]


def shifted(sign: int) -> Callable[[Call], Made]:
    """`number << places` (`sign` 1) or `>>` (-1)."""

    def rule(call: Call) -> Made:
        shadow, places = call.shadow_of(call.args[0]), call.args[1]
        if shadow is None or call.shadow_of(places) is not None:
            return None
        made = tabled(call) if shadow.bits is None else None
        if made is not None and (sign > 0 or shadow.table is not None):
            return made
        times = 2.0 ** (sign * torch.as_tensor(places)).to(shadow.value)
        if sign > 0:
            return _times(call, shadow, times)
        value = shadow.value * times - (1 - times) / 2  # in the middle of what is rounded down to one number
        bits = shadow.bits
        bits = bits[int(places) :] if bits and isinstance(places, int) else None
        return Shadow(value, bits=bits, table=None if made is None else made.table)

    return rule


def power(call: Call) -> Made:
    """`number << places`, where the places have the shadow."""
    shadow = call.shadow_of(call.args[0])
    return None if shadow is None or call.shadow_of(call.args[1]) else Shadow(call.args[1] * 2**shadow.value)


def times(call: Call) -> Made:
    """A product; of truth values by powers of two, digits of a number."""
    for one, other in ((0, 1), (1, 0)):
        shadow, by = call.shadow_of(call.args[one]), call.args[other]
        if shadow is not None and _whole(by) and call.shadow_of(by) is None:
            return _times(call, shadow, torch.as_tensor(by))
    return _floats(call)


def added(call: Call) -> Made:
    """A sum of two; of numbers that have no bit in common, a number with the bits of both."""
    made = _floats(call)
    one, two = (_known(a, call.shadow_of(a)) for a in call.args[:2])
    if (
        one is None
        or two is None
        or any(a is not None and b is not None for a, b in zip(one, two, strict=False))
    ):
        return made
    longest = max(len(one), len(two))
    both = zip(_padded(one, longest), _padded(two, longest), strict=True)
    return _of_bits(tuple(a if b is None else b for a, b in both))


def total(call: Call) -> Made:
    """A sum along a dimension; of digits, the number."""
    shadow, dim = call.shadow_of(call.args[0]), call.argument(1, "dim")
    dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
    if (
        shadow is None
        or shadow.digit is None
        or not isinstance(dim, int)
        or call.argument(2, "keepdim", False)
    ):
        return _floats(call)
    truth, weight = shadow.digit
    return _composed(truth.unbind(dim), weight.unbind(dim)) or _floats(call)


def product(call: Call) -> Made:
    """`truth values @ powers of two`."""
    shadow, weight = call.shadow_of(call.args[0]), call.args[1]
    known = _known(call.args[0], shadow)
    if shadow is None or not _whole(weight) or weight.ndim != 1 or known is None or len(known) > 1:
        return _floats(call)
    return _composed(shadow.value.unbind(-1), weight.unbind(0)) or _floats(call)


def combined(of_two: Callable[[Any, Any], Any]) -> Callable[[Call], Made]:
    """`&`, `|` or `^`, from what it is for two truth values."""

    def rule(call: Call) -> Made:
        if all(_truths(a) for a in call.args[:2]):
            return Shadow(of_two(*(_soft(p) for p in call.plain[:2])))
        one, two = (_spelt(a, call.shadow_of(a)) for a in call.args[:2])
        if one is None or two is None:
            made, rounded = tabled(call), None if of_two is one_of else _high_bits(call, of_two)
            return made if rounded is None else replace(rounded, table=None if made is None else made.table)
        longest = max(len(one), len(two))
        pairs = zip(_padded(one, longest), _padded(two, longest), strict=True)
        return _of_bits(tuple(of_two(_zero(a), _zero(b)) for a, b in pairs))

    return rule


def both(a: Any, b: Any) -> Any:
    """Of truth values, soft."""
    return a * b


def either(a: Any, b: Any) -> Any:
    """Of truth values, soft."""
    return a + b - a * b


def one_of(a: Any, b: Any) -> Any:
    """Of truth values, soft."""
    return a + b - 2 * a * b


def inverted(call: Call) -> Made:
    """`~`."""
    of, value = call.args[0], call.plain[0]
    most = {torch.bool: 1, torch.uint8: 255}.get(of.dtype, -1)
    return Shadow(most - value)


# --- what is known of a number -----------------------------------------------------------------------------------


def _high_bits(call: Call, of_two: Callable[[Any, Any], Any]) -> Shadow | None:
    """`number & mask` or `number | mask` that changes nothing but the lowest bits: rounded, as a whole."""
    for one, other in ((0, 1), (1, 0)):
        shadow, of, mask = call.shadow_of(call.args[one]), call.args[one], call.args[other]
        if (
            shadow is None
            or shadow.bits
            or not isinstance(mask, int)
            or mask <= 0
            or not isinstance(of, Tensor)
        ):
            continue
        every = (1 << int(of.max()).bit_length()) - 1
        low = (mask if of_two is either else ~mask) & every
        if not low & (low + 1):  # zeros and then ones
            return Shadow(shadow.value + (low / 2 if of_two is either else -low / 2))
    return None


def _spelt(item: Any, shadow: Shadow | None) -> Bits | None:
    """The bits of a number, lowest first, where they are known; of one without a shadow they always are."""
    if shadow is not None:
        return _known(item, shadow)
    whole = torch.as_tensor(item)
    if whole.is_floating_point() or not whole.numel() or int(whole.min()) < 0:
        return None
    length = int(whole.max()).bit_length()
    return tuple(((whole >> n) & 1).to(torch.float32) for n in range(length)) if length <= MOST else None


def _known(item: Any, shadow: Shadow | None) -> Bits | None:
    if shadow is None or shadow.bits is not None:
        return None if shadow is None else shadow.bits
    return (shadow.value,) if _truths(item) or order.zeros_and_ones(item) else None


def _times(call: Call, shadow: Shadow, by: Tensor) -> Shadow:
    """Truth values times a whole number each: digits, of which a sum may make a number."""
    value = shadow.value * by
    known = _known(call.args[0] if call.shadow_of(call.args[0]) is shadow else call.args[1], shadow)
    if known is None:
        return Shadow(value)
    if by.numel() == 1:
        place = _place(by)
        return Shadow(value) if place is None else Shadow(value, bits=((None,) * place + known)[:MOST])
    if len(known) > 1:
        return Shadow(value)
    return Shadow(value, digit=(shadow.value.expand(value.shape), by.expand(value.shape)))


def _composed(truths: Sequence[Tensor], weights: Sequence[Tensor]) -> Shadow | None:
    """The number that has each truth value at the place of its weight."""
    bits: dict[int, Tensor] = {}
    for truth, weight in zip(truths, weights, strict=True):
        place = _place(weight)
        if place is None or place in bits or place >= MOST:
            return None
        bits[place] = truth
    return _of_bits(tuple(bits.get(n) for n in range(max(bits) + 1)))


def _place(weight: Tensor) -> int | None:
    """Which power of two all of a tensor is."""
    number = int(weight.flatten()[0])
    one = number > 0 and number & (number - 1) == 0 and bool((weight == number).all())
    return number.bit_length() - 1 if one else None


def _of_bits(bits: Bits) -> Shadow:
    value = sum(2**n * b for n, b in enumerate(bits) if b is not None)
    if not isinstance(value, Tensor):
        return Shadow(torch.zeros(()))
    if len(bits) > CHOICE:
        return Shadow(value, bits=bits)
    choice = torch.ones_like(value)[..., None]
    for bit in bits:
        bit = torch.zeros_like(value) if bit is None else bit.expand(value.shape)
        choice = torch.cat([choice * (1 - bit[..., None]), choice * bit[..., None]], -1)
    return replace(chosen(choice), value=value, bits=bits)


def _padded(bits: Bits, length: int) -> Bits:
    return bits + (None,) * (length - len(bits))


def _zero(bit: Tensor | None) -> Tensor | float:
    return 0.0 if bit is None else bit


def _truths(item: Any) -> bool:
    return isinstance(item, bool) or (isinstance(item, Tensor) and item.dtype == torch.bool)


def _whole(item: Any) -> bool:
    if isinstance(item, Tensor):
        return not item.is_floating_point() and item.dtype != torch.bool
    return isinstance(item, int) and not isinstance(item, bool)


def _soft(item: Any) -> Any:
    return item.to(torch.float32) if isinstance(item, Tensor) and not item.is_floating_point() else item


def _floats(call: Call) -> Made:
    made = call.func(*call.plain, **call.named)
    return made if isinstance(made, Tensor) else None
