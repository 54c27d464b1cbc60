"""What a prediction over several passes is a mean of."""

from __future__ import annotations

from typing import get_args

from jaxtyping import Float
from torch import Tensor

from ..errors import UnmaskError
from ..types import Average

Logits = Float[Tensor, "batch classes"]

# Least probability whose log is taken: above it a backward pass through log and soft-max stays in float32. Ours.
LEAST = 1e-35


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
