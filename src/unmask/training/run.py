"""One training run in progress: what a recipe works on, minibatch by minibatch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attacks import Attack
from ..classifier import Classifier
from ..data import Data
from ..errors import UnusableInput
from ..randomness import Streams
from ..threat import ThreatModel
from .checkpoint import Groups
from .processes import Processes

Images = Float[Tensor, "batch channels height width"]
Labels = Int[Tensor, " batch"]


@dataclass(eq=False)
class Run:
    """The network, its optimiser and its averaged weights.

    **Fields**
    - `rate`: learning rate of a step, counted from 0.
    - `decay`: of the averaged weights, per step.
    - `half`: bfloat16 forward and backward passes, in training and in attacks.
    - `done`: optimiser steps so far.
    - `state`: tensors that a recipe carries from one minibatch to the next; in every checkpoint.
    - `held_out`: what a recipe has set aside from the training data.
    - `events`: see `History.events`.
    - `processes`: those that train together.
    - `share`: of epsilon that a step trains against, in (0, 1], counted as `rate`'s.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
    decay: float
    generator: torch.Generator
    given_threat: ThreatModel | None = None
    half: bool = False
    compiled: bool = False
    done: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    held_out: Data | None = None
    events: list[str] = field(default_factory=list)
    processes: Processes = Processes()
    share: Callable[[int], float] = lambda step: 1.0

    def __post_init__(self) -> None:
        self.device = next(self.network.parameters()).device
        self.averaged = copy.deepcopy(self.network).eval()
        self._mean = self.averaged.state_dict()  # the same memory, looked up once
        self.forward = torch.compile(self.network) if self.compiled else self.network

    @property
    def threat(self) -> ThreatModel:
        """What this step hardens the network against. **Raises** `UnusableInput` where there is none."""
        if self.given_threat is None:
            raise UnusableInput(
                "this recipe hardens against a threat model; give one, such as Linf(epsilon=8/255)"
            )
        share = self.share(self.done)
        if share >= 1:
            return self.given_threat
        return replace(self.given_threat, epsilon=share * self.given_threat.epsilon)

    def logits(self, x: Images) -> Float[Tensor, "batch classes"]:
        """A forward pass in the mode that the network is in; float32 even where `half` was used inside."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.forward(x.clone())  # a network that works in place must not write into the data
        return logits.float() if self.half else logits

    def streams(self, batch: int) -> Streams:
        """Fresh randomness for the examples of this process's part of a minibatch."""
        return self.processes.part(Streams.of(self.generator, batch * self.processes.size))

    def attack(self, attack: Attack, x: Images, y: Labels) -> Images:
        """Adversarial examples for the network as it is deployed: in eval mode, its batch statistics untouched."""
        self.network.eval()
        learned = [p for p in self.network.parameters() if p.requires_grad]
        for p in learned:  # a compiled backward pass computes all gradients that anything could ask for
            p.requires_grad_(False)
        try:
            # Whatever is random inside a third-party network draws from the epoch's own seed.
            classifier = Classifier(self.logits, deterministic=True)
            return attack.run(classifier, x, y, self.threat, generator=self.streams(len(x)))
        finally:
            for p in learned:
                p.requires_grad_()
            self.network.train()

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Adds the gradient of `loss` to what the next `update` uses."""
        loss.backward()

    def update(self) -> None:
        """One step of the optimiser and of the average, with the gradients added since the last one."""
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        self.processes.average([*gradients, *(b for b in self.network.buffers() if b.is_floating_point())])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.done)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        # An average over all the past would remember the first weights: short at first, then as asked for.
        decay = min(self.decay, self.done / (self.done + 9))
        with torch.no_grad():
            for name, t in self.network.state_dict().items():
                if t.is_floating_point():
                    self._mean[name].lerp_(t, 1 - decay)
                else:
                    self._mean[name].copy_(t)

    def descend(self, loss: Float[Tensor, ""]) -> None:
        """One step down this loss."""
        self.backward(loss)
        self.update()

    def finite(self) -> bool:
        """Whether all weights are numbers, averaged or not."""
        tensors = (*self.network.state_dict().values(), *self._mean.values())
        return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())

    def weights(self) -> Groups:
        """Network, averaged weights and momentum: what a step back restores. Copies."""
        momentum = {
            f"{n}/{name}": t
            for n, p in enumerate(self._parameters())
            for name, t in self.optimizer.state.get(p, {}).items()
            if isinstance(t, Tensor)
        }
        groups = {
            "network": self.network.state_dict(),
            "mean": self.averaged.state_dict(),
            "momentum": momentum,
        }
        return {group: {k: t.detach().clone() for k, t in part.items()} for group, part in groups.items()}

    def restore(self, groups: Groups) -> None:
        """The inverse of `weights`."""
        self.network.load_state_dict(groups["network"])
        self.averaged.load_state_dict(groups["mean"])
        parameters = self._parameters()
        for p in parameters:
            self.optimizer.state[p].clear()
        for key, buffer in groups.get("momentum", {}).items():  # there is none before the first step
            n, _, name = key.partition("/")
            self.optimizer.state[parameters[int(n)]][name] = buffer.to(self.device, copy=True)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
