"""Follows the real gradient backwards, operation by operation, to where it dies or blows up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from ...objectives import Labels, Objective
from ...types import Outputs
from ..record.values import Record, Trace, Value, held

# Below this a gradient is as good as zero: float32 loses precision under 1e-38. Ours.
DEAD = 1e-30


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
    cotangents = _arriving(trace, at_logits)
    (at_input,) = _pull(logits, at_logits, [trace.x])
    passages = []
    for record in trace.records:
        for value_out in record.outputs:
            cotangent = cotangents.get(value_out.edge) if value_out.edge is not None else None
            if cotangent is not None:
                passage = _passage(record, value_out, cotangent, batch)
                if passage is not None:
                    passages.append(passage)
    largest = _largest(at_input, batch) if at_input is not None else torch.zeros(batch)
    return Flow(
        tuple(passages),
        dead_at_logits,
        float((largest < DEAD).float().mean()),
        float((~torch.isfinite(largest)).float().mean()),
    )


def arriving(trace: Trace, objective: Objective, y: Labels) -> dict[GradientEdge, Tensor | None]:
    """The objective's gradient at each result of a recorded run, by its place in autograd's graph."""
    if not trace.logits.requires_grad:
        return {}
    return _arriving(trace, _at_logits(trace.logits, objective, y))


def _at_logits(logits: Tensor, objective: Objective, y: Labels) -> Tensor:
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(Outputs(leaf), y)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    return found


def _arriving(trace: Trace, at_logits: Tensor) -> dict[GradientEdge, Tensor | None]:
    edges = {v.edge: None for r in trace.records for v in r.outputs if v.edge is not None}
    return dict(zip(edges, _pull(trace.logits, at_logits, [*edges]), strict=True))


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
