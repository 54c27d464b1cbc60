"""The graph that goes on beside the user's code, where the user's code cuts its own.

A network that takes steps of its own in `forward` needs its leaves to be leaves: `detach`, `no_grad`, `.data` and
`requires_grad_` have to do what they say. So the user's tensors are never touched. From a cut on, each operation is run
once more on *shadows*, tensors with equal values whose graph leads back to the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..intercept.as_written import as_written
from ..intercept.draws import random_state_for, set_random_state
from ..intercept.operations import (
    APPLIED,
    CUTS,
    EXITS,
    GRADIENTS,
    NEW_LIKE,
    REPLACING,
    lenders,
    tensors_in,
    written,
)
from ..intercept.user_types import above_autograd, makes_graph
from .backward import Root, Valves
from .compare import alike, of_one_kind


def _has_graph(tensor: Tensor) -> bool:
    return tensor.requires_grad


class Shadows:
    """Finds, for each of the user's tensors, the one whose graph is whole: itself, before the first cut.

    **Arguments**
    - `x`: the leaf on which the run begins: what is cut from it is what matters.
    - `uncut`: False makes no shadows, so that every cut stays one.
    - `unroll`: gradients that the network takes of its own are differentiated, too; else they count as constants,
      unless the network itself asks for their graph.
    - `relaxed`: a result beside the user's may hold other numbers.
    - `carries`: what makes a result beside the user's worth keeping.
    """

    def __init__(
        self,
        x: Tensor,
        *,
        uncut: bool = True,
        unroll: bool = False,
        relaxed: bool = False,
        carries: Callable[[Tensor], bool] = _has_graph,
    ):
        self._start = x
        self._carries = carries
        self._of: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of the user's, which is kept alive for it
        self.retaining: list[Tensor] = []  # of those made by an operation
        self._uncut = uncut
        self._unroll = unroll
        self._alike = of_one_kind if relaxed else alike
        self._valves = Valves()

    def of(self, tensor: Tensor) -> Tensor:
        """The shadow of a tensor, or the tensor itself where it has none."""
        if (found := self._of.get(id(tensor))) is not None:
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
            shadow = Root.apply(tensor.detach().clone(), torch.zeros((), requires_grad=True))
        self._of[id(tensor)] = tensor, shadow
        return shadow

    def graded(self, ends: Any, only: Any = None) -> list[Tensor]:
        """The user's tensors whose `grad` a pass writes: leaves, or `only` its `inputs`, those that retain one."""
        if only is not None:
            return [*tensors_in(only), *self.retaining]
        nodes, seen, found = [tensor.grad_fn for tensor in tensors_in(ends)], set(), list(self.retaining)
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                found.append(node.variable)  # pyright: ignore[reportAttributeAccessIssue]
            nodes += [before for before, _ in node.next_functions]
        return found

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
        if name in GRADIENTS and self._uncut and (self._unroll or self._any((args, kwargs))):
            return self._differentiated(name, func, args, kwargs)
        if not self._uncut or not (wanted or self._needed(name, args, kwargs)):
            return as_written(name, func, args, kwargs)
        into = [self._for_writing(t) for t in written(name, args, kwargs)]
        # Asked for now, for what is cut in place has no graph afterwards.
        before = self._cut_from(name, args, kwargs) if name in CUTS else None
        seeds = random_state_for(kind, args, kwargs)
        result = as_written(name, func, args, kwargs)
        after = random_state_for(kind, args, kwargs)
        set_random_state(seeds)
        try:
            with above_autograd():
                how = func if before is None else lambda *_, **__: before
                given = self._all(args), self._all(kwargs)
                shadow = how(*given[0], **given[1]) if beside is None else beside(how, *given)
            self._pair(args[0] if result is None and shadow is not None else result, shadow, name)
        except Exception:  # whatever somebody's operation raises where it is to be differentiated
            for tensor in into:
                self._of.pop(id(tensor), None)
        finally:
            set_random_state(after)
        return result

    def _differentiated(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A gradient that the network takes of its own; the same of the shadows, where it is to be differentiated."""
        if not self._unroll and not (name == "autograd.grad" and kwargs.get("create_graph")):
            return as_written(name, func, args, kwargs)
        ends = self.graded(args[0], kwargs.get("inputs")) if name == "backward" else []
        before = [None if (g := leaf.grad) is None else (g, g._version, self.of(g).clone()) for leaf in ends]
        result = as_written(name, func, args, kwargs)
        graph = {"create_graph": True, "retain_graph": True, "allow_unused": True}
        try:
            with torch.enable_grad():
                if name == "autograd.grad":
                    with self._valves:
                        beside = func(*self._all(args[:3]), **{**self._all(kwargs), **graph})
                    self._pair(result, list(map(self._valves.behind, result, beside)), name)
                    return result
                starts, outer = self._all(args[0]), self._all(kwargs.get("gradient"))
                with self._valves:
                    found = torch.autograd.grad(starts, self._all(ends), outer, **graph)
                for leaf, old, one in zip(ends, before, found, strict=True):
                    if (g := leaf.grad) is None or (old and g is old[0] and g._version == old[1]):
                        continue  # the pass did not come there
                    if (new := self._valves.behind(g, one)) is not None:
                        self._pair(g, old[2] + new if old else new, name)
        except Exception:  # somebody's operation that has no second derivative
            pass
        return result

    def _needed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name in EXITS | APPLIED | NEW_LIKE | GRADIENTS or _asked_for(name, args, kwargs):
            return False
        if self._any((args, kwargs)):
            return True
        if name not in CUTS and makes_graph():
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
        base = target._base if target._is_view() else None
        if self._unroll and base is None and self.of(target) is not target:
            # What was saved on the way stays as it was, as in an optimiser's next step on the same moments.
            with torch.enable_grad():
                self._of[id(target)] = target, self.of(target).clone()
            for view in [key for key, (t, _) in self._of.items() if t._is_view() and t._base is target]:
                del self._of[view]
        elif self.of(target) is target:
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
            if self._of.get(id(tensor), (tensor, None))[1] is shadow:
                continue
            if (
                shadow is not tensor
                and self._carries(shadow)
                and (name in CUTS or self._alike(tensor, shadow))
            ):
                self._of[id(tensor)] = tensor, shadow
            else:
                self._of.pop(id(tensor), None)


def _asked_for(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a gradient is asked for, by `requires_grad_()` or an assignment: that cuts nothing."""
    return name == "requires_grad_" and False not in (*args[1:], *kwargs.values())
