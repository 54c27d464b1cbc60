"""TRADES: clean accuracy and stability of the prediction, weighed against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attacks.base import GradientAttack
from ..objectives import Objective
from ..types import Outputs
from .adversarial import INNER
from .loop import Loop, Seen
from .run import Images, Labels, Run


@dataclass(frozen=True, eq=False)
class Divergence(Objective):
    """Kullback-Leibler divergence from the prediction at the clean input, in nats.

    Its gradient is zero at the clean input itself: an attack has to start elsewhere.

    **Fields**
    - `clean`: logits at the clean inputs, `[batch, classes]`, no graph needed.
    """

    clean: Float[Tensor, "batch classes"]

    def __call__(self, outputs: Outputs, y: Labels) -> Float[Tensor, " batch"]:
        return divergence(self.clean, outputs.logits)

    def take(self, index: Tensor) -> Divergence:
        return Divergence(self.clean[index])


def divergence(
    clean: Float[Tensor, "batch classes"], adversarial: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """KL(softmax(clean) || softmax(adversarial)) per example, differentiable in both."""
    target, found = clean.log_softmax(1), adversarial.log_softmax(1)
    return nn.functional.kl_div(found, target, reduction="none", log_target=True).sum(1)


@dataclass(frozen=True, kw_only=True)
class TRADES(Loop):
    """Cross-entropy at the clean example plus `beta` times the largest divergence around it.

    **Fields**
    - `beta`: the paper's 1/lambda; larger is more robust and less accurate.
    - `attack`: the inner maximiser; its objective is replaced by the divergence. Without a random start its
      first step follows rounding errors, for there is no slope at the example.

    **Cost**: that of `attack`, and three forwards and two backwards, per example and epoch.
    **Source**: Zhang et al. 2019, arXiv:1901.08573, equation 5; beta 6 in their CIFAR-10 experiments.
    **Differs**: a random start in the whole ball instead of one of 0.001 around the example, and ten steps of
    a quarter of epsilon (theirs: 0.007 of 0.031); learning rate as in `Loop`.
    """

    beta: float = 6.0
    attack: GradientAttack = INNER

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("beta", 0)

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        run.network.eval()
        with torch.no_grad():
            reference = run.logits(x)
        run.network.train()
        x_adv = run.attack(replace(self.attack, objective=Divergence(reference)), x, y)
        clean, adversarial = run.logits(x), run.logits(x_adv)
        loss = nn.functional.cross_entropy(clean, y) + self.beta * divergence(clean, adversarial).mean()
        run.descend(loss)
        return Seen(loss, adversarial)
