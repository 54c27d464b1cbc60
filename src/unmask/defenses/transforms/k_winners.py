"""k-winners-take-all in the place of every ReLU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...classifier import Classifier, Network
from ...errors import UnusableInput
from ..base import Defense, mode_of, undefended

Activations = Float[Tensor, "batch *dims"]
RELUS = frozenset((torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.relu_))


def k_winners(h: Activations, share: float) -> Activations:
    """Keeps the largest `share` of each example's activations, over all channels and places, and zeroes the rest."""
    flat = h.flatten(1)
    k = max(1, math.floor(share * flat.shape[1]))
    least = flat.detach().kthvalue(flat.shape[1] - k + 1, dim=1, keepdim=True).values
    return (flat * (flat >= least)).view_as(h)


class _Replacing(TorchFunctionMode):
    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RELUS:
            return k_winners(args[0] if args else kwargs["input"], self.share)
        return func(*args, **(kwargs or {}))


class _Winning(nn.Module):
    def __init__(self, network: Network, share: float):
        super().__init__()
        self.network = network
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        with _Replacing(self.share):
            return self.network(x)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class KWinners(Defense):
    """Puts k-winners-take-all in the place of every ReLU of a network that runs as Python.

    The activation is discontinuous: winners change with the smallest step, and the gradient of one point says
    little about the next. The surrogate is the network with its ReLUs. A network gains by some training behind it.

    **Fields**
    - `share`: gamma, the part of each layer's activations that win; 0.1 in the paper, on CIFAR-10.

    **Source**: Xiao, Zhong & Zheng 2020, arXiv:1905.10510.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UnusableInput(f"`KWinners` has share={self.share}; give a number in (0, 1]")

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        network = _Winning(classifier.network, self.share).train(mode_of(classifier.network))
        return classifier.replace(network=network, surrogate=undefended(classifier))
