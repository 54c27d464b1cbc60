"""Re-runs a forward pass with some operations held still, to see how much of the output passes through them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...classifier import Classifier, seeded
from ...types import Outputs
from ..intercept.interceptor import Interceptor
from ..intercept.operations import WRITES, tensors_in
from ..intercept.sites import group_of, module_names, site, stack
from .passes import run_network
from .values import Key, Record, Trace


class Freezer(Interceptor):
    """Replaces the results of the recorded operations, found again by name, place and ordinal."""

    def __init__(self, network: Any, frozen: Mapping[Key, Record]):
        super().__init__()
        self._frozen = frozen
        self._hot = {key[0] for key in frozen}
        self._names = module_names(network)
        self._ordinals: dict[tuple[str, str, int], int] = {}

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `Interceptor.on_call`."""
        result = func(*args, **kwargs)  # also when frozen: it must draw the same random numbers
        if name not in self._hot:
            return result
        base = group_of(name, site(stack(), self._names))
        ordinal = self._ordinals[base] = self._ordinals.get(base, -1) + 1
        old = self._frozen.get((*base, ordinal))
        if old is None:
            return result
        if old.plain is not None:
            return copy.copy(old.plain)  # an array of its own, for the user's code may write into it
        made = [args[0]] if name in WRITES else list(tensors_in(result))
        if len(made) != len(old.outputs):
            return result
        replaced = {}
        mixed = any(
            not v.carries for v in old.outputs
        )  # of sort and topk, only the indices lose the gradient
        for tensor, value in zip(made, old.outputs, strict=True):
            if mixed and value.carries:
                continue
            if old.in_place and tensor.shape != value.shape:
                return result
            if old.in_place:
                with torch.no_grad():
                    tensor.copy_(value.data)
            else:
                replaced[id(tensor)] = _holding(tensor, value.data)
        return exchange(result, replaced) if replaced else result


def _holding(tensor: Tensor, data: Tensor) -> Tensor:
    """Other numbers in a tensor that stays a leaf, in its graph, quantised: the user's code may go on from there."""
    if tensor.is_quantized:
        return quantised_as(tensor, data)
    if (
        not tensor.requires_grad or tensor.shape != data.shape
    ):  # as many as there were: indices, rows that a mask kept
        return data.clone()
    if not tensor.is_leaf:
        return _Held.apply(tensor, data)
    tensor.data = data.clone()
    return tensor


def quantised_as(tensor: Tensor, data: Tensor) -> Tensor:
    """Numbers as a quantised tensor of the same type, scale and zero point."""
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return torch.quantize_per_tensor(data, tensor.q_scale(), tensor.q_zero_point(), tensor.dtype)
    scales, points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return torch.quantize_per_channel(data, scales, points, tensor.q_per_channel_axis(), tensor.dtype)


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, data: Tensor) -> Tensor:
        return data.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


def exchange(result: Any, replaced: dict[int, Tensor]) -> Any:
    """A result with others in the place of some of its tensors, by identity; of the same type, named fields and all."""
    if isinstance(result, Tensor):
        return replaced.get(id(result), result)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(
            *(exchange(item, replaced) for item in result)
        )  # torch.return_types is not a namedtuple
    if isinstance(result, (tuple, list)):
        items = [exchange(item, replaced) for item in result]
        try:
            return type(result)(items)
        except TypeError:
            return tuple(items)
    return result


def logits_with(classifier: Classifier, x: Tensor, records: list[Record], *, seed: int) -> Tensor:
    """Logits `[batch, classes]` at `x`, while the given operations keep the values they had in their own run.

    **Cost**: one forward, metered.
    """
    classifier.meter.forwards += len(x)
    classifier.put_back()
    freezer = Freezer(classifier.network, {r.key: r for r in records})
    with torch.no_grad(), seeded(seed, x.device), freezer:
        logits = run_network(classifier, x.clone())
    return classifier.as_logits(Outputs(logits)).logits.detach()


def share_through(
    classifier: Classifier,
    base: Trace,
    x_moved: Tensor,
    logits_moved: Tensor,
    records: list[Record],
    *,
    seed: int,
) -> float:
    """Share of the change of the logits, from the base run to `x_moved`, that is lost when `records` are held still.

    0: nothing passes through them; 1: everything does, or more, which the rest takes away again. NaN where the logits
    did not change at all.
    """
    change = logits_moved - base.logits.detach()
    held = logits_with(classifier, x_moved, records, seed=seed)
    size = torch.linalg.vector_norm(change.double())
    if not size > 0:
        return float("nan")
    return min(float(torch.linalg.vector_norm((logits_moved - held).double()) / size), 1.0)
