"""One operation's own derivative, beside the change of its result that was seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention import ATTENTION
from ..intercept.operations import GRADIENTS, PLACING, SATURATING
from ..pointwise import GATED, Span, denied, denied_in_attention, joins, spanned
from ..record.compare import equal
from ..record.values import Record, Trace, Value, held
from ..suspect import base_name

# Sawtooth functions, and all that come back to where they were.
WRAPPING = frozenset(("remainder", "fmod", "frac", "__mod__", "__rmod__"))
PERIODIC = WRAPPING | {"sin", "cos", "tan"}
# Flat on one side alone, however far down.
EXPONENTIALS = frozenset(("exp", "exp2", "expm1"))
# They look where one input says at what another one holds.
POINTING = frozenset(("grid_sample", "grid_sampler"))
# Least share of the elements that must jump before a remainder counts as a staircase. Ours.
JUMPING = 0.1


def local_vjp(output: Value, inputs: list[Value], cotangent: Tensor) -> list[Tensor] | None:
    """Gradient of one operation alone: `cotangent` pulled back to the inputs that carry a gradient.

    `cotangent` has the shape of the output, each gradient that of its input. None where autograd refuses.
    """
    edges = [v.edge for v in inputs if v.edge is not None]
    if output.edge is None or not edges or output.edge in edges:
        return None
    try:
        found = torch.autograd.grad(
            output.edge,
            edges,
            cotangent,
            retain_graph=True,
            allow_unused=True,  # pyright: ignore[reportArgumentType]
        )
    except Exception:  # the user's own backward, or a hook of theirs: it may raise anything
        return None
    carrying = [v for v in inputs if v.edge is not None]
    return [_zeros(v) if g is None else held(g) for v, g in zip(carrying, found, strict=True)]


def zero_everywhere(r: Record) -> bool:
    """Whether two random cotangents both come back as exact zeros."""
    for value in r.outputs:
        for _ in range(2):
            grads = local_vjp(value, r.inputs, _noise(value))
            if grads is None or any(bool(g.ne(0).any()) for g in grads):
                return False
    return True


def deaf_to_one(r: Record, others: Sequence[Record]) -> bool:
    """Whether the gradient to one of several inputs that move, in other runs, is exactly zero: where to look, say."""
    carrying = [n for n, v in enumerate(r.inputs) if v.carries and v.edge is not None]
    if len(carrying) < 2 or not (r.kind == "function" or base_name(r) in POINTING):
        return False
    told = [False] * len(carrying)
    for value in r.outputs:
        for _ in range(2):
            grads = local_vjp(value, r.inputs, _noise(value))
            if grads is None or len(grads) != len(told):
                return False
            told = [known or bool(g.ne(0).any()) for known, g in zip(told, grads, strict=True)]
    deaf = [n for n, known in zip(carrying, told, strict=True) if not known]
    pairs = [(r.inputs[n], o.inputs[n]) for o in others for n in deaf if n < len(o.inputs)]
    return any(told) and not all(equal(a, b) for a, b in pairs)


def elementwise(r: Record) -> bool:
    """One tensor in, one out, same shape: where a slope can be useless although torch computes it correctly.

    Products, sums and convolutions are right to first order whatever the scale; a saturating function of two arguments,
    as a minimum with a constant, is not. What only puts values elsewhere is right at any scale.
    """
    live, name = _live(r), base_name(r)
    alone = (len(r.inputs) == 1 or name in SATURATING) and name not in PLACING
    return len(live) == len(r.outputs) == 1 and live[0].shape == r.outputs[0].shape and alone


def _live(r: Record) -> list[Value]:
    """The inputs that the network's input leads to."""
    return [v for v in r.inputs if v.carries and (v.producer >= 0 or v.from_input)]


def examined(r: Record) -> bool:
    """Whether a slope or a step of it is looked at, beside the change seen in other runs: then its tensors are kept."""
    return r.kind != "torch" or base_name(r) in WRAPPING | GATED | ATTENTION or elementwise(r) or joins(r)


def _zeros(v: Value) -> Tensor:
    return torch.zeros(v.shape, dtype=v.dtype, device=v.device)


def _noise(v: Value) -> Tensor:
    # Autograd will refuse whole numbers.
    draw = torch.randn if v.dtype.is_floating_point or v.dtype.is_complex else torch.ones
    return draw(v.shape, dtype=v.dtype, device=v.device)


def _heard(output: Value) -> Tensor:
    """Elements that the loss depends on to first order; all, where its gradient is dead or was cut later."""
    return torch.ones_like(output.data, dtype=torch.bool) if output.heard is None else output.heard


