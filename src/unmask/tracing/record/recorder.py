"""Records one forward pass: every operation, where it stands, what went in and what came out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.utils.weak import TensorWeakRef

from ...classifier import Classifier, lent, seeded
from ...classifier.checkpointing import differentiable_checkpoints
from ...types import Outputs
from .compare import equal
from .draws import generator_states, watching_draws
from .graph_hooks import watching_saves
from .intercept import Interceptor
from .operations import (
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
from .operations import written as may_write
from .shadows import Shadows
from .sites import Site, hooked_at, module_names, site, stack
from .values import Record, Trace, Value, constant, edge_of, held, memory_of, value_of, weight_of

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
        stored = (*network.parameters(), *network.buffers()) if isinstance(network, nn.Module) else ()
        # Weights that the network leaves alone are looked at where they are.
        self._kept = {id(t) for t in stored if memory_of(t) and memory_of(t) not in written}
        self._keep = keep
        self._now: dict[int, Value] = {id(x): value_of(x, -1, edge_of(x), from_input=True)}
        self._there: dict[int, TensorWeakRef] = {id(x): TensorWeakRef(x)}
        # What came from elsewhere, or was written into: its identity, or its address, must stay its own.
        self._alive: list[Tensor] = [x]
        self._writers: dict[int, int] = {}  # of memory: the last operation that wrote into it
        self._lent: set[int] = set()  # memory that others can write into unseen
        self._seen_at: dict[int, int] = {}
        self._ordinals: dict[tuple[str, str, int], int] = {}
        self._off_at: Site | None = None
        self._paused: list[Site | None] = []

    def _edge(self, tensor: Tensor) -> GradientEdge | None:
        return edge_of(self.shadows.of(tensor))

    def _known(self, tensor: Tensor) -> Value | None:
        """What is known of a tensor, unless it was known of another one whose identity it has inherited."""
        there = self._there.get(id(tensor))
        if there is not None and there() is tensor:
            return self._now[id(tensor)]
        self._seen_at.pop(id(tensor), None)
        return None

    def _remember(self, tensor: Tensor, value: Value) -> None:
        self._now[id(tensor)], self._there[id(tensor)] = value, TensorWeakRef(tensor)

    def _value(self, tensor: Tensor) -> Value:
        value = self._known(tensor)
        writer = self._writers.get(memory_of(tensor), -1) if self._writers else -1
        if writer >= 0 and writer > (
            self._seen_at.get(id(tensor), -1)
        ):  # in another name for the same memory
            value = value_of(tensor, writer, self._edge(tensor))
        elif value is None:
            edge = self._edge(tensor)
            self._alive.append(tensor)
            if id(tensor) in self._kept:
                value = weight_of(tensor, edge)
            else:
                value = replace(
                    value_of(constant(tensor), -1, edge), version=tensor._version, fixed=id(tensor)
                )
        elif value.version != tensor._version:  # written through a view
            value = value_of(tensor, value.producer, self._edge(tensor))
        elif self._overwritten(tensor, value):
            value = value_of(tensor, -1, self._edge(tensor), fixed=id(tensor))
        elif value.edge is None and tensor.requires_grad:  # made a leaf of its own since
            value = replace(value, edge=self._edge(tensor))
        else:
            return value
        self._remember(tensor, value)
        self._seen_at[id(tensor)] = len(self.records) - 1
        return value

    def on_question(self, name: str, tensor: Tensor) -> None:
        """As `Interceptor.on_question`."""
        if name in LENDING:
            self._lent.add(memory_of(tensor))
        else:
            self.shadows.retaining.append(tensor)

    def _overwritten(self, tensor: Tensor, value: Value) -> bool:
        """Whether somebody wrote into it past torch, which keeps count of its own writes alone."""
        memory = memory_of(tensor)
        return memory != 0 and memory in self._lent and not equal(value_of(tensor, -1, None), value)

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
            self._switch(bool(args[0]), where)
            return func(*args, **kwargs)
        given = list(lenders(name, args, kwargs))
        inputs = [self._value(t) for t in given]
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
        result = self.shadows.call(kind, name, func, args, kwargs)
        in_place = name in WRITES or (
            bool(args) and isinstance(args[0], Tensor) and (result is args[0] or result is kwargs.get("out"))
        )
        if in_place and name not in FILLS and base_edge is not None and inputs[0].carries:
            inputs[0] = replace(inputs[0], edge=base_edge)
        made = [args[0]] if name in WRITES else list(tensors_in(result))
        if name == "backward":
            made = [leaf.grad for leaf in self.shadows.graded(args[0]) if leaf.grad is not None]
        reached = name not in GRADIENTS and (kind == "source" or any(v.carries for v in inputs))
        index = len(self.records)
        lost = name in APPLIED or (kind == "hook" and name != "register_hook" and self._raises(made, inputs))
        outputs = [self._output(tensor, index, reached, lost, kind) for tensor in made]
        if in_place and made and memory_of(made[0]):
            self._writers[memory_of(made[0])] = index
            self._alive.append(made[0])
        if kind == "source" or (name in COPIES and not inputs):
            self._lent |= {memory_of(tensor) for tensor in made}
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
            switched_off_at=None if torch.is_grad_enabled() else self._off_at,
            saved_by_hooks=self._saving > 0,
            key=(*base, ordinal),
        )
        self.records.append(found)
        if self._keep(found):
            for value, tensor in zip((*inputs, *outputs), (*before, *made), strict=True):
                value.keep(tensor)
        return result

    def _output(self, tensor: Tensor, index: int, reached: bool, lost: bool, kind: str) -> Value:
        """What came out. If it lost its graph, it stands at the root of a new one from now on."""
        shadow = self.shadows.of(tensor)
        numbers = tensor.is_floating_point() or tensor.is_complex()
        # A hook is not asked: what it does with a gradient that was none of its own would stay.
        refused = kind != "hook" and shadow.grad_fn is not None and _refuses(shadow)
        lost = numbers and reached and (refused or lost or not shadow.requires_grad)
        value = value_of(tensor, index, None if lost else edge_of(shadow))
        self._remember(tensor, value)
        if lost:
            self._inside += 1  # ours, not the user's function
            self._remember(tensor, replace(value, edge=edge_of(self.shadows.root(tensor))))
            self._inside -= 1
        self._seen_at[id(tensor)] = index
        return value

    def _raises(self, made: list[Tensor], inputs: list[Value]) -> bool:
        """Whether a module's backward hooks raise where a gradient comes back through it."""
        edges = [v.edge for v in inputs if v.edge is not None]
        ends = [shadow for t in made if (shadow := self.shadows.of(t)).requires_grad]
        if not edges or not ends:
            return False
        self.over = True  # the user's own hooks on tensors are not meant
        try:
            return not _goes_back(ends, edges)
        finally:
            self.over = False

    def _switch(self, on: bool, where: Site) -> None:
        """Follows which of the user's lines switched gradients off, through blocks inside blocks."""
        leaving = _leaving()
        if on and not leaving and not torch.is_grad_enabled():
            self._paused.append(self._off_at)
        elif not on and not leaving:
            self._off_at = where
        elif not on and self._paused:
            self._off_at = self._paused.pop()

    def on_hook(self, tensor: Tensor, hook: Callable[..., Any]) -> Any:
        """As `Interceptor.on_hook`. The hook is examined as an operation of its own, beside the graph."""
        self.on_graph_hook(tensor, hook)
        return super().on_hook(tensor, hook)

    def on_graph_hook(self, tensor: Tensor, hook: Callable[..., Any]) -> None:
        """As `Interceptor.on_graph_hook`; examined in the same way."""
        before = self._value(tensor)
        self._inside += 1  # ours, not the user's function
        try:
            self.on_call(
                "hook", "register_hook", lambda t: _Hooked.apply(self.shadows.of(t), hook), (tensor,), {}
            )
        finally:
            self._inside -= 1
        self._remember(tensor, replace(before, producer=len(self.records) - 1))

    def saw_hooks(self, more: int) -> None:
        """Notes where blocks of the user's begin and end that have a say in what is saved for the way back."""
        self._saving += more

    def saw_draw(self) -> None:
        """Notes that Python code is drawing a random number now."""
        self.draws.append((len(self.records), site(stack(), self._names)))


