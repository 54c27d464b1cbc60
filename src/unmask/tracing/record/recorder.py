"""Records one forward pass: every operation, where it stands, what went in and what came out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ...classifier import Classifier, seeded
from ...types import Outputs
from .intercept import Interceptor
from .sites import Frame, Site, module_names, site, site_of_hook, stack

# Ways out of torch: after these, autograd sees nothing.
EXITS = frozenset(
    "numpy __array__ tolist item __float__ __int__ __bool__ __index__ __complex__ __dlpack__ __contains__".split()
)
# Writes into its first argument and returns nothing.
WRITES = frozenset(("__setitem__", "__set__"))
# Make a new tensor from numbers.
COPIES = frozenset(("tensor", "as_tensor", "new_tensor", "asarray", "from_dlpack"))
CUTS = frozenset(("detach", "detach_", "data", "requires_grad_", "__deepcopy__"))
# Of the tensors that these are given, the first alone lends its values; the others lend a shape or a type.
SHAPED_LIKE = frozenset("view_as reshape_as expand_as resize_as_ type_as to".split())
# These take no value from any tensor: what they make is as new as `torch.zeros(3)`.
NEW_LIKE = frozenset(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros new_ones new_full "
    "new_empty_strided".split()
)
APPLIED = frozenset(("apply_", "map_", "map2_"))
# Draws that overwrite what they are called on; only the rest of their arguments matters.
FILLS = frozenset("uniform_ normal_ bernoulli_ random_ exponential_ geometric_ cauchy_ log_normal_".split())
_SCALARS = (int, float, bool, str, type(None), torch.dtype, torch.device, slice, type(Ellipsis))
_PYTHON_DRAWS = (
    "random randint randrange choice choices uniform gauss normalvariate sample shuffle triangular".split()
)
_NUMPY_DRAWS = (
    "rand randn randint random uniform normal choice permutation binomial shuffle standard_normal random_sample "
    "beta laplace poisson multinomial default_rng"
).split()


@dataclass
class Value:
    """A tensor at one moment of a run.

    **Fields**
    - `producer`: index of the operation that made it; -1 for constants, parameters and tensors of unknown origin.
    - `data`: a copy of what it held.
    - `edge`: its place in autograd's graph at that moment, None without gradient.
    - `fixed`: identity of the tensor object, for constants (so that two ensemble members differ).
    """

    producer: int
    data: Tensor
    edge: GradientEdge | None = None
    version: int = 0
    fixed: int = 0
    from_input: bool = False


@dataclass
class Record:
    """One operation of a run."""

    index: int
    kind: str
    name: str
    call: Callable[..., Any]
    frames: list[Frame]
    site: Site
    inputs: list[Value]
    outputs: list[Value]
    scalars: tuple[Any, ...]
    plain: Any = None
    in_place: bool = False
    switched_off_at: Site | None = None
    key: tuple[str, str, int, int] = ("", "", 0, 0)

    @property
    def group(self) -> tuple[str, str, int]:
        """Name and place, without the ordinal."""
        return self.key[:3]


@dataclass
class Trace:
    """A recorded run. `draws` are Python-level random calls: (index of the next operation, site)."""

    records: list[Record]
    logits: Tensor
    x: Tensor
    draws: list[tuple[int, Site]]


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


def _scalars_in(arguments: Any) -> Iterator[Any]:
    if isinstance(arguments, (tuple, list)):
        for item in arguments:
            yield from _scalars_in(item)
    elif isinstance(arguments, dict):
        for item in arguments.values():
            yield from _scalars_in(item)
    elif isinstance(arguments, _SCALARS):
        yield repr(arguments)


class Recorder(Interceptor):
    """Records every operation. Values are what they are without it; only the graph is kept whole.

    Cuts are noted but not made: under `no_grad` the graph is built all the same, `detach` hands on the tensor itself,
    and a tensor that comes back from elsewhere starts a new piece of graph. So every operation can be examined in one
    run, also those behind a cut.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.records: list[Record] = []
        self.draws: list[tuple[int, Site]] = []
        self._names = module_names(network)
        self._now: dict[int, Value] = {}
        self._alive: list[Tensor] = []
        self._ordinals: dict[tuple[str, str, int], int] = {}
        self._switched_off: list[Site] = []

    def start_from(self, x: Tensor) -> None:
        """Names the tensor on which the run begins."""
        self._now[id(x)] = Value(-1, held(x), _edge(x), x._version, from_input=True)
        self._alive.append(x)

    def _value(self, tensor: Tensor) -> Value:
        value = self._now.get(id(tensor))
        if value is None:
            value = Value(-1, held(tensor), _edge(tensor), tensor._version, fixed=id(tensor))
        elif value.version != tensor._version:  # written through a view
            value = Value(value.producer, held(tensor), _edge(tensor), tensor._version)
        else:
            return value
        self._now[id(tensor)] = value
        self._alive.append(tensor)
        return value

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `Interceptor.on_call`."""
        frames = stack()
        where = site(frames, self._names)
        if name == "_set_grad_enabled":
            if not args[0]:
                self._switched_off.append(where)
            elif self._switched_off:
                self._switched_off.pop()
            return None
        inputs = [self._value(t) for t in _lenders(name, args, kwargs)]
        scalars = tuple(_scalars_in((args, kwargs)))
        # Written into a view, the gradient goes on to its base: autograd replaces the view's own place in the graph.
        view = bool(args) and isinstance(args[0], Tensor) and args[0]._is_view()
        base_edge = _edge(args[0]._base) if view and args[0]._base is not None else None
        result = uncut(name, func, args, kwargs)
        in_place = name in WRITES or (
            bool(args) and isinstance(args[0], Tensor) and (result is args[0] or result is kwargs.get("out"))
        )
        if in_place and name not in FILLS and base_edge is not None and inputs[0].edge is not None:
            inputs[0] = replace(inputs[0], edge=base_edge)
        made = [args[0]] if name in WRITES else list(tensors_in(result))
        index = len(self.records)
        outputs = []
        for tensor in made:
            if tensor.grad_fn is not None and _refuses(tensor):
                tensor.detach_()
            lost = tensor.is_floating_point() and not tensor.requires_grad
            if lost and tensor.is_leaf and (kind == "source" or any(v.edge is not None for v in inputs)):
                outputs.append(Value(index, held(tensor), None, tensor._version))
                self._root(tensor)  # so that what follows can be examined
                self._now[id(tensor)] = Value(index, outputs[-1].data, _edge(tensor), tensor._version)
            else:
                value = Value(index, held(tensor), _edge(tensor), tensor._version)
                self._now[id(tensor)] = value
                outputs.append(value)
            self._alive.append(tensor)
        base = group_of(name, where)
        ordinal = self._ordinals[base] = self._ordinals.get(base, -1) + 1
        hook = site_of_hook(func.hooked) if hasattr(func, "hooked") else None  # type: ignore[attr-defined]
        if hook is not None:
            where = replace(where, file=hook[0], line=hook[1])
        self.records.append(
            Record(
                index,
                kind,
                name,
                func,
                frames,
                where,
                inputs,
                outputs,
                scalars,
                plain=_copied(result) if name in EXITS else None,
                in_place=in_place,
                switched_off_at=self._switched_off[0] if self._switched_off else None,
                key=(*base, ordinal),
            )
        )
        return result

    def _root(self, tensor: Tensor) -> None:
        """Starts a new piece of graph at a tensor; not a leaf, for the user's code may go on to write into it."""
        self._inside += 1  # ours, not the user's function
        try:
            _Root.apply(tensor, torch.zeros((), requires_grad=True))
        except RuntimeError:  # a view of something that has no gradient
            tensor.requires_grad_()
        self._inside -= 1

    def on_hook(self, tensor: Tensor, hook: Callable[..., Any]) -> None:
        """As `Interceptor.on_hook`. The hook is examined as an operation of its own, beside the graph."""
        before = self._value(tensor)
        self._inside += 1  # ours, not the user's function
        self.on_call("hook", "register_hook", lambda t: _Hooked.apply(t, hook), (tensor,), {})
        self._inside -= 1
        self._now[id(tensor)] = replace(before, producer=len(self.records) - 1)

    def saw_draw(self) -> None:
        """Notes that Python code is drawing a random number now."""
        self.draws.append((len(self.records), site(stack(), self._names)))


