"""What operations are called, and which of the tensors that they are given matter to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

# Ways out of torch: after these, autograd sees nothing.
EXITS = frozenset(
    "numpy __array__ tolist item __float__ __int__ __bool__ __index__ __complex__ __dlpack__ __contains__".split()
)
# Kinds of what is seen from outside alone: a scripted or compiled module, and a scripted or transformed function.
CLOSED = frozenset(("opaque module", "opaque"))
# They put values elsewhere, which a gradient follows exactly: where they put them, another place has decided.
PLACING = frozenset("__setitem__ roll flip fliplr flipud rot90".split())
# `d.data = value`, as `Interceptor` names it.
SET_DATA = "data="
# Put another tensor's memory in the place of the first one's.
REPLACING = frozenset((SET_DATA, "set_"))
# Write into their first argument.
WRITES = frozenset(("__setitem__", *REPLACING))
# Hand out a tensor's memory, to be written into where nobody sees it.
LENDING = frozenset("numpy __array__ __dlpack__ untyped_storage storage data_ptr".split())
# After these, something happens to a tensor that no operation shows.
TELLING = LENDING | {"retain_grad"}
# Make a new tensor from numbers.
COPIES = frozenset("tensor as_tensor new_tensor asarray from_dlpack frombuffer full scalar_tensor".split())
CUTS = frozenset(("detach", "detach_", "data", *REPLACING, "requires_grad_", "__deepcopy__", "Parameter"))
# Gradients taken inside the network. Their results have no gradient of their own, unless the graph is kept for one.
GRADIENTS = frozenset(("autograd.grad", "backward"))
# Of the tensors that these are given, the first alone lends its values; the others lend a shape or a type.
SHAPED_LIKE = frozenset("view_as reshape_as expand_as resize_as_ type_as to".split())
# These take no value from any tensor: what they make is as new as `torch.zeros(3)`.
NEW_LIKE = frozenset(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros new_ones new_full "
    "new_empty_strided".split()
)
# They hand out memory as it is: what it happens to hold is no draw.
UNSET = frozenset("empty empty_like empty_strided empty_permuted new_empty new_empty_strided".split())
# Flat somewhere, steep elsewhere.
SATURATING = frozenset(
    "sigmoid expit tanh softmax softmin log_softmax logsigmoid erf erfc ndtr log_ndtr hardsigmoid hardtanh softsign "
    "atan arctan igamma igammac gammainc gammaincc exp exp2 expm1 clamp clip clamp_min clamp_max minimum maximum fmin "
    "fmax relu6 relu threshold hardshrink softshrink".split()
)
APPLIED = frozenset(("apply_", "map_", "map2_"))
# Draws that overwrite what they are called on; only the rest of their arguments matters.
FILLS = frozenset("uniform_ normal_ bernoulli_ random_ exponential_ geometric_ cauchy_ log_normal_".split())
AUGMENTED = frozenset(
    "__iadd__ __isub__ __imul__ __itruediv__ __iand__ __ior__ __ixor__ __ifloordiv__ __imod__ __ipow__".split()
)
# Set by assignment, as in `d.data = value` and `z.requires_grad = True`.
_SETTERS = {"data": SET_DATA, "requires_grad": "requires_grad_"}


# Questions about a tensor, not operations on its values.
QUESTIONS = frozenset(
    """shape dtype device requires_grad is_leaf grad_fn grad ndim layout names is_cuda is_sparse is_quantized itemsize
    nbytes dim size numel stride storage_offset is_contiguous is_floating_point is_complex element_size type_of
    __len__ __hash__ __repr__ __format__ __dir__ _version is_inference is_nested is_meta is_mps untyped_storage
    data_ptr get_device retain_grad has_names nelement is_tensor is_storage is_same_size storage
    set_default_dtype get_default_dtype is_grad_enabled compute_should_use_set_data is_cpu _backward_hooks is_mkldnn
    is_conj is_neg _is_view _record_function_enter_new _record_function_exit._RecordFunction""".split()
)
_SCALARS = (int, float, bool, str, type(None), torch.dtype, torch.device, slice, type(Ellipsis))
_NO_TENSORS = frozenset(_SCALARS)


def op_name(func: Callable[..., Any]) -> str:
    """Short name of what was called: `round`, `__setitem__`, `data`."""
    if func is torch.autograd.grad:
        return "autograd.grad"  # `grad` is the attribute of a leaf
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__"):
        what = getattr(getattr(func, "__self__", None), "__name__", name)
        return _SETTERS.get(what, what) if name == "__set__" else what
    return name


def plain_name(name: str) -> str:
    """Without the underscore of an in-place form, and as it is called outside `torch.special`.

    >>> plain_name("tanh_"), plain_name("special_expit"), plain_name("__gt__")
    ('tanh', 'expit', '__gt__')
    """
    return name if name.startswith("__") else name.rstrip("_").removeprefix("special_")


def tensors_in(arguments: Any) -> Iterator[Tensor]:
    """Every tensor of nested tuples, lists and dicts."""
    found: list[Tensor] = []
    _collect((arguments,), found)
    return iter(found)


def _collect(items: Iterable[Any], found: list[Tensor]) -> None:
    for item in items:
        if (
            type(item) in _NO_TENSORS
        ):  # asking whether one of these is a tensor takes longer than all the rest
            continue
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (tuple, list)):
            _collect(item, found)
        elif isinstance(item, dict):
            _collect(item.values(), found)


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
