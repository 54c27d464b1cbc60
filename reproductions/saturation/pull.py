"""How hard the penalty pulls at the weights beside the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.training.saturated import penalties_of


def pulls(network: nn.Module, strength: float, x: Tensor, y: Tensor) -> list[float]:
    """Length of the gradient of `strength` times the penalty, as a multiple of that of the cross-entropy.

    One number for each linear layer but the last, whose weights no hidden unit sees.
    """
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Linear)][:-1]
    with torch.enable_grad():
        with penalties_of(network) as penalties:
            logits = network(x)
        loss = nn.functional.cross_entropy(logits, y)
        slopes = torch.autograd.grad(loss, weights, retain_graph=True)
        towards = torch.autograd.grad(strength * torch.stack(penalties).sum(), weights)
    return [float(t.norm() / s.norm()) for s, t in zip(slopes, towards, strict=True)]
