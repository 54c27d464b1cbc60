"""Idioms in which a type or a mode of the user's says what an operation does.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

TIMES = (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__)


class InTenths(torch.Tensor):
    """Rounds what it is multiplied to, as a plain tensor."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        made = super().__torch_function__(func, types, args, kwargs or {})
        if func in TIMES:
            made = torch.round(made.as_subclass(torch.Tensor) * 10).div(10).as_subclass(cls)
        return made


class InNinths(torch.Tensor):
    """Does so where torch asks no subclass."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            made = func(*args, **(kwargs or {}))
            if func in TIMES:
                made = (made * 9).floor() / 9
        return made.as_subclass(cls) if isinstance(made, torch.Tensor) else made


class Held:
    """No tensor, but torch asks it."""

    def __init__(self, tensor):
        self.tensor = tensor

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        plain = [a.tensor if isinstance(a, Held) else a for a in args]
        return Held(torch.ceil(func(*plain, **(kwargs or {})) * 8) / 8)


class Shy(Held):
    """Leaves the answer to who stands beside it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return NotImplemented


class Signed(torch.Tensor):
    """Only its product is another."""

    def __mul__(self, other):
        return torch.sign(self.as_subclass(torch.Tensor) - other)


class Levels(torch.Tensor):
    """Rounds when it is made."""

    @staticmethod
    def __new__(cls, tensor):
        return torch.trunc(tensor * 7).div(7).as_subclass(cls)


class Wrapping(torch.Tensor):
    """Keeps a tensor and rounds what becomes of it, below autograd."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(cls, lambda t: t.held, (args, kwargs or {}))
        return cls(torch.round(func(*args, **kwargs) * 6) / 6)


class Unasked(torch.Tensor):
    """The same, of one that torch asks only below autograd."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(cls, lambda t: t.held, (args, kwargs or {}))
        return cls(func(*args, **kwargs).mul(5).floor().div(5))


class Eighths(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        return torch.round(made * 8).div(8) if func in TIMES else made


def plain(x):
    return x.as_subclass(torch.Tensor)


def product_in_tenths(net, x):
    return plain(x.as_subclass(InTenths) * 1.0)


def layer_in_tenths(net, x):
    return plain(F.relu(net.inner(x.as_subclass(InTenths)) * 2))


def product_in_ninths(net, x):
    return plain(x.as_subclass(InNinths).mul(1.0))


def held(net, x):
    return torch.add(Held(x), 0.01).tensor


def held_beside_another(net, x):
    return torch.add(Shy(x), Held(x)).tensor


def signed(net, x):
    return x.as_subclass(Signed) * 0.5


def levels(net, x):
    return plain(Levels(x))


def below_autograd(net, x):
    return (Wrapping(x) * 1.0).held


def below_autograd_unasked(net, x):
    return (Unasked(net.inner(x)) + 0.1).held


def under_a_mode(net, x):
    with Eighths():
        return x * 1.0


# Step, symptoms one of which is expected, and text of a line that is expected.
LOST = {"zero", "discrete", "cut"}
SUBCLASSES: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "a subclass that rounds its products": (product_in_tenths, LOST, "torch.round(made.as_subclass"),
    "a subclass through a layer": (layer_in_tenths, LOST, "torch.round(made.as_subclass"),
    "a subclass where subclasses are not asked": (product_in_ninths, LOST, "(made * 9).floor()"),
    "no tensor, but with __torch_function__": (held, LOST, "torch.ceil(func("),
    "the second of two types": (held_beside_another, LOST, "torch.ceil(func("),
    "a subclass with a product of its own": (signed, LOST, "torch.sign(self.as_subclass"),
    "a subclass that rounds when it is made": (levels, LOST, "torch.trunc(tensor * 7)"),
    "a subclass that rounds below autograd": (below_autograd, LOST, "torch.round(func("),
    "a subclass that is asked only there": (below_autograd_unasked, LOST, ".mul(5).floor()"),
    "a mode of the user's": (under_a_mode, LOST, "torch.round(made * 8)"),
}
