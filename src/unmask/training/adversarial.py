"""Adversarial training: descend at the point where the loss is largest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..attacks import PGD, Attack
from .loop import Loop, Seen
from .run import Images, Labels, Run

# Ten steps (the lecture's "10 or so") of a quarter of epsilon (2/255 at 8/255, as in the paper's CIFAR-10 networks).
# An example that is already fooled goes on: the maximum is wanted, not the first mistake.
INNER = PGD(steps=10, rel_step_size=0.25, early_stop=False, last=True)


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Loop):
    """Cross-entropy on adversarial examples.

    By Danskin's theorem the gradient of the robust loss, max over the ball, is the gradient of the loss at the
    maximiser; the attack stands in for it.

    **Fields**
    - `attack`: the inner maximiser: any attack, with any estimator of the gradient.

    **Cost**: that of `attack`, and one forward and one backward, per example and epoch: 11 of each by default.
    **Source**: Madry et al. 2018, arXiv:1706.06083; seven steps there.
    **Differs**: the attack sees the network in eval mode, as an adversary would; learning rate as in `Loop`.
    """

    attack: Attack = INNER

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        logits = run.logits(run.attack(self.attack, x, y))
        loss = nn.functional.cross_entropy(logits, y)
        run.descend(loss)
        return Seen(loss, logits)
