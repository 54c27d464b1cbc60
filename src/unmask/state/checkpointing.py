"""Activation checkpointing of the older kind, which autograd refuses to differentiate by an input alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import CheckpointFunction, checkpoint


def _not_reentrant(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve)


@contextmanager
def differentiable_checkpoints() -> Iterator[None]:
    """Within the block `torch.utils.checkpoint(use_reentrant=True)` recomputes as `use_reentrant=False` does.

    Both compute the same values and gradients in the same memory. But the reentrant one raises under
    `torch.autograd.grad`, so that attacks would find no gradient in a network that hides none.
    """
    before = vars(CheckpointFunction).get("apply")
    CheckpointFunction.apply = staticmethod(_not_reentrant)  # type: ignore[method-assign]
    try:
        yield
    finally:
        if before is None:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = before  # type: ignore[method-assign]
