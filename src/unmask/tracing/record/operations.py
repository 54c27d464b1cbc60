"""What operations are called, and which of the tensors that they are given matter to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Ways out of torch: after these, autograd sees nothing.
EXITS = frozenset(
    "numpy __array__ tolist item __float__ __int__ __bool__ __index__ __complex__ __dlpack__ __contains__".split()
)
# `d.data = value`, as `Interceptor` names it.
SET_DATA = "data="
# Writes into its first argument and returns nothing.
WRITES = frozenset(("__setitem__", SET_DATA))
# Make a new tensor from numbers.
COPIES = frozenset("tensor as_tensor new_tensor asarray from_dlpack frombuffer full scalar_tensor".split())
CUTS = frozenset(("detach", "detach_", "data", SET_DATA, "requires_grad_", "__deepcopy__", "Parameter"))
# Gradients taken inside the network. Their results have no gradient of their own, unless the graph is kept for one.
GRADIENTS = frozenset(("grad", "backward"))
# Of the tensors that these are given, the first alone lends its values; the others lend a shape or a type.
SHAPED_LIKE = frozenset("view_as reshape_as expand_as resize_as_ type_as to".split())
# These take no value from any tensor: what they make is as new as `torch.zeros(3)`.
NEW_LIKE = frozenset(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros new_ones new_full "
    "new_empty_strided".split()
)
# Flat somewhere, steep elsewhere.
SATURATING = frozenset(
    "sigmoid expit tanh softmax log_softmax logsigmoid erf hardsigmoid hardtanh softsign atan arctan clamp clip "
    "clamp_min clamp_max relu6 relu threshold hardshrink softshrink".split()
)
APPLIED = frozenset(("apply_", "map_", "map2_"))
# Draws that overwrite what they are called on; only the rest of their arguments matters.
FILLS = frozenset("uniform_ normal_ bernoulli_ random_ exponential_ geometric_ cauchy_ log_normal_".split())
AUGMENTED = frozenset(
    "__iadd__ __isub__ __imul__ __itruediv__ __iand__ __ior__ __ixor__ __ifloordiv__ __imod__ __ipow__".split()
)
_SCALARS = (int, float, bool, str, type(None), torch.dtype, torch.device, slice, type(Ellipsis))


def tensors_in(arguments: Any) -> Iterator[Tensor]:
    """Every tensor of nested tuples, lists and dicts."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, (tuple, list)):
        for item in arguments:
            yield from tensors_in(item)
    elif isinstance(arguments, dict):
        for item in arguments.values():
            yield from tensors_in(item)


def scalars_in(arguments: Any) -> Iterator[str]:
    """Every number, name and type of nested tuples, lists and dicts, printed."""
    if isinstance(arguments, (tuple, list)):
        for item in arguments:
            yield from scalars_in(item)
    elif isinstance(arguments, dict):
        for item in arguments.values():
            yield from scalars_in(item)
    elif isinstance(arguments, _SCALARS):
        yield repr(arguments)


def lenders(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors from whose values an operation makes its result."""
    if name in NEW_LIKE:
        return iter(())
    if name in FILLS:
        return tensors_in((args[1:], kwargs))
    return tensors_in(args[:1] if name in SHAPED_LIKE else (args, kwargs))


def written(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into, by its name and arguments; foreach operations write into many."""
    if kwargs.get("out") is not None:
        return list(tensors_in(kwargs["out"]))
    in_place = name == "__setitem__" or name in AUGMENTED or (name.endswith("_") and not name.endswith("__"))
    if in_place or kwargs.get("inplace") or (len(args) > 1 and any(a is True for a in args[1:])):
        return list(tensors_in(args[:1]))
    return []
