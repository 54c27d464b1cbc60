"""NumPy arrays that remember the tensor they were, so that a gradient finds its way through NumPy's own operations.

Values are NumPy's, bit for bit; beside them travels a tensor, the *trail*, that torch makes in the same way. What only
moves numbers about (a transposition, a slice, a stack) is done to their places as well, and the trail follows the
places. What NumPy does in C on somebody's behalf (an image library, a filter) ends the trail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .alike import ALIKE, REDUCED, unseen
from .places import Places

# They only move numbers about.
MOVING = frozenset(
    """reshape transpose swapaxes squeeze ravel flatten copy repeat take moveaxis rollaxis expand_dims stack concatenate
    vstack hstack dstack column_stack tile roll flip fliplr flipud rot90 split array_split broadcast_to pad resize
    atleast_1d atleast_2d atleast_3d delete diagonal __getitem__""".split()
)
_METHODS = "reshape transpose swapaxes squeeze ravel flatten copy repeat take diagonal __getitem__".split()


class Followed(np.ndarray):
    """An array with a trail: a float tensor of the same shape that leads back to the tensor that left torch."""

    trail: Tensor | None
    strange: (
        Tensor | None
    )  # where arrays without a trail were written over it; written over whole, it has none left

    def __array_finalize__(self, other: Any) -> None:
        self.trail = self.strange = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        plain = {k: bare(v) for k, v in kwargs.items()}
        given = {} if out is None else {"out": tuple(bare(o) for o in out)}
        made = getattr(ufunc, method)(*(bare(i) for i in inputs), **given, **plain)
        trail = None
        if method == "__call__" and kwargs.get("where", True) is True:
            trail = _attempt(ALIKE.get(ufunc.__name__), inputs)
        elif method == "reduce":
            trail = _reduced(ufunc.__name__, inputs[0], kwargs.get("axis", 0), kwargs.get("keepdims", False))
        return follow(made, trail) if out is None else _written(out[0], made, trail)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = func.__name__
        if name in MOVING:
            return moved(func, args, kwargs)
        made = func(*bare(args), **bare(kwargs))
        trail = None
        if name in REDUCED:
            axis = kwargs.get("axis", args[1] if len(args) > 1 else None)
            trail = _reduced(name, args[0], axis, kwargs.get("keepdims", False))
        elif name == "einsum":
            trail = _attempt(lambda *arrays: torch.einsum(args[0], *arrays), args[1:])
        elif name in ALIKE:
            bounds = tuple(kwargs[k] for k in ("a_min", "a_max", "min", "max") if k in kwargs)
            trail = _attempt(ALIKE[name], args[:1] if name == "round" else args + bounds)
        elif isinstance(made, np.ndarray) and isinstance(args[0], Followed) and not name.endswith("_like"):
            trail = _like(args[0], made)
        return follow(made, trail) if kwargs.get("out") is None else _written(kwargs["out"], made, trail)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As of any array; a number that loses its fraction keeps its trail."""
        return follow(np.ndarray.astype(bare(self), dtype, *args, **kwargs), self.trail)

    def __setitem__(self, index: Any, value: Any) -> None:
        np.ndarray.__setitem__(bare(self), bare(index), bare(value))
        if self.trail is None:
            return
        places = np.arange(self.size).reshape(self.shape)[bare(index)]
        shape = np.shape(places)
        with unseen():
            at = torch.as_tensor(np.array(places).reshape(-1))
            trail, new = self.trail.flatten().clone(), trail_of(value)
            self.strange = torch.zeros(self.size, dtype=torch.bool) if self.strange is None else self.strange
            self.strange[at] = new is None and np.ndim(value) > 0
            new = torch.as_tensor(bare(value)).to(trail) if new is None else new.to(trail)
            trail[at] = new.broadcast_to(shape).flatten()
            self.trail = None if self.strange.all() else trail.reshape(self.shape)

    def __iter__(self) -> Iterator[Any]:
        return (self[n] for n in range(len(self)))

    @property
    def T(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]  # noqa: N802
        """The transpose."""
        return self.transpose()

    def clip(self, *args: Any, **kwargs: Any) -> Any:
        """As of any array."""
        low, high = ([*args, None, None])[:2]
        return np.clip(self, kwargs.get("min", low), kwargs.get("max", high))

    def round(self, *args: Any, **kwargs: Any) -> Any:
        """As of any array."""
        return follow(np.ndarray.round(bare(self), *args, **kwargs), self.trail)


def _by_method(name: str) -> Callable[..., Any]:
    def method(self: Followed, *args: Any, **kwargs: Any) -> Any:
        return moved(getattr(np.ndarray, name), (self, *args), kwargs)

    return method


