"""Functions that a network puts together from several operations, element by element: where such a one begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .intercept.operations import SATURATING
from .record.values import Record, Trace, Value
from .suspect import base_name

# What torch does to each element by itself. Of its functions of two tensors, both of one shape.
POINTWISE = SATURATING - {"softmax", "softmin", "log_softmax"} | frozenset(
    "add sub subtract rsub mul multiply div divide true_divide __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ "
    "__truediv__ __rtruediv__ __rdiv__ __iadd__ __isub__ __imul__ __itruediv__ neg negative positive __neg__ __pos__ "
    "pow float_power __pow__ __rpow__ square sqrt rsqrt reciprocal abs absolute __abs__ log log2 log10 log1p softplus "
    "logaddexp logaddexp2 silu gelu mish hardswish elu selu celu leaky_relu prelu rrelu hardshrink tanhshrink lerp "
    "addcmul addcdiv hypot atan2 asinh sinh cosh erfinv logit xlogy sinc".split()
)
# Flat on both sides, or far below.
CURVES = SATURATING - {
    "softmax",
    "softmin",
    "log_softmax",
    "relu",
    "relu6",
    "threshold",
    "hardshrink",
    "softshrink",
}
# Functions of one tensor, the first half of which they gate by the second, each element by one.
GATED = frozenset(("glu",))
# What puts tensors together, takes them apart or looks at them in another shape.
ARRANGING = frozenset(
    "cat concat concatenate stack hstack vstack dstack chunk split split_with_sizes tensor_split hsplit vsplit unbind "
    "__getitem__ select narrow view reshape flatten unflatten unsqueeze squeeze expand repeat tile transpose permute "
    "movedim swapaxes contiguous clone flip roll take_along_dim gather index_select".split()
)
# What adds up along a dimension.
SUMS = frozenset("sum mean diff mv matmul __matmul__ linear".split())
# Operations that one function is made of, at most, and parts that are added up in one of them. Ours.
PARTS, FEW = 24, 8


def beginning(records: list[Record], end: Record) -> Value | None:
    """The tensor of whose elements the operation's result is made, each of one, by several ways or in several parts.

    Of `relu(a) - relu(a - 1)` it is `a`: either ReLU has a slope of its own, and their difference has none beyond 1; so
    where they are the halves of one ReLU of `cat([a, a - 1])`, and of `tanh(3 * tanh(3 * a))`. None where there is no
    such tensor, or where one curve is all there is: it is seen alone then. Whether each element is made of one alone,
    where they were arranged anew on the way, the gradient has to tell.
    """
    if not joins(end):
        return _chain(records, end)
    shape, ways = end.outputs[0].shape, _ways(end)
    for _ in range(PARTS):
        if len(ways) == 1 and _bare(next(iter(ways.values())).shape) == _bare(shape):
            return ways.popitem()[1]
        last = max(ways)  # the operation that ran last
        r = records[last[0]] if last[0] >= 0 else None
        if r is None or not (base_name(r) in POINTWISE | ARRANGING or _adds_few(r)):
            return None
        del ways[last]
        before = _ways(r)
        if not before:
            return None
        ways |= before
    return None


def _chain(records: list[Record], end: Record) -> Value | None:
    """What the first of several curves is given, each made of the one before alone, of which `end` is the last."""
    start, curves, r = None, 0, end if base_name(end) in CURVES else None
    while r is not None and base_name(r) in POINTWISE and len(ways := list(_ways(r).values())) == 1:
        (before,) = ways
        if before.shape != end.outputs[0].shape:
            break
        if base_name(r) in CURVES:
            start, curves = before, curves + 1
        r = records[before.producer] if before.producer >= 0 else None
    return start if curves > 1 else None


def joins(r: Record) -> bool:
    """Whether it makes one result of several tensors, element by element, or of the parts of one."""
    if r.kind != "torch" or len(r.outputs) != 1:
        return False
    ways, made = _ways(r).values(), r.outputs[0].shape
    return _adds_few(r) or (
        base_name(r) in POINTWISE and len(ways) > 1 and all(v.shape == made for v in ways)
    )


def _adds_few(r: Record) -> bool:
    """Whether each of its elements is a sum of a few that no other one has a part in: else it is a layer."""
    ways = list(_ways(r).values())
    if base_name(r) not in SUMS or len(ways) != 1 or not r.outputs[0].shape.numel():
        return False
    many, rest = divmod(ways[0].shape.numel(), r.outputs[0].shape.numel())
    of_rows = base_name(r) in ("sum", "mean", "diff") or many == ways[0].shape[-1]
    return not rest and 1 < many <= FEW and of_rows


def _bare(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]


def _ways(r: Record) -> dict[tuple[int, int, int], Value]:
    """The inputs that the network's input leads to, each once; parts of one tensor may hold the same numbers."""
    return {
        (v.producer, v.edge.output_nr if v.edge else 0, v.print): v
        for v in r.inputs
        if v.carries and v.floating and (v.producer >= 0 or v.from_input)
    }


