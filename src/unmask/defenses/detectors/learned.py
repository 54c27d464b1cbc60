"""A detector that is trained on adversarial examples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UnusableInput
from .base import Detector, Images, Layers, Scores


class BinaryDetector(Detector):
    """A small network that has learnt to tell clean images from adversarial ones.

    **Arguments**
    - `x`, `x_adv`: clean images and adversarial ones, made against the undefended network by whatever attack the
      defender thinks of.
    - `layers`: reads the hidden layer that these hand out (Metzen et al.); without it the image itself (Gong et al.).
    - `head`: from there to one logit; by default two linear layers.
    - `width`: units between them. `epochs`, `learning_rate`: of Adam, on batches of 64. Ours.

    **Cost**: a pass of the head, and one of the network where a hidden layer is read.
    **Source**: Metzen et al. 2017, arXiv:1702.04267; Gong, Wang & Ku 2017, arXiv:1704.04960. **Differs**: their heads
    are convolutional.
    """

    def __init__(
        self,
        x: Images,
        x_adv: Images,
        *,
        layers: Layers | None = None,
        head: nn.Module | None = None,
        width: int = 128,
        epochs: int = 30,
        learning_rate: float = 1e-3,
        generator: torch.Generator,
    ):
        super().__init__()
        if not len(x) or not len(x_adv):
            raise UnusableInput(
                f"there are {len(x)} clean and {len(x_adv)} adversarial images; give some of both"
            )
        self.layers = layers
        with torch.no_grad():
            seen = self.read(torch.cat([x, x_adv]))
        with torch.random.fork_rng([]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            if head is None:
                head = nn.Sequential(nn.Linear(seen.shape[1], width), nn.ReLU(), nn.Linear(width, 1))
            self.head = head.to(x.device)
        label = torch.cat([x.new_zeros(len(x)), x.new_ones(len(x_adv))])
        optimizer = torch.optim.Adam(self.head.parameters(), learning_rate)
        with torch.enable_grad():
            for _ in range(epochs):
                for part in torch.randperm(len(seen), generator=generator).to(x.device).split(64):
                    optimizer.zero_grad()
                    F.binary_cross_entropy_with_logits(self.head(seen[part])[:, 0], label[part]).backward()
                    optimizer.step()
        self.head.eval().requires_grad_(False)

    def read(self, x: Images) -> Tensor:
        """What the head reads, `[batch, d]`."""
        return x.flatten(1) if self.layers is None else self.layers(x)[1][0].flatten(1)

    def forward(self, x: Images) -> Scores:
        """The logit of being adversarial, `[batch]`."""
        return self.head(self.read(x))[:, 0]