def _reducing(name: str) -> Callable[..., Any]:
    def method(self: Followed, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
        made = getattr(np.ndarray, name)(bare(self), axis, *args, **kwargs)
        return follow(made, _reduced(name, self, axis, kwargs.get("keepdims", False)))

    return method


for _name in _METHODS:
    setattr(Followed, _name, _by_method(_name))
for _name in ("sum", "mean", "max", "min", "std", "var"):
    setattr(Followed, _name, _reducing(_name))


def follow(made: Any, trail: Tensor | None) -> Any:
    """The array, with a trail where there is one of its shape."""
    if trail is None or not isinstance(made, np.ndarray | np.generic):
        return made
    trail = fitting(trail, np.shape(made))
    if trail is None:
        return made
    followed = np.asanyarray(made).view(Followed)
    followed.trail = trail
    return followed


def blank(made: np.ndarray) -> np.ndarray:
    """A new array that nothing led to yet, but that may be written into."""
    return follow(made, torch.zeros(made.shape)) if made.dtype.kind == "f" else made


def _written(out: Any, made: Any, trail: Tensor | None) -> Any:
    if not isinstance(out, Followed):
        return made
    out.trail = fitting(trail, np.shape(out))
    return out


def bare(item: Any) -> Any:
    """Without trails, at any depth."""
    if isinstance(item, Followed):
        return item.view(np.ndarray)
    if isinstance(item, tuple | list):
        return type(item)(bare(i) for i in item)
    return {k: bare(v) for k, v in item.items()} if isinstance(item, dict) else item


def trail_of(item: Any) -> Tensor | None:
    """The trail of an array, where it has one."""
    return item.trail if isinstance(item, Followed) else None


def fitting(trail: Tensor | None, shape: Any) -> Tensor | None:
    """The trail in that shape, or None where it has another number of elements."""
    if trail is None or trail.numel() != int(np.prod(shape)):
        return None
    if tuple(trail.shape) == tuple(shape):
        return trail
    with unseen():
        return trail.reshape(tuple(shape))


def _as_trail(item: Any, like: Tensor) -> Any:
    trail = trail_of(item)
    if trail is not None:
        return trail
    if isinstance(item, np.ndarray | np.generic | list | tuple):
        return torch.as_tensor(np.array(bare(item))).to(like)
    return item


def _attempt(function: Callable[..., Tensor] | None, inputs: Any) -> Tensor | None:
    """The trail of a result, or None where torch cannot make it in this way."""
    like = next((t for i in inputs if (t := trail_of(i)) is not None), None)
    if function is None or like is None:
        return None
    with unseen():
        given = [_as_trail(i, like) for i in inputs]
        try:
            return function(*given)
        except (RuntimeError, TypeError, ValueError):
            pass
        try:  # torch's own functions of two tensors take no number in the place of one
            return function(
                *(torch.as_tensor(i).to(like) if isinstance(i, int | float) else i for i in given)
            )
        except (RuntimeError, TypeError, ValueError):
            return None


def _reduced(name: str, item: Any, axis: Any, keepdims: bool) -> Tensor | None:
    function, trail = REDUCED.get(name), trail_of(item)
    if function is None or trail is None:
        return None
    axis = tuple(range(trail.ndim)) if axis is None else axis
    with unseen():
        made = function(trail, dim=axis)
        if keepdims:
            for place in sorted(a % trail.ndim for a in ((axis,) if isinstance(axis, int) else axis)):
                made = made.unsqueeze(place)
    return made


def moved(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Moves the numbers, and their places beside them."""
    places = Places()
    made = func(*bare(args), **bare(kwargs))
    with unseen():
        at = func(
            places.of(args[0]), *bare(args[1:]), **bare(kwargs)
        )  # what follows is axes, shapes and indices
    pool = places.pool
    if not pool:
        return made
    with unseen():
        return _led(made, at, torch.cat([pool[0].new_zeros(1), *(p.to(pool[0]) for p in pool)]))


def _led(value: Any, places: Any, whole: Tensor) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_led(v, p, whole) for v, p in zip(value, places, strict=True))
    return follow(value, whole[torch.as_tensor(np.array(places, dtype=np.int64))])


def _like(source: Followed, made: np.ndarray) -> Tensor | None:
    """Straight through an unknown function whose result is like what it was given."""
    if source.trail is None or made.shape != source.shape or made.dtype.kind not in "fiu" or made.size < 2:
        return None
    if not np.ptp(made) or not np.ptp(bare(source)):
        return None
    correlation = np.corrcoef(bare(source).astype(np.float64).ravel(), made.astype(np.float64).ravel())[0, 1]
    return source.trail if correlation > 0.3 else None
