"""A network whose batch size was fixed when it was written."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .preprocessing import logits_of


class FixedBatch(nn.Module):
    """Answers any number of examples by a network that takes exactly `size` at once: in parts, the last one filled up.

    The filling repeats the part's last example and its answers are thrown away.
    """

    def __init__(self, network: nn.Module, size: int):
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> Tensor:
        answers = []
        for part in x.split(self.size):
            filling = part[-1:].expand(self.size - len(part), *part.shape[1:])
            answers.append(logits_of(self.network(torch.cat([part, filling])))[: len(part)])
        return torch.cat(answers)
