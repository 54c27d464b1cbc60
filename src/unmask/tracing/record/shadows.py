"""The graph that goes on beside the user's code, where the user's code cuts its own.

A network that takes steps of its own in `forward` needs its leaves to be leaves: `detach`, `no_grad`, `.data` and
`requires_grad_` have to do what they say. So the user's tensors are never touched. From a cut on, each operation is run
once more on *shadows*, tensors with equal values whose graph leads back to the input.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .operations import APPLIED, CUTS, EXITS, GRADIENTS, NEW_LIKE, REPLACING, lenders, tensors_in, written

# Between an operation and its shadow; other kernels run where a gradient is wanted. Ours.
_RTOL = 1e-3


def _has_graph(tensor: Tensor) -> bool:
    return tensor.requires_grad


class Shadows:
    """Finds, for each of the user's tensors, the one whose graph is whole: itself, before the first cut.

    **Arguments**
    - `x`: the leaf on which the run begins: what is cut from it is what matters.
    - `uncut`: False makes no shadows, so that every cut stays one.
    - `carries`: what makes a result beside the user's worth keeping.
    """

    def __init__(self, x: Tensor, *, uncut: bool = True, carries: Callable[[Tensor], bool] = _has_graph):
        self._start = x
        self._carries = carries
        self._of: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # the user's is kept alive, for its id must stay its own
        self._uncut = uncut

    def of(self, tensor: Tensor) -> Tensor:
        """The shadow of a tensor, or the tensor itself where it has none."""
        found = self._of.get(id(tensor))
        if found is not None:
            return found[1]
        base = tensor._base if tensor._is_view() else None
        if base is not None and id(base) in self._of:
            return self._view(tensor, base)
        return tensor

    def root(self, tensor: Tensor) -> Tensor:
        """Starts a new piece of graph at a tensor without one, so that what follows can be examined."""
        if not self._uncut:
            return tensor
        with torch.enable_grad():
            shadow = _Root.apply(tensor.detach().clone(), torch.zeros((), requires_grad=True))
        self._of[id(tensor)] = tensor, shadow
        return shadow

    def lead(self, tensor: Tensor, shadow: Tensor) -> None:
        """Makes a tensor, where it comes back to torch with a graph beside it, the end of that graph."""
        if shadow is not tensor:
            self._of[id(tensor)] = tensor, shadow

    def call(
        self,
        kind: str,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        beside: Callable[..., Any] | None = None,
        wanted: bool = False,
    ) -> Any:
        """Runs an operation as the user's code has it, and once more beside it where that would lose the graph.

        **Arguments**
        - `beside`: runs it on shadows; given how, and its arguments.
        - `wanted`: run it there whatever becomes of the graph.
        """
        if not self._uncut or not (wanted or self._needed(name, args, kwargs)):
            return as_written(name, func, args, kwargs)
        into = [self._for_writing(t) for t in written(name, args, kwargs)]
        # Asked for now, for what is cut in place has no graph afterwards.
        before = self._cut_from(name, args, kwargs) if name in CUTS else None
        seeds = _random_state(kind, args, kwargs)
        result = as_written(name, func, args, kwargs)
        after = _random_state(kind, args, kwargs)
        _set_random_state(seeds)
        try:
            with torch.enable_grad():
                how = func if before is None else lambda *_, **__: before
                given = self._all(args), self._all(kwargs)
                shadow = how(*given[0], **given[1]) if beside is None else beside(how, *given)
            self._pair(args[0] if name in REPLACING else result, shadow, name)
        except Exception:  # whatever somebody's operation raises where it is to be differentiated
            for tensor in into:
                self._of.pop(id(tensor), None)
        finally:
            _set_random_state(after)
        return result

    def _needed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name in EXITS or name in APPLIED or name in NEW_LIKE:
            return False
        if name in GRADIENTS:
            return name == "autograd.grad" and bool(kwargs.get("create_graph")) and self._any((args, kwargs))
        if self._any((args, kwargs)):
            return True
        if name not in CUTS and torch.is_grad_enabled():
            return False
        return any(t.grad_fn is not None or t is self._start for t in lenders(name, args, kwargs))

    def _any(self, arguments: Any) -> bool:
        return bool(self._of) and any(self.of(t) is not t for t in tensors_in(arguments))

    def _all(self, arguments: Any) -> Any:
        """The same arguments, of shadows."""
        if isinstance(arguments, Tensor):
            return self.of(arguments)
        if type(arguments) in (tuple, list):
            return type(arguments)(self._all(item) for item in arguments)
        if type(arguments) is dict:
            return {key: self._all(item) for key, item in arguments.items()}
        return arguments

    def _cut_from(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What goes on behind a cut. `detach` shares memory, and so do shadows; the user's memory is not theirs."""
        given = (*args, *kwargs.values())[1 if name in REPLACING else 0]
        shadow = self.of(given)
        with torch.enable_grad():
            return shadow.clone() if shadow is given else shadow.view_as(shadow)

    def _for_writing(self, target: Tensor) -> Tensor:
        """Gives a tensor that is about to be written into memory of its own to be shadowed in."""
        if self.of(target) is target:
            base = target._base if target._is_view() else None
            with torch.enable_grad():
                if base is None:
                    self._of[id(target)] = target, target.clone()
                else:
                    self._of[id(base)] = base, base.clone()
                    self._view(target, base)
        return target

    def _view(self, tensor: Tensor, base: Tensor) -> Tensor:
        whole = self._of[id(base)][1]
        if whole.dtype != tensor.dtype or whole.stride() != base.stride():
            return tensor
        with torch.enable_grad():
            offset = tensor.storage_offset() - base.storage_offset() + whole.storage_offset()
            shadow = whole.as_strided(tensor.size(), tensor.stride(), offset)
        self._of[id(tensor)] = tensor, shadow
        return shadow

    def _pair(self, made: Any, beside: Any, name: str) -> None:
        """Remembers what an operation's results have for shadows."""
        for tensor, shadow in zip(tensors_in(made), tensors_in(beside), strict=True):
            known = self._of.get(id(tensor))
            if known is not None and known[1] is shadow:
                continue
            if shadow is not tensor and self._carries(shadow) and (name in CUTS or _alike(tensor, shadow)):
                self._of[id(tensor)] = tensor, shadow
            else:
                self._of.pop(id(tensor), None)


