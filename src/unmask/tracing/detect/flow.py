"""Follows the real gradient backwards, operation by operation, to where it dies or blows up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...objectives import Labels, Objective
from ...types import Outputs
from ..record.values import Record, Trace, Value, held

# Below this a gradient is as good as zero: float32 loses precision under 1e-38. Ours.
DEAD = 1e-30
# In how many parts the gradients at all operations are looked at, and how many bytes a part may always have. Ours.
PARTS, LEAST = 6, 2**20


@dataclass(frozen=True)
class Passage:
    """What one operation does to the gradient that arrives at its output.

    **Fields**
    - `killed`: share of the examples whose gradient arrives alive and leaves dead.
    - `spoiled`: share of the examples whose gradient arrives finite and leaves NaN or infinite.
    - `attenuation`: median over examples of |leaving| / |arriving|, or NaN.
    """

    record: Record
    killed: float
    spoiled: float
    attenuation: float


@dataclass(frozen=True)
class Flow:
    """The gradient's way through a recorded run.

    **Fields**
    - `dead_at_logits`: share of examples whose gradient is dead already where the loss meets the logits.
    - `dead_at_input`, `spoiled_at_input`: the same at the input, for a network whose graph is whole.
    """

    passages: tuple[Passage, ...]
    dead_at_logits: float
    dead_at_input: float
    spoiled_at_input: float


def follow(trace: Trace, objective: Objective, y: Labels) -> Flow:
    """Pulls the objective's gradient back through a recorded run. No pass through the network is spent."""
    logits = trace.logits
    batch = len(logits)
    at_logits = _at_logits(logits, objective, y)
    dead_at_logits = float((_largest(at_logits, batch) < DEAD).float().mean())
    if not logits.requires_grad:
        return Flow((), dead_at_logits, 1.0, 0.0)
    (at_input,) = _pull(logits, at_logits, [trace.x])
    found = (
        _passage(record, output, cotangent, batch)
        for record, output, cotangent in _arriving(trace, at_logits, trace.records)
    )
    passages = [passage for passage in found if passage is not None]
    largest = _largest(at_input, batch) if at_input is not None else torch.zeros(batch)
    return Flow(
        tuple(passages),
        dead_at_logits,
        float((largest < DEAD).float().mean()),
        float((~torch.isfinite(largest)).float().mean()),
    )


def listen(trace: Trace, objective: Objective, y: Labels, records: Iterable[Record]) -> None:
    """Notes, at the results of some operations, on which elements the objective depends to first order.

    Where that gradient is dead altogether, or cut on the way to the logits, all elements count (`Value.heard`). Where
    the run's graph was let go, what was noted before stays.
    """
    if not trace.logits.requires_grad:
        return
    for _, output, cotangent in _arriving(trace, _at_logits(trace.logits, objective, y), records):
        heard = held(cotangent) != 0
        output.heard = heard if heard.shape == output.shape and heard.any() else None


def _at_logits(logits: Tensor, objective: Objective, y: Labels) -> Tensor:
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(Outputs(leaf), y)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    return found


def _arriving(
    trace: Trace, at_logits: Tensor, records: Iterable[Record]
) -> Iterator[tuple[Record, Value, Tensor]]:
    """The gradient at each result of some operations that one reaches: in parts, each with a backward pass of its own.

    All at once would be as large as the run.
    """
    places = [(r, v) for r in records for v in r.outputs if v.edge is not None][::-1]
    most = max(trace.size // PARTS, LEAST)
    while places:
        part, size = [], 0
        while places and (not part or size + places[-1][1].size <= most):
            part.append(places.pop())
            size += part[-1][1].size
        cotangents = _pull(trace.logits, at_logits, [v.edge for _, v in part])
        for n, (r, v) in enumerate(part):
            cotangent, cotangents[n] = cotangents[n], None
            if cotangent is not None:
                yield r, v, cotangent


def _pull(logits: Tensor, cotangent: Tensor, places: list) -> list[Tensor | None]:
    try:
        return list(torch.autograd.grad(logits, places, cotangent, retain_graph=True, allow_unused=True))
    except Exception:  # the user's own backward, or a hook of theirs: where it raises, nothing arrives
        return [None] * len(places)


def _largest(grad: Tensor, batch: int) -> Tensor:
    grad = held(grad).abs().double()  # in sixteen bits the threshold itself would be zero
    if not grad.ndim or len(grad) != batch:
        return grad.amax().reshape(1) if grad.numel() else torch.zeros(1, dtype=torch.float64)
    if not grad.numel():  # a slice of nothing, such as the classes after the last
        return torch.zeros(batch, dtype=torch.float64)
    flat = grad.reshape(batch, -1)
    return torch.where(torch.isfinite(flat).all(1), flat.amax(1), torch.inf)


def _passage(record: Record, output: Value, cotangent: Tensor, batch: int) -> Passage | None:
    carrying = [v for v in record.inputs if v.edge is not None and (v.producer >= 0 or v.from_input)]
    edges = [v.edge for v in carrying if v.edge != output.edge]
    if not edges:
        return None
    try:
        grads = torch.autograd.grad(output.edge, edges, cotangent, retain_graph=True, allow_unused=True)  # pyright: ignore
    except Exception:  # the user's own backward, or a hook of theirs: it may raise anything
        return None
    sizes = [_largest(g, batch) for g in grads if g is not None]
    if any(len(size) != batch for size in sizes):
        return None  # not one image each: nothing can be said image by image
    leaving = torch.stack(sizes or [torch.zeros(batch, dtype=torch.float64)]).amax(0)
    arriving = _largest(cotangent, batch)
    if len(arriving) != len(leaving):
        return None
    alive = arriving > DEAD
    finite = torch.isfinite(arriving)
    ratio = (leaving / arriving)[alive & finite]
    return Passage(
        record,
        float((alive & (leaving < DEAD)).float().mean()),
        float((finite & ~torch.isfinite(leaving)).float().mean()),
        float(ratio.median()) if len(ratio) else float("nan"),
    )