def denied(moved: Tensor, change: Tensor, slope: Tensor, heard: Tensor) -> tuple[float, float]:
    """Shares of the elements that change although the derivative, a thousandth of the slope seen, denies it.

    **Arguments**: of each element how far it `moved`, how far its result did, the derivative of one by the other, and
    whether a loss depends on it; all of one shape.

    **Returns**: the share of all, and the smaller one of those that rise and those that fall, which is small for what
    is flat on one side alone, as a ReLU is; the share of all where all go one way.
    """
    notable = heard & moved.ne(0) & (change.abs() > 1e-3 * change.square().mean().sqrt())
    if not notable.any():
        return 0.0, 0.0
    no = slope.abs() < 1e-3 * (change / moved).abs()
    both = [
        float(no[part].float().mean())
        for part in (notable & (change > 0), notable & (change < 0))
        if part.any()
    ]
    return float(no[notable].float().mean()), min(both)


def denied_in_attention(r: Record, after: Record) -> tuple[float, float]:
    """The same of the soft-maxes inside attention, by how much each share depends on its own score."""
    pairs = list(zip(r.shares, after.shares, strict=False))
    if any(a.shape != b.shape for (a, _), (b, _) in pairs):
        return 0.0, 0.0
    moved = torch.cat([_centred(b - a).flatten() for (a, _), (b, _) in pairs]).double()
    change = torch.cat([(b - a).flatten() for (_, a), (_, b) in pairs]).double()
    slope = torch.cat([(share * (1 - share)).flatten() for _, share in r.shares]).double()
    return denied(moved, change, slope, torch.ones_like(moved, dtype=torch.bool))


def _centred(moved: Tensor) -> Tensor:
    """Without what all scores moved by, which moves no share."""
    return moved - moved.mean(-1, keepdim=True)


@dataclass(frozen=True)
class Span:
    """What a function was given in two runs, and what it gave.

    **Fields**
    - `start`: what it is differentiated by.
    - `moved`, `change`: how far each element of that moved, and how far the result did for it.
    - `dim`: along which `start` has two halves, of which the second moved; None where all of it did.
    """

    start: Value
    moved: Tensor
    change: Tensor
    dim: int | None = None

    def half(self, values: Tensor) -> Tensor:
        """Of values of the shape of `start` those that moved, as the result is shaped."""
        part = values if self.dim is None else values.chunk(2, self.dim)[1]
        return part.reshape(self.change.shape)


def spanned(r: Record, after: Record, base: Trace, moved: Trace) -> Span | None:
    """The function that ends at an operation, in a run and in another one; None where none does that was kept."""
    made, then = r.outputs[0].data, after.outputs[0].data
    if base_name(r) in GATED:
        start, there = r.inputs[0], after.inputs[0]
        dim = next(n for n, size in enumerate(start.shape) if size != made.shape[n])
        (content, gate), (now, opened) = start.data.chunk(2, dim), there.data.chunk(2, dim)
        return Span(start, opened - gate, then - made - gate.sigmoid() * (now - content), dim)
    start, there = beginning(base.records, r), beginning(moved.records, after)
    if (
        start is None
        or there is None
        or start.kept is None
        or there.kept is None
        or start.shape != there.shape
    ):
        return None
    return Span(start, (there.data - start.data).reshape(made.shape), then - made)