def agreement(r: Record, after: Record, *, batch: int) -> float:
    """Cosine between the change that an operation's own gradient predicts and the change that was seen.

    Random cotangents c: `<vjp(c), change of the input>` against `<c, change of the output>`, per example where the
    first dimension is the `batch`, over the elements that the logits listen to. NaN where nothing changed or autograd
    refuses.
    """
    generator = torch.Generator().manual_seed(len(r.inputs) + r.index)
    predicted: list[Tensor] = []
    seen: list[Tensor] = []
    for a, b in zip(r.inputs, after.inputs, strict=False):
        if not a.carries and not equal(a, b):
            return float("nan")  # what it depends on without gradient was lost earlier, and is named there
    pairs = [(a, b) for a, b in zip(r.inputs, after.inputs, strict=False) if a.carries]
    if all(equal(a, b) for a, b in pairs):
        return float("nan")
    for before, then in zip(r.outputs, after.outputs, strict=False):
        if before.edge is None or before.shape != then.shape or not before.shape.numel():
            continue  # of experts, one that no image was sent to has nothing to say
        change = _wide(then.data - before.data)
        rows = batch if change.ndim and len(change) == batch else 1
        heard = _heard(before) & _heard(then)
        noise = 1e-5 * before.data.abs().double().amax()
        if not ((change.abs() > noise) & heard).any() or not torch.isfinite(change).all():
            continue
        for _ in range(8 if rows > 1 else 32):
            c = (torch.randint(0, 2, change.shape, generator=generator).to(change) * 2 - 1) * heard
            grads = local_vjp(before, r.inputs, c.to(before.dtype))
            if grads is None or len(grads) != len(pairs):
                return float("nan")
            total: Tensor | float = 0.0
            for grad, (a, b) in zip(grads, pairs, strict=True):
                if a.shape != b.shape or grad.shape != a.shape:
                    return float("nan")
                total = total + _rows(_wide(grad).conj() * _wide(b.data - a.data), rows)
            predicted.append(torch.as_tensor(total).flatten())
            seen.append(_rows(c * change, rows).flatten())
    if not seen:
        return float("nan")
    p, s = torch.cat(predicted), torch.cat(seen)
    if p.shape != s.shape:
        p, s = p.sum().reshape(1), s.sum().reshape(1)
    size = torch.linalg.vector_norm(p) * torch.linalg.vector_norm(s)
    if base_name(r) in PERIODIC and torch.linalg.vector_norm(p) > 4 * torch.linalg.vector_norm(s):
        return 0.0  # many periods in one move: the slope at its beginning says nothing
    if not torch.isfinite(size):
        return float("nan")  # a non-finite slope has a name of its own
    return float((p @ s) / size) if size > 0 else 0.0


def blocked(r: Record, after: Record, *, by_size: bool = False) -> float:
    """Share of the elements that changed although their own derivative, a thousandth of the slope seen, denies it.

    `by_size`: the share of the squared change instead: a parabola has no slope at its foot either, but little happens
    there.
    """
    (value,), made = _live(r), r.outputs[0]
    then = after.inputs[r.inputs.index(value)]
    if made.edge is None or any(a.shape != b.shape for a, b in ((value, then), (made, after.outputs[0]))):
        return 0.0
    moved = _wide(then.data - value.data)
    change = _wide(after.outputs[0].data - made.data)
    notable = (change.abs() > 1e-3 * made.data.abs().double().square().mean().sqrt()) & moved.ne(0)
    notable &= _heard(made) & _heard(after.outputs[0])
    if base_name(r) in EXPONENTIALS:  # on its way down it has a slope, whatever it is worth below
        notable &= change > 0
    grads = local_vjp(made, [value], _noise(made))
    if grads is None or not notable.any() or grads[0].shape != notable.shape:
        return 0.0
    slope = (change / moved).abs()
    denied = (grads[0].abs().double() < 1e-3 * slope)[notable].double()
    size = change.abs()[notable].square() if by_size else torch.ones_like(denied)
    return float((denied * size).sum() / size.sum())


def blocked_together(r: Record, after: Record, base: Trace, moved: Trace) -> tuple[float, float]:
    """As `pointwise.denied`, of a function that several operations are, of which `r` is the last, or of one in it."""
    if r.shares:
        return denied_in_attention(r, after)
    made, then = r.outputs[0], after.outputs[0]
    found = spanned(r, after, base, moved) if made.edge is not None and made.shape == then.shape else None
    grads = None if found is None else local_vjp(made, [found.start], torch.ones_like(made.data))
    if found is None or grads is None:
        return 0.0, 0.0
    heard = _heard(made) & _heard(then)
    shares = denied(_wide(found.moved), _wide(found.change), _wide(found.half(grads[0])), heard)
    return shares if shares[0] and _in_place(made, found) else (0.0, 0.0)


def _in_place(made: Value, found: Span) -> bool:
    """Whether no element of a function's result goes back to another place than its own, of some drawn ones."""
    if found.dim is not None:
        return True
    generator = torch.Generator().manual_seed(0)
    some = (torch.rand(made.shape, generator=generator) < 0.5).to(made.device)
    grads = local_vjp(made, [found.start], some.to(made.dtype))
    return grads is not None and not bool(found.half(grads[0])[~some].any())


def wraps(r: Record, after: Record) -> bool:
    """Whether a remainder jumps in a notable share of its elements: its derivative, always one, knows of no jump.

    `x - x % step` is a staircase, although each of its two operations has an honest derivative.
    """
    if base_name(r) not in WRAPPING or not r.inputs[0].carries:
        return False
    values = r.inputs[0].data, after.inputs[0].data, r.outputs[0].data, after.outputs[0].data
    if any(v.shape != values[0].shape for v in values):
        return False
    moved, change = values[1] - values[0], values[3] - values[2]
    jumped = (change - moved).abs() > 1e-2 * moved.abs()
    return float(jumped[moved != 0].float().mean()) > JUMPING


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.complex128 if values.is_complex() else torch.float64)


def _rows(products: Tensor, batch: int) -> Tensor:
    products = products.real  # autograd's complex gradient is along the real and the imaginary axis
    if products.ndim and len(products) == batch:
        return products.flatten(1).sum(1) if products.ndim > 1 else products
    return products.sum().reshape(1)


def taken_for_constant(base: Trace, r: Record) -> bool:
    """Whether it is a gradient that the network takes of what depends on the image, and goes on with as a constant."""
    if r.name not in GRADIENTS or any(v.carries for v in r.outputs):
        return False
    todo, seen = [v for v in r.inputs if v.carries], set[int]()
    while todo:
        value = todo.pop()
        if value.from_input:
            return True
        if value.producer >= 0 and value.producer not in seen:
            seen.add(value.producer)
            todo += [v for v in base.records[value.producer].inputs if v.carries]
    return False