class _Hooked(torch.autograd.Function):
    """Identity whose backward is a tensor's hook."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hook: Callable[..., Any]) -> Tensor:
        ctx.hook = hook
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        changed = ctx.hook(grad)
        return grad if changed is None else changed, None


def _leaving() -> bool:
    """Whether torch is leaving a block such as `with no_grad()`, rather than entering one."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(8):
        if frame is None or frame.f_code.co_name == "__enter__":
            return False
        if frame.f_code.co_name == "__exit__":
            return True
        frame = frame.f_back
    return False


def _refuses(tensor: Tensor) -> bool:
    """Whether the backward of what made a tensor raises: `//`, an operator without a derivative, a missing backward."""
    made_by = tensor.grad_fn
    assert made_by is not None
    if made_by.name().endswith("NotImplemented"):
        return True
    if not isinstance(made_by, torch.autograd.function.BackwardCFunction) or not made_by.next_functions:
        return False
    return not _goes_back(
        [tensor], [GradientEdge(node, n) for node, n in made_by.next_functions if node is not None]
    )


def _goes_back(ends: list[Tensor], edges: list[GradientEdge]) -> bool:
    try:
        with torch.random.fork_rng(devices=[]):
            zeros = [torch.zeros_like(end) for end in ends]
            torch.autograd.grad(ends, edges, zeros, retain_graph=True, allow_unused=True)  # pyright: ignore
    except Exception:  # the user's own code: it may raise anything
        return False
    return True


