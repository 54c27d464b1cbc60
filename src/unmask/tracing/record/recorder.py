"""Records one forward pass: every operation, where it stands, what went in and what came out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..attention import ATTENTION, shares
from ..intercept.interceptor import Interceptor
from ..intercept.operations import (
    APPLIED,
    COPIES,
    EXITS,
    FILLS,
    GRADIENTS,
    LENDING,
    WRITES,
    lenders,
    scalars_in,
    tensors_in,
)
from ..intercept.operations import written as may_write
from ..intercept.sites import Site, group_of, hooked_at, module_names, site, stack
from .backward import Hooked, goes_back, refuses
from .known import Known
from .shadows import Shadows
from .switches import Switches
from .values import Record, Value, edge_of, held, value_of

# Of which operations the tensors are kept that they were given and gave; of the others, digests.
Keep = Callable[[Record], bool]


def everything(_: Record) -> bool:
    """Keeps the tensors of every operation: several times what a backward pass needs."""
    return True


class Recorder(Interceptor):
    """Records every operation. The user's code runs as it is written; what is recorded has a graph that is whole.

    Behind a cut the graph goes on in `Shadows`, and a tensor that comes back from elsewhere starts a new piece of it.
    So every operation can be examined in one run, also those behind a cut.

    **Arguments**
    - `uncut`: False records the graph that the user's code leaves, cuts and hooks included, and nothing beside it.
    - `written`: as of `record`.
    - `keep`: asked about each operation once it is recorded.
    """

    def __init__(
        self,
        network: Any,
        x: Tensor,
        *,
        uncut: bool = True,
        written: Collection[int] = (),
        keep: Keep = everything,
    ):
        super().__init__()
        self.keeps_inference_mode = not uncut
        self.records: list[Record] = []
        self.draws: list[tuple[int, Site]] = []
        self.differentiates = False
        self._saving = 0  # blocks of the user's own `saved_tensors_hooks` around
        self.shadows = Shadows(x, uncut=uncut)
        self._uncut = uncut
        self._names = module_names(network)
        self._keep = keep
        self._known = Known(network, x, self.shadows, written)
        self._ordinals: dict[tuple[str, str, int], int] = {}
        self._switches = Switches()

    def on_question(self, name: str, tensor: Tensor) -> None:
        """As `Interceptor.on_question`."""
        if name in LENDING:
            self._known.lend([tensor])
        else:
            self.shadows.retaining.append(tensor)

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `Interceptor.on_call`."""
        if name == "requires_grad_" and not (
            args[0].requires_grad and False in (*args[1:], *kwargs.values())
        ):
            return func(*args, **kwargs)
        if name in GRADIENTS:
            self.differentiates = True
        frames = stack()
        where = site(frames, self._names)
        if name == "_set_grad_enabled":
            self._switches.switch(bool(args[0]), where)
            return func(*args, **kwargs)
        given = list(lenders(name, args, kwargs))
        inputs = [self._known.value(t, len(self.records) - 1) for t in given]
        # What may be written into is copied before; whether that is kept can only be told afterwards.
        before = (
            [held(t) for t in given]
            if kind != "torch" or name in WRITES or may_write(name, args, kwargs)
            else given
        )
        scalars = tuple(scalars_in((args, kwargs)))
        # Written into a view, the gradient goes on to its base: autograd replaces the view's own place in the graph.
        target = self.shadows.of(args[0]) if args and isinstance(args[0], Tensor) else None
        base_edge = edge_of(target._base) if target is not None and target._base is not None else None
        began = len(self.records)
        result = self.shadows.call(kind, name, func, args, kwargs)
        in_place = name in WRITES or (
            bool(args) and isinstance(args[0], Tensor) and (result is args[0] or result is kwargs.get("out"))
        )
        if in_place and name not in FILLS and base_edge is not None and inputs[0].carries:
            inputs[0] = replace(inputs[0], edge=base_edge)
        made = [args[0]] if name in WRITES else list(tensors_in(result))
        if name == "backward":
            made = [
                leaf.grad
                for leaf in self.shadows.graded(args[0], kwargs.get("inputs"))
                if leaf.grad is not None
            ]
        reached = name not in GRADIENTS and (kind == "source" or any(v.carries for v in inputs))
        index = len(self.records)
        lost = name in APPLIED or (kind == "hook" and name != "register_hook" and self._raises(made, inputs))
        outputs = [self._output(tensor, index, reached, lost, kind) for tensor in made]
        if in_place and made:
            self._known.wrote(made[0], index)
        if kind == "source" or (name in COPIES and not inputs):
            self._known.lend(made)
        base = group_of(name, where)
        ordinal = self._ordinals[base] = self._ordinals.get(base, -1) + 1
        if hasattr(func, "hooked"):
            where = hooked_at(where, func.hooked)  # type: ignore[attr-defined]
        found = Record(
            index,
            kind,
            name,
            frames,
            where,
            inputs,
            outputs,
            scalars,
            plain=_copied(result) if name in EXITS else None,
            in_place=in_place,
            switched_off_at=self._switches.off_at,
            saved_by_hooks=self._saving > 0,
            key=(*base, ordinal),
            began=began,
        )
        self.records.append(found)
        if self._keep(found):
            for value, tensor in zip((*inputs, *outputs), (*before, *made), strict=True):
                value.keep(tensor)
            if name in ATTENTION:
                found.shares = shares(func, args, kwargs)
        return result

    def _output(self, tensor: Tensor, index: int, reached: bool, lost: bool, kind: str) -> Value:
        """What came out. If it lost its graph, it stands at the root of a new one from now on."""
        shadow = self.shadows.of(tensor)
        numbers = tensor.is_floating_point() or tensor.is_complex()
        # A hook is not asked: what it does with a gradient that was none of its own would stay.
        refused = kind != "hook" and shadow.grad_fn is not None and refuses(shadow)
        lost = numbers and reached and (refused or lost or not shadow.requires_grad)
        value = value_of(tensor, index, None if lost else edge_of(shadow))
        self._known.remember(tensor, value)
        if lost:
            self._inside += 1  # ours, not the user's function
            self._known.remember(tensor, replace(value, edge=edge_of(self.shadows.root(tensor))))
            self._inside -= 1
        self._known.made(tensor, index)
        return value

    def _raises(self, made: list[Tensor], inputs: list[Value]) -> bool:
        """Whether a module's backward hooks raise where a gradient comes back through it."""
        edges = [v.edge for v in inputs if v.edge is not None]
        ends = [shadow for t in made if (shadow := self.shadows.of(t)).requires_grad]
        if not edges or not ends:
            return False
        self.over = True  # the user's own hooks on tensors are not meant
        try:
            return not goes_back(ends, edges)
        finally:
            self.over = False

    def on_hook(self, tensor: Tensor, hook: Callable[..., Any]) -> Any:
        """As `Interceptor.on_hook`. The hook is examined as an operation of its own, beside the graph."""
        self.on_graph_hook(tensor, hook)
        return super().on_hook(tensor, hook)

    def on_graph_hook(self, tensor: Tensor, hook: Callable[..., Any]) -> None:
        """As `Interceptor.on_graph_hook`; examined in the same way."""
        before = self._known.value(tensor, len(self.records) - 1)
        self._inside += 1  # ours, not the user's function
        try:
            self.on_call(
                "hook", "register_hook", lambda t: Hooked.apply(self.shadows.of(t), hook), (tensor,), {}
            )
        finally:
            self._inside -= 1
        self._known.remember(tensor, replace(before, producer=len(self.records) - 1))

    def saw_hooks(self, more: int) -> None:
        """Notes where blocks of the user's begin and end that have a say in what is saved for the way back."""
        self._saving += more

    def saw_draw(self) -> None:
        """Notes that Python code is drawing a random number now."""
        self.draws.append((len(self.records), site(stack(), self._names)))


def _copied(result: Any) -> Any:
    return np.array(result, copy=True) if isinstance(result, np.ndarray) else result