class _Root(torch.autograd.Function):
    """Puts a tensor without a graph into one, in place and without a change of its values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:  # type: ignore[override]
        return None, None


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


def uncut(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation so that autograd's graph goes on where the user's code would have cut it."""
    if name in CUTS and args and isinstance(args[0], Tensor) and args[0].requires_grad:
        if name == "__deepcopy__":
            return args[0].clone()
        return args[0].view_as(args[0]) if name in ("detach", "data") else args[0]
    if name in EXITS:
        return func(*(a.detach() if isinstance(a, Tensor) else a for a in args), **kwargs)
    if name in APPLIED:  # number by number, in Python
        made = func(
            args[0].detach(), *(a.detach() if isinstance(a, Tensor) else a for a in args[1:]), **kwargs
        )
        args[0].detach_()
        return args[0] if made.shape == args[0].shape else made
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        # Not differentiable as called (`out=`, a write into a leaf): then as the user's code would run it.
        with torch.no_grad():
            return func(*args, **kwargs)


def _refuses(tensor: Tensor) -> bool:
    """Whether the backward of what made a tensor raises: `//`, an operator without a derivative, a missing backward."""
    made_by = tensor.grad_fn
    assert made_by is not None
    if made_by.name().endswith("NotImplemented"):
        return True
    if not isinstance(made_by, torch.autograd.function.BackwardCFunction) or not made_by.next_functions:
        return False
    before = [GradientEdge(node, n) for node, n in made_by.next_functions if node is not None]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.autograd.grad(
                tensor, before, torch.zeros_like(tensor), retain_graph=True, allow_unused=True
            )  # pyright: ignore[reportArgumentType]
    except Exception:  # the user's own code: it may raise anything
        return True
    return False


