"""Fast adversarial training: one step of attack, and a guard against its sudden death."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..attacks import FGSM, PGD, Attack
from ..data import Data
from ..errors import UnusableInput
from .adversarial import AdversarialTraining
from .loop import Seen
from .run import Images, Labels, Run
from .validation import accuracies

WEIGHTS = "good/"  # what the recipe's state calls the weights at the last check that went well


@dataclass(frozen=True, kw_only=True)
class FastTraining(AdversarialTraining):
    """One FGSM step from a random point of the ball.

    The network may learn to fool that one step: within a few minibatches its accuracy under FGSM is near 1 and
    under PGD near 0 (catastrophic overfitting, a masked gradient). The guard measures accuracy under PGD on
    images set aside; once it has fallen by `tolerance` below the best check so far, weights, momentum and average
    go back to the last good check, and training goes on with `fallback`. `History.events` says so. While epsilon
    rises (`ramp`), a fall is put up with; one that lasts until epsilon is whole is not.

    **Fields**
    - `guard_every`: steps between two checks; 0 for no guard.
    - `guard_examples`: how many of the last training images are set aside for it.
    - `guard_attack`: what it measures with.
    - `tolerance`: largest fall that is put up with, in [0, 1].
    - `fallback`: the attack after a collapse.

    **Cost**: two forwards and backwards per example and epoch; `guard_examples` times the cost of `guard_attack` for
    every check. After a collapse, that of `fallback` and one.
    **Source**: Wong et al. 2020, arXiv:2001.03994: step of 1.25 epsilon, and a check once an epoch that stops at
    a fall of 0.2. **Differs**: the guard goes back and on instead of stopping, and checks more often.
    """

    attack: Attack = FGSM(random_start=True, rel_step_size=1.25)
    guard_every: int = 50
    guard_examples: int = 128
    guard_attack: Attack = PGD(steps=10, rel_step_size=0.25)
    tolerance: float = 0.2
    fallback: Attack = PGD(steps=3, rel_step_size=0.5, early_stop=False, last=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("guard_every", 0)
        self.at_least("guard_examples", 1)

    def set_aside(self, run: Run, data: Data) -> Data:
        if not self.guard_every:
            return data
        rest = len(data) - self.guard_examples
        if rest < self.batch_size:
            raise UnusableInput(
                f"`FastTraining` sets guard_examples={self.guard_examples} of {len(data)} examples aside, which "
                f"leaves no batch of {self.batch_size}; give fewer, or guard_every=0 for no guard"
            )
        run.held_out = data[rest:]
        return data[:rest]

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        if "fallen" in run.state:
            return replace(self, attack=self.fallback)._once(run, x, y)
        seen = self._once(run, x, y)
        if self.guard_every and run.done % self.guard_every == 0:
            self._check(run)
        return seen

    def _once(self, run: Run, x: Images, y: Labels) -> Seen:
        return super().learn(run, x, y)

    def _check(self, run: Run) -> None:
        assert run.held_out is not None
        run.network.eval()
        threat = run.given_threat  # not the ramp's part of it: checks must compare
        _, robust = accuracies(run.network, run.held_out, threat, self.guard_attack, self.batch_size, 0)
        run.network.train()
        assert robust is not None
        best = float(run.state.get("best", torch.zeros(())))
        if robust >= best - self.tolerance:
            run.state["best"] = torch.tensor(max(best, robust))
            run.state["step"] = torch.tensor(run.done)
            for group, tensors in run.weights().items():
                run.state.update({f"{WEIGHTS}{group}/{name}": t for name, t in tensors.items()})
            return
        if run.share(run.done) < 1:
            return  # accuracy at the whole of epsilon wavers until it has been trained for; what lasts is seen then
        groups: dict[str, dict[str, torch.Tensor]] = {"network": {}, "mean": {}, "momentum": {}}
        for name in [name for name in run.state if name.startswith(WEIGHTS)]:
            group, _, key = name.removeprefix(WEIGHTS).partition("/")
            groups[group][key] = run.state.pop(name)
        run.restore(groups)
        run.state["fallen"] = torch.ones(())
        run.events.append(
            f"step {run.done}: catastrophic overfitting, accuracy under {type(self.guard_attack).__name__} on "
            f"{len(run.held_out)} images set aside fell from {best:.3f} to {robust:.3f}; back to step "
            f"{int(run.state['step'])} and on with {self.fallback}"
        )