class _Root(torch.autograd.Function):
    """Puts a tensor without a graph into one, in place and without a change of its values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:  # type: ignore[override]
        return None, None


def as_written(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation as the user's code has it.

    What torch refuses only because a gradient is wanted, and would do for a deployed network, is done without one.
    """
    if name in EXITS:
        return func(*(a.detach() if isinstance(a, Tensor) else a for a in args), **kwargs)
    if name == "__deepcopy__" and args[0].grad_fn is not None:
        return args[0].detach().clone()
    if name in APPLIED and args[0].requires_grad:  # number by number, in Python
        with torch.no_grad():
            func(args[0].detach(), *(a.detach() if isinstance(a, Tensor) else a for a in args[1:]), **kwargs)
        return args[0]
    if name in GRADIENTS and kwargs.get("retain_graph") is None:
        kwargs = {**kwargs, "retain_graph": True}  # the trace looks at the graph afterwards
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        # Not differentiable as called (`out=`, a write into a leaf).
        if not written(name, args, kwargs) or not any(t.requires_grad for t in tensors_in((args, kwargs))):
            raise
        with torch.no_grad():
            return func(*args, **kwargs)


def _alike(tensor: Tensor, shadow: Tensor) -> bool:
    if tensor.shape != shadow.shape or tensor.dtype != shadow.dtype:
        return False
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return True
    a, b = tensor.detach(), shadow.detach()
    return torch.equal(a, b) or torch.allclose(a, b, rtol=_RTOL, atol=1e-6, equal_nan=True)


def _random_state(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Every generator that an operation may draw from; Python's own only where a whole part of the network runs."""
    own = [(g, g.get_state()) for g in (*args, *kwargs.values()) if isinstance(g, torch.Generator)]
    device = next((t.device for t in tensors_in((args, kwargs)) if t.is_cuda), None)
    cuda = None if device is None else (device, torch.cuda.get_rng_state(device))
    python = None if kind == "torch" else (random.getstate(), np.random.get_state())
    return torch.get_rng_state(), own, cuda, python


def _set_random_state(state: Any) -> None:
    torch.set_rng_state(state[0])
    for generator, held in state[1]:
        generator.set_state(held)
    if state[2] is not None:
        torch.cuda.set_rng_state(state[2][1], state[2][0])
    if state[3] is not None:
        random.setstate(state[3][0])
        np.random.set_state(state[3][1])