def _lenders(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors from whose values an operation makes its result."""
    if name in NEW_LIKE:
        return iter(())
    if name in FILLS:
        return tensors_in((args[1:], kwargs))
    return tensors_in(args[:1] if name in SHAPED_LIKE else (args, kwargs))


def group_of(name: str, where: Site) -> tuple[str, str, int]:
    """What an operation is called when it has to be found again in another pass."""
    return name, where.file or where.module, where.line


def _copied(result: Any) -> Any:
    return np.array(result, copy=True) if isinstance(result, np.ndarray) else result


def held(tensor: Tensor) -> Tensor:
    """A copy of what a tensor holds, as plain numbers: quantised and sparse ones know few operations."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        return tensor.float()
    return tensor.clone() if tensor.layout == torch.strided else tensor.to_dense()


def _edge(tensor: Tensor) -> GradientEdge | None:
    return get_gradient_edge(tensor) if tensor.requires_grad else None


@contextmanager
def _watching_draws(saw: Callable[[], None]) -> Iterator[None]:
    """Calls `saw` at every draw from Python's and NumPy's global generators."""
    originals = [(random, n, getattr(random, n)) for n in _PYTHON_DRAWS]
    originals += [(np.random, n, getattr(np.random, n)) for n in _NUMPY_DRAWS]

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: Any, **kwargs: Any) -> Any:
            saw()
            return original(*args, **kwargs)

        return draw

    for module, name, original in originals:
        setattr(module, name, watched(original))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def run_network(classifier: Classifier, x: Tensor) -> Tensor:
    """One bare pass, read as logits; the frame at which every recorded stack ends."""
    outputs = Outputs.of(classifier.network(x))
    assert outputs is not None, "it ran before, and was read"
    return outputs.logits


def record(classifier: Classifier, x: Tensor, *, seed: int) -> Trace:
    """Runs the network once on `x`, with gradient, under a seed.

    **Cost**: one forward, metered; the graph is kept by the trace.
    """
    classifier.meter.forwards += len(x)
    leaf = x.detach().clone().requires_grad_()
    recorder = Recorder(classifier.network)
    with torch.enable_grad(), seeded(seed, x.device):
        given = leaf.clone()  # not a leaf, so that a network may write into its input
        recorder.start_from(given)
        with _watching_draws(recorder.saw_draw), recorder:
            logits = run_network(classifier, given)
        logits = classifier.as_logits(Outputs(logits)).logits
    return Trace(recorder.records, logits, leaf, recorder.draws)
