"""Free adversarial training: one backward pass moves the weights and the images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..threat import norm_ball
from .loop import Loop, Seen
from .run import Images, Labels, Run


@dataclass(frozen=True, kw_only=True)
class FreeTraining(Loop):
    """Each minibatch is replayed; every replay steps the weights down and the perturbation up by the same pass.

    The perturbation of a place in the minibatch goes on into the next minibatch.

    **Fields**
    - `replays`: m of the paper.
    - `epochs`: counted in passes through the network, as there: the data are seen `epochs / replays` times, so
      that the whole costs what standard training of `epochs` does.
    - `rel_step_size`: of the perturbation, as a fraction of epsilon.

    **Cost**: `replays` forwards and backwards per example and pass over the data.
    **Source**: Shafahi et al. 2019, arXiv:1904.12843, algorithm 1; m = 8 in their CIFAR-10 experiments.
    **Differs**: learning rate as in `Loop`.
    """

    replays: int = 8
    rel_step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("replays", 1)

    @property
    def updates(self) -> int:
        return self.replays

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        threat = norm_ball(run.threat, "`Free`")
        # The box binds the image, not the perturbation, which meets another image next.
        ball = replace(threat, box=(-math.inf, math.inf))
        origin = torch.zeros_like(x)
        delta = run.processes.part(run.state["perturbation"]) if "perturbation" in run.state else origin
        total, logits = x.new_zeros(()), x
        for _ in range(self.replays):
            x_adv = threat.project(x + delta, x).requires_grad_()
            logits = run.logits(x_adv)
            loss = nn.functional.cross_entropy(logits, y)
            run.descend(loss)
            assert x_adv.grad is not None
            step = self.rel_step_size * threat.epsilon * threat.steepest_ascent(x_adv.grad)
            delta = ball.project(delta + step, origin)
            total += loss.detach() / self.replays
        run.state["perturbation"] = run.processes.whole(delta)
        return Seen(total, logits.detach())
