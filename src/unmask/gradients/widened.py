"""Widened: the gradient of a float32 copy, for networks that compute in sixteen bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..classifier import Classifier
from ..errors import ModelFailed, Unsupported
from ..objectives import Objective
from ..randomness import Streams
from ..state.exchanged import call_with
from .base import Estimate, Exact, GradientEstimator, Images

NARROW = (torch.float16, torch.bfloat16)


def narrow(types: Iterator[torch.dtype]) -> bool:
    """Whether any of the numbers is kept in sixteen bits."""
    return any(t in NARROW for t in types)


class _Widening(TorchFunctionMode):
    """Where code asks for sixteen bits, it gets float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("half", "bfloat16") and args and isinstance(args[0], Tensor):
            return args[0].float()
        args = tuple(torch.float32 if a in NARROW else a for a in args) if _mentions(args) else args
        kwargs = {k: torch.float32 if _mentions((v,)) else v for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


def _mentions(items: tuple[Any, ...]) -> bool:
    return any(isinstance(item, torch.dtype) and item in NARROW for item in items)


@contextmanager
def _without_autocast() -> Iterator[None]:
    enter, leave = torch.autocast.__enter__, torch.autocast.__exit__
    torch.autocast.__enter__ = lambda self: self  # type: ignore[method-assign]
    torch.autocast.__exit__ = lambda self, *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__enter__, torch.autocast.__exit__ = enter, leave  # type: ignore[method-assign]


@dataclass(frozen=True)
class Widened(GradientEstimator):
    """Differentiates the network in float32 wherever it asks for sixteen bits; value and outputs are its own.

    In float16 an input gradient below 6e-8 is zero: a confident network loses it on a third of its images. A float32
    copy of the same weights rounds elsewhere, and its slopes are there.

    **Fields**
    - `inner`: how the copy is differentiated.

    **Cost**: that of `inner`, and one forward of the network.
    **Raises** `Unsupported` for networks that are not an `nn.Module` or that fail in float32.
    **Source**: ours; loss scaling (Micikevicius et al. 2018, arXiv:1710.03740) keeps the gradient alive, too, but not
    its small entries.
    """

    inner: GradientEstimator = Exact()

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        """As `GradientEstimator.estimate`."""
        network = classifier.network
        if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
            raise Unsupported(
                f"`Widened` needs a plain nn.Module; this network is a {type(network).__name__}"
            )
        module = network

        def widened(x: Tensor) -> Any:
            tensors = (*module.named_parameters(), *module.named_buffers())
            cast = {name: t.detach().float() for name, t in tensors if t.dtype in NARROW}
            with _without_autocast(), _Widening():
                return call_with(module, cast, x)

        try:
            copy = self.inner.estimate(
                classifier.replace(network=widened), objective, x, y, generator=generator
            )
        except ModelFailed as error:
            raise Unsupported(f"`Widened`: the network does not run in float32 ({error})") from error
        with torch.no_grad():
            outputs = classifier(x, generator=generator)
            value = objective(outputs, y)
        return Estimate(value, copy.grad, outputs)
