"""Writing to a shadowed index, counting and voting."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .call import Call
from .shadow import Made, Shadow, argument, chosen, one_hot


def as_one_hot(call: Call) -> Made:
    """The soft one-hot itself."""
    shadow, classes = call.shadow(0, "tensor"), call.argument(1, "num_classes", -1)
    if shadow is None:
        return None
    if classes == -1:
        classes = int(call.args[0].max()) + 1
    return Shadow(one_hot(shadow, classes))


def spread(call: Call, *, added: bool) -> Made:
    """A scatter along one dimension: what is written at an index stands, softly, at every place."""
    base, dim = call.plain[0], call.argument(1, "dim")
    shadow = call.shadow(2, "index")
    source = argument(call.plain, call.named, 3, "src", call.named.get("value"))
    if shadow is None or not base.is_floating_point():
        return None
    if shadow.mask is not None and shadow.mask.shape == base.shape and not isinstance(source, Tensor):
        return base + source * shadow.mask if added else base * (1 - shadow.mask) + source * shadow.mask
    choice = one_hot(shadow, base.shape[dim]).movedim(
        dim if dim >= 0 else dim - 1, -2
    )  # [..., written, places]
    if isinstance(source, Tensor):
        source = source.expand(call.args[2].shape) if source.ndim < base.ndim else source
        source = source[tuple(slice(n) for n in call.args[2].shape)].movedim(dim, -1)[..., None]
    written, total = (source * choice).sum(-2).movedim(-1, dim), choice.sum(-2).movedim(-1, dim)
    if written.shape != base.shape:
        return None
    return base + written if added else base * (1 - total.clamp_max(1)) + written


def scatter(call: Call) -> Made:
    """Written over what was there."""
    return spread(call, added=call.kwargs.get("reduce") in ("add", "sum"))


def scatter_add(call: Call) -> Made:
    """Added to what was there."""
    return spread(call, added=True)


def scatter_reduce(call: Call) -> Made:
    """A sum alone has a rule."""
    return spread(call, added=True) if call.argument(4, "reduce") in ("sum", "add") else None


def bincount(call: Call) -> Made:
    """How many, or how much, of each."""
    shadow = call.shadow(0, "input")
    if shadow is None:
        return None
    wanted = max(call.argument(2, "minlength", 0), int(call.args[0].max()) + 1)
    options = shadow.choice.shape[-1] if shadow.choice is not None else wanted
    if options > wanted:
        return None
    counts = functional.pad(one_hot(shadow, options), (0, wanted - options))
    weights = call.argument(1, "weights")
    return Shadow(counts.sum(0) if weights is None else weights.to(counts) @ counts)


def mode(call: Call) -> Made:
    """The most frequent of votes: each has a share of a ballot for every class."""
    shadow, dim = call.shadow(0, "input"), call.argument(1, "dim", -1)
    if shadow is None:
        return None
    ndim = call.args[0].ndim
    ballots = shadow.choice if shadow.choice is not None else one_hot(shadow, int(call.args[0].max()) + 1)
    counts = ballots.sum(dim % ndim)
    choice = torch.softmax(counts / 0.5, -1)
    if call.argument(2, "keepdim", False):
        choice = choice.unsqueeze(dim % ndim)
    return [chosen(choice), None]


def unbind(call: Call) -> Made:
    """One shadow for each slice."""
    shadow = call.shadow(0, "input")
    if shadow is None:
        return None
    dim = call.argument(1, "dim", 0) % call.args[0].ndim
    values = shadow.value.unbind(dim)
    choices = [None] * len(values) if shadow.choice is None else shadow.choice.unbind(dim)
    return [Shadow(v, choice=c) for v, c in zip(values, choices, strict=True)]
