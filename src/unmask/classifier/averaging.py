"""What a network returns as logits, what a prediction over several passes is a mean of, and its class."""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UnmaskError
from ..types import Average

Logits = Float[Tensor, "batch classes"]

# Least probability whose log is taken: above it a backward pass through log and soft-max stays in float32. Ours.
LEAST = 1e-35
# Stands for an infinitely unlikely class, the user's own log of an exact zero. Ours, far below any logit.
IMPOSSIBLE = -1e4


def check_average(average: str | None) -> None:
    """**Raises** `UnmaskError` in one line for a mean of something else."""
    if average is not None and average not in get_args(Average):
        raise UnmaskError(
            f"average is {average!r}; choose one of {', '.join(get_args(Average))}, or leave it out"
        )


def addend(logits: Logits, average: Average) -> Logits:
    """One pass's part in the mean: its logits, or the probabilities that a soft-max makes of them."""
    return logits.softmax(1) if average == "probabilities" else logits


def logits_of_mean(mean: Logits, average: Average) -> Logits:
    """Logits of the whole prediction: the mean itself, or its log; a probability of zero counts as 1e-35.

    >>> import torch
    >>> passes = torch.tensor([[9.0, 0.0]]), torch.tensor([[-2.0, 0.0]]), torch.tensor([[-2.0, 0.0]])
    >>> for average in ("logits", "probabilities"):  # one sure pass outweighs two, or is one of three
    ...     logits_of_mean(torch.stack([addend(x, average) for x in passes]).mean(0), average).argmax(1).item()
    0
    1
    """
    return mean.clamp_min(LEAST).log() if average == "probabilities" else mean


def finite_floats(logits: Logits, probabilities: bool) -> Logits:
    """As of `Classifier.as_logits`, but for the largest."""
    if not logits.is_floating_point() or logits.ndim != 2:
        return logits
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if probabilities:
        return logits.clamp_min(LEAST).log()
    impossible = torch.isneginf(logits)
    if not impossible.any():  # left alone, so that whoever records operations sees the network's only
        return logits
    return logits.masked_fill(impossible & torch.isfinite(logits).any(1, keepdim=True), IMPOSSIBLE)


def of_its_class(logits: Logits, said: Logits) -> Logits:
    """The logits, with the largest where the largest of what was said is.

    A log, or a division, makes numbers equal that are not, and a class is what the network's own numbers say it is. The
    least that makes it the largest is added; nothing where it is.

    >>> said = torch.tensor([[0.10000000149, 0.10000000894]])
    >>> said.log().argmax().item(), of_its_class(said.log(), said).argmax().item()
    (0, 1)
    """
    with (
        torch._C.DisableTorchFunction()
    ):  # no part of the network, for those who record or rewrite its operations
        values, top = logits.detach(), said.detach().argmax(1, keepdim=True)
        other = values.argmax(1, keepdim=True) != top
        if not other.any():
            return logits
        largest = values.amax(1, keepdim=True)
        above = torch.nextafter(largest, torch.full_like(largest, torch.inf))
        least = (above - values.gather(1, top)).masked_fill(~other, 0.0)
        lift = torch.zeros_like(values).scatter(1, top, least)
    return logits + lift
