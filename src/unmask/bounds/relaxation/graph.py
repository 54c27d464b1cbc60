"""Reads a network's operations by symbolic tracing (`torch.fx`), so that bounds can pass through them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from ...errors import Unsupported
from ...foreign import failure, wants_to_stop
from .factories import Symbol, rearrangement
from .operations import Operation
from .translate import FACTORIES, REARRANGEMENTS, RESHAPES, of_module
from .trial import answer, trace

_FACTS = frozenset({"size", "dim", "numel", "getattr", "len"})


class Node(NamedTuple):
    """One operation; `parents` are positions in the graph, `shape` is that of one example's output."""

    operation: Operation | None  # None for the input, which is always the first node
    parents: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network's operations in the order of their evaluation; the last node is the logits."""

    nodes: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The network in float64, `[batch, *dims]` to `[batch, classes]`."""
        values = [x.double()]
        for node in self.nodes[1:]:
            assert node.operation is not None
            values.append(node.operation.forward(*(values[p] for p in node.parents)))
        return values[-1]


@torch.no_grad()
def read_graph(network: Any, x: Tensor) -> Graph:
    """The graph of `network` in float64; the module itself is left alone.

    The first example of `x` `[batch, *dims]` gives the shape, and the graph must reproduce the network's logits on it:
    this catches what a trace cannot see, such as randomness or a dependence on the rest of the batch.

    **Raises** `Unsupported` with one line that names the first operation without a known bound.
    """
    if not isinstance(network, nn.Module):
        raise Unsupported(f"bounds need a torch.nn.Module; this network is a {type(network).__name__}")
    own = next(
        (t.dtype for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()), x.dtype
    )
    sample = torch.cat([x[:1], x[:1] / 2]).to(own)
    with _refusals("running the network for a bound"):
        # In train mode a pass would move the batch statistics.
        training = any(getattr(module, "training", False) for module in network.modules())
        expected = answer(copy.deepcopy(network) if training else network, sample.clone())
    if not isinstance(expected, Tensor):
        raise Unsupported(f"bounds need logits; this network returns a {type(expected).__name__}")
    with _refusals("bounds need a network whose path does not depend on the data; tracing it"):
        traced = copy.deepcopy(trace(network)).double()
    with _refusals("following the network's operations for a bound"):
        graph = _walk(traced, sample.double())
        whole, alone = graph(sample), graph(sample[1:])
    same = expected.shape == whole.shape and torch.allclose(expected.double(), whole, rtol=1e-3, atol=1e-3)
    if not same or not torch.allclose(whole[1:], alone):
        raise Unsupported(
            "the traced operations do not reproduce the network's logits; bounds need a deterministic network in "
            "eval mode whose logits do not depend on the rest of the batch"
        )
    return graph


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Whatever is raised in the block says that there is no bound: code runs here on what it was not written for."""
    try:
        yield
    except (Unsupported, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if wants_to_stop(error):
            raise
        raise Unsupported(f"{what} raised {failure(error)}") from error


def _walk(traced: fx.GraphModule, sample: Tensor) -> Graph:
    modules = dict(traced.named_modules())
    nodes: list[Node] = []
    known: dict[fx.Node, Any] = {}  # a Symbol where the value depends on the data, else the value itself
    samples: dict[int, Tensor] = {}
    for node in traced.graph.nodes:
        args = map_arg(node.args, lambda n: known[n])
        kwargs = map_arg(node.kwargs, lambda n: known[n])
        symbols = _symbols((args, kwargs))
        if node.op == "placeholder":
            if nodes:
                raise Unsupported(f"bounds need a network of one input; this one also takes {node.target!r}")
            nodes.append(Node(None, (), tuple(sample.shape[1:])))
            samples[0] = sample
            known[node] = Symbol(0, nodes[0].shape)
        elif node.op == "output":
            if not isinstance(args[0], Symbol):
                raise Unsupported("bounds need a network that returns one tensor of logits")
            return Graph(tuple(nodes[: args[0].place + 1]))
        elif node.op == "get_attr":
            value = operator.attrgetter(node.target)(traced)
            known[node] = value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        elif symbols and node.op != "call_module" and _name(node) in _FACTS:
            known[node] = _fact(node, args, samples[symbols[0].place])
        elif not symbols:
            known[node] = _evaluated(node, args, kwargs)
        else:
            operation = _operation(node, modules, args, kwargs, symbols, samples)
            parents = tuple(s.place for s in symbols)
            out = operation.forward(*(samples[p] for p in parents))
            if out.ndim < 2 or len(out) != len(sample):
                raise Unsupported(
                    f"`{node.name}` does not keep the batch: its output has shape {list(out.shape)}"
                )
            samples[len(nodes)] = out
            known[node] = Symbol(len(nodes), tuple(out.shape[1:]))
            nodes.append(Node(operation, parents, tuple(out.shape[1:])))
    raise AssertionError("a traced graph ends in an output")


def _symbols(arguments: Any) -> list[Symbol]:
    """Those among the arguments, in lists too, in their order."""
    found: list[Symbol] = []
    map_aggregate(arguments, lambda a: found.append(a) if isinstance(a, Symbol) else None)
    return found


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _fact(node: fx.Node, args: Any, sample: Tensor) -> Any:
    """A tensor's shape and the like: numbers that do not depend on the data."""
    name = _name(node)
    if name == "len":
        return len(sample)
    if name == "getattr":
        if args[1] not in ("shape", "ndim", "dtype", "device"):
            raise Unsupported(f"the attribute `{args[1]}` of a tensor has no bound here")
        return getattr(sample, args[1])
    return getattr(sample, name)(*args[1:])


def _evaluated(node: fx.Node, args: Any, kwargs: Any) -> Any:
    if isinstance(node.target, str):
        if node.op == "call_module":
            raise Unsupported(f"`{node.target}` is called without the data; bounds have no use for it")
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    name = _name(node)
    if name.startswith(("rand", "bernoulli", "multinomial", "normal")):
        raise Unsupported(f"`{name}` is random; bounds need a deterministic network")
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _operation(
    node: fx.Node, modules: dict, args: Any, kwargs: Any, symbols: list[Symbol], samples: dict[int, Tensor]
) -> Operation:
    x = symbols[0]
    if node.op == "call_module":
        return of_module(modules[node.target], x)
    name = _name(node)
    if name in FACTORIES:
        try:
            return FACTORIES[name](*args, **kwargs)
        except TypeError as error:
            raise Unsupported(f"`{name}` is called in a way that has no bound here: {error}") from error

    def function(v: Tensor) -> Tensor:
        given = map_aggregate(args, lambda a: v if a is x else a)
        if isinstance(node.target, str):
            return getattr(given[0], name)(*given[1:], **kwargs)
        return node.target(*given, **kwargs)

    if len(symbols) == 1 and args and args[0] is x:
        if name in RESHAPES:
            shape = function(samples[x.place]).shape[1:]
            return rearrangement(x, lambda v: v.reshape(len(v), *shape))
        zero_padding = (
            name == "pad" and kwargs.get("mode", "constant") == "constant" and not kwargs.get("value")
        )
        if name in REARRANGEMENTS or (zero_padding and len(args) == 2):
            return rearrangement(x, function)
    raise Unsupported(
        f"`{name}` has no bound here; see unmask.bounds.relaxation.translate for the operations that have"
    )
