"""Whether what was recorded is what runs: the recorded pass beside a plain one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...classifier import Classifier, seeded
from ...errors import ModelFailed
from ..intercept.draws import generator_states
from .keeping import Recording
from .recorder import Keep
from .values import Trace, constant, memory_of

# Passes in which randomness may show. Ours: of two members drawn with equal odds, all six are the same once in 64.
CONTROLS = 6
# What tells a tensor apart from another, and from itself before it was written into.
Mark = tuple[int, int, int, str]


@dataclass(frozen=True, eq=False)
class Pass:
    """What a pass gave and left behind.

    **Fields**
    - `logits`: `[batch, classes]`, without gradient.
    - `states`: of the generators of torch, Python and NumPy after the pass.
    - `overwritten`: weights and buffers that the pass wrote into or put in place of others, by name.
    - `memory`: where these are stored, as of `record`.
    - `seed`: under which it ran.
    """

    logits: Tensor
    states: tuple[Any, ...]
    overwritten: dict[str, Tensor]
    memory: frozenset[int]
    seed: int = 0


def plain_pass(classifier: Classifier, x: Tensor, *, seed: int) -> Pass:
    """The network as an attack runs it on `[batch, …]`, unrecorded; as deployed, where it does not run with gradients.

    **Cost**: one forward, metered.
    **Raises** `ModelFailed` where the network itself does.
    """
    classifier.meter.forwards += len(x)
    before = _marks(classifier.network)
    with seeded(seed, x.device):
        try:
            with torch.enable_grad():
                outputs = classifier._checked(x.detach().clone().requires_grad_())
        except ModelFailed as error:
            if "requires grad" not in str(error):
                raise
            with torch.no_grad(), seeded(seed, x.device):
                outputs = classifier._checked(x.clone())
                return _left_behind(classifier, before, classifier.as_logits(outputs).logits, seed)
        return _left_behind(classifier, before, classifier.as_logits(outputs).logits, seed)


def checked(recording: Recording, x: Tensor, plain: Pass, *, keep: Keep | None = None) -> tuple[Trace, str]:
    """A recorded run on `[batch, …]`, and what it does otherwise than `plain`, in words; "" where it does the same.

    **Cost**: one forward; up to six plain ones where they differ: what differs from itself cannot be recorded better.
    """
    classifier = recording.classifier
    before = _marks(classifier.network)
    trace = recording(x, seed=plain.seed, keep=keep)
    recorded = _left_behind(classifier, before, trace.logits, plain.seed, trace.states)
    difference = _difference(plain, recorded)
    # Drawn from a few members, two plain passes may well agree.
    again = (plain_pass(classifier, x, seed=plain.seed) for _ in range(CONTROLS))
    if difference and not any(_difference(plain, other) for other in again):
        return trace, difference
    return trace, ""


def _left_behind(
    classifier: Classifier,
    before: dict[str, Mark],
    logits: Tensor,
    seed: int,
    states: tuple[Any, ...] | None = None,
) -> Pass:
    states = generator_states() if states is None else states
    changed = {
        name: tensor
        for name, tensor in _stored(classifier.network).items()
        if before.get(name) != _mark(tensor)
    }
    memory = frozenset(_mark(tensor)[1] for tensor in changed.values()) - {0}
    copies = {name: constant(tensor).clone() for name, tensor in changed.items()}
    return Pass(logits.detach().clone(), states, copies, memory, seed)


def _difference(one: Pass, two: Pass) -> str:
    if one.logits.shape != two.logits.shape or not torch.equal(
        one.logits.nan_to_num(), two.logits.nan_to_num()
    ):
        return "its logits are others"
    if not _equal_states(one.states, two.states):
        return "it draws other random numbers"
    if one.overwritten.keys() != two.overwritten.keys():
        names = ", ".join(sorted(one.overwritten.keys() ^ two.overwritten.keys())[:3])
        return f"it leaves other weights or buffers behind ({names})"
    for name, held in one.overwritten.items():
        if held.shape != two.overwritten[name].shape or not torch.equal(
            held.nan_to_num(), two.overwritten[name].nan_to_num()
        ):
            return f"it leaves other weights or buffers behind ({name})"
    return ""


def _equal_states(one: tuple[Any, ...], two: tuple[Any, ...]) -> bool:
    return (
        torch.equal(one[0], two[0])
        and one[1] == two[1]
        and all(np.array_equal(a, b) for a, b in zip(one[2], two[2], strict=True))
    )


def _stored(network: Any) -> dict[str, Tensor]:
    if not isinstance(network, nn.Module):
        return {}
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _marks(network: Any) -> dict[str, Mark]:
    return {name: _mark(tensor) for name, tensor in _stored(network).items()}


def _mark(tensor: Tensor) -> Mark:
    memory = memory_of(tensor)
    if not memory:
        return id(tensor), 0, tensor._version, ""
    # What is written through `.data` leaves the version as it was.
    total = "" if tensor.is_quantized or not tensor.numel() else str(tensor.detach().sum().item())
    return id(tensor), memory, tensor._version, total
