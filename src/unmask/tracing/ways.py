"""Which way a network's code goes: what operations run, and what its questions are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..classifier import Classifier, seeded
from .intercept.interceptor import Interceptor
from .intercept.operations import tensors_in
from .intercept.sites import group_of, module_names, site, stack
from .record.passes import run_network

# Name and place of an operation; and, of a question (`p < 0.9`), an answer that it gave, else None.
Step = tuple[tuple[str, str, int], bool | None]


class Ways(Interceptor):
    """Notes of every operation that it ran, and of its true and false results that there were any."""

    def __init__(self, network: Any):
        super().__init__()
        self.steps: set[Step] = set()
        self._names = module_names(network)

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `Interceptor.on_call`."""
        result = func(*args, **kwargs)
        group = group_of(name, site(stack(), self._names))
        self.steps.add((group, None))
        for tensor in tensors_in(result):
            if tensor.dtype == torch.bool and not tensor.is_meta:
                self.steps |= {(group, a) for a in (True, False) if bool((tensor == a).any())}
        return result


def ways(classifier: Classifier, x: Tensor, batch_size: int, *, seed: int) -> set[Step]:
    """The steps of plain passes of `x`, `[n, …]`, in batches.

    **Cost**: one forward, metered.
    """
    classifier.meter.forwards += len(x)
    watcher = Ways(classifier.network)
    for part in x.split(batch_size):
        classifier.put_back()
        with torch.no_grad(), seeded(seed, x.device), watcher:
            run_network(classifier, part.clone())
    return watcher.steps