def group_of(name: str, where: Site) -> tuple[str, str, int]:
    """What an operation is called when it has to be found again in another pass."""
    place = where.file or where.module
    # Of a library's operations under one call of the user's, each is one of its own.
    return name, place if where.inside is None else "{} in {}:{}".format(place, *where.inside), where.line


def _copied(result: Any) -> Any:
    return np.array(result, copy=True) if isinstance(result, np.ndarray) else result


def run_network(classifier: Classifier, x: Tensor) -> Tensor:
    """One bare pass, read as logits; the frame at which every recorded stack ends."""
    with differentiable_checkpoints():
        outputs = Outputs.of(classifier.network(x))
    assert outputs is not None, "it ran before, and was read"
    return outputs.logits


def record(
    classifier: Classifier,
    x: Tensor,
    *,
    seed: int,
    uncut: bool = True,
    written: Collection[int] = (),
    keep: Keep = everything,
) -> Trace:
    """Runs the network once on `x`, with gradient, under a seed.

    **Arguments**
    - `uncut`, `keep`: as of `Recorder`.
    - `written`: the memory (`untyped_storage().data_ptr()`) of weights that the network overwrites in each pass: what
      the graph needs of them is copied, so that it outlives the next pass.

    **Cost**: one forward, metered; the graph is kept by the trace.
    """
    classifier.meter.forwards += len(x)
    classifier.put_back()
    leaf = x.detach().clone().requires_grad_()
    recorder, logits, states = _recorded(classifier, lent(leaf), seed, uncut, written, keep)
    return Trace(recorder.records, logits, leaf, recorder.draws, states, recorder.differentiates, seed)


def _recorded(
    classifier: Classifier, given: Tensor, seed: int, uncut: bool, written: Collection[int], keep: Keep
) -> tuple[Recorder, Tensor, tuple[Any, ...]]:
    def packed(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in written else tensor

    saved = torch.autograd.graph.saved_tensors_hooks(packed, lambda t: t) if written else nullcontext()
    recorder = Recorder(classifier.network, given, uncut=uncut, written=written, keep=keep)
    with torch.enable_grad(), seeded(seed, given.device), saved:
        with (
            watching_draws(recorder.saw_draw),
            recorder,
            watching_saves(left_out=False, saw=recorder.saw_hooks),
        ):
            logits = run_network(classifier, given)
        states = generator_states()
        whole = recorder.shadows.of(logits)
        joined = logits if whole is logits else _Valued.apply(logits.detach(), whole)
        return recorder, classifier.as_logits(Outputs(joined)).logits, states


class _Valued(torch.autograd.Function):
    """The user's numbers, bit for bit, with the graph of their shadows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, shadow: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, grad
