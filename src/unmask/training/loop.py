"""The loop that all recipes share: they differ in what they do with one minibatch."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attacks import PGD, Attack
from ..classifier import seeded
from ..data import Data
from ..errors import UnusableInput
from ..threat import ThreatModel
from .augmentation import mirrored, shifted
from .base import Epoch, History, Trainer
from .course import Course
from .processes import Processes
from .run import Images, Labels, Run
from .validation import accuracies

# Batches between two looks at whether the loss is still a number: each waits for the device. Ours.
LOOK = 20


@dataclass(frozen=True)
class Seen:
    """What a recipe saw of a minibatch: its loss, and the logits of the images that it trained on."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "batch classes"]


@dataclass(frozen=True, kw_only=True)
class Loop(Trainer):
    """SGD with Nesterov momentum, one cycle of the learning rate, averaged weights.

    A recipe is a subclass with a `learn`.

    **Fields**
    - `epochs`, `batch_size`: the last, incomplete batch of an epoch is left out.
    - `learning_rate`: at its peak; it rises linearly over `warmup` (a share of all steps) and falls to zero by a
      cosine.
    - `momentum`, `weight_decay`: of SGD; gains and biases are not decayed.
    - `average`: decay per step of the exponential moving average of weights and batch statistics, which is what
      the network holds in the end.
    - `pad`: largest shift of the augmentation, in pixels; 0 for none.
    - `mirror`: also mirror half of the images; wrong for digits and letters.
    - `ramp`: share of all steps over which epsilon rises linearly from 0; 0 for none. A network without batch
      normalisation may otherwise stay at chance where epsilon is large (MNIST at 0.3).
    - `validation_attack`: what robust validation accuracy is measured with.
    - `patience`: stop after this many epochs without a better robust validation accuracy; None for never.
    - `half`: bfloat16 forward and backward passes, float32 weights.
    - `compiled`: by `torch.compile`, a minute in advance.
    - `processes`: those that train together; `batch_size` is divided among them.

    **Source**: He et al. 2016, arXiv:1512.03385 (augmentation, momentum); Smith & Topin 2019, arXiv:1708.07120
    (one cycle); Rice et al. 2020, arXiv:2002.11569 (the best epoch stays, for robust accuracy overfits).
    **Differs**: cosine instead of two linear pieces; label smoothing is left out on purpose, for it masks gradients.
    The papers train longer, by rates that fall in steps: their numbers of epochs are in `docs/training.md`.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.2
    average: float = 0.995
    pad: int = 4
    mirror: bool = True
    ramp: float = 0.0
    validation_attack: Attack = PGD(steps=10, rel_step_size=0.25)
    patience: int | None = None
    half: bool = False
    compiled: bool = False
    processes: Processes = Processes()

    hardens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            self.at_least(name, 1)
        self.at_least("pad", 0)
        if not 0 < self.learning_rate < math.inf:
            raise UnusableInput(
                f"`{type(self).__name__}` has learning_rate={self.learning_rate}; give a finite one above 0"
            )
        if not 0 <= self.average < 1:
            raise UnusableInput(f"`{type(self).__name__}` has average={self.average}; give a share in [0, 1)")
        if not 0 <= self.ramp <= 1:
            raise UnusableInput(f"`{type(self).__name__}` has ramp={self.ramp}; give a share in [0, 1]")
        if self.patience is not None:
            self.at_least("patience", 1)
        if self.batch_size % self.processes.size:
            raise UnusableInput(
                f"`{type(self).__name__}` has batch_size={self.batch_size} for {self.processes.size} processes; give "
                "a multiple"
            )

    def at_least(self, name: str, least: float) -> None:
        """**Raises** `UnusableInput` for a field that is smaller."""
        value = getattr(self, name)
        if not value >= least:
            raise UnusableInput(f"`{type(self).__name__}` has {name}={value}; give at least {least}")

    @abstractmethod
    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        """All that happens to one minibatch: the attack, the loss, the optimiser's steps."""

    def set_aside(self, run: Run, data: Data) -> Data:
        """What is left of the training data once the recipe has put some into `run.held_out`."""
        return data

    @property
    def updates(self) -> int:
        """Optimiser steps per minibatch."""
        return 1

    @property
    def passes(self) -> int:
        """Passes over the data. A recipe that steps more than once per minibatch makes as many fewer."""
        return math.ceil(self.epochs / self.updates)

    @torch.enable_grad()
    def fit(
        self,
        network: nn.Module,
        data: Data,
        threat: ThreatModel | None,
        *,
        generator: torch.Generator,
        validation: Data | None = None,
        checkpoint: Path | None = None,
        progress: Callable[[History], None] | None = None,
    ) -> History:
        name = type(self).__name__
        if threat is None and self.hardens:
            raise UnusableInput(f"`{name}` has no threat model; give one, such as Linf(epsilon=8/255)")
        if threat is not None and threat.goal != "untargeted":
            raise UnusableInput(
                f"the goal is {threat.goal!r}, but labels are what `{name}` learns; leave it out"
            )
        network.train()
        run = self._begin(network, threat, generator)
        data = self.set_aside(run, data)
        batches = len(data) // self.batch_size
        if not batches:
            raise UnusableInput(
                f"`{name}` has batch_size={self.batch_size}, but there are {len(data)} examples"
            )
        steps = batches * self.passes * self.updates
        run.rate = lambda step: self.rate(step, steps)
        run.share = lambda step: self.share(step, steps)
        course = Course.begin(run, name, checkpoint, batches * self.updates)
        parted = self.processes.parted(network)
        if parted is not None and parted not in run.events:
            run.events.append(parted)
        seed = int(
            torch.randint(2**62, (), generator=torch.Generator().manual_seed(generator.initial_seed()))
        )
        while course.done < self.passes and not course.stalled(self.patience):
            with seeded(seed + course.done, run.device):  # dropout and the like of the network itself
                epoch = self._epoch(run, data, validation, seed)
            course.add(epoch, self.learning_rate)
            if self.processes.first:
                course.save()
            self.processes.wait()
            if progress is not None and self.processes.first:
                progress(course.history)
        return course.end()

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of all `steps`."""
        place = (step + 1) / steps
        if place <= self.warmup:
            return self.learning_rate * place / self.warmup
        return self.learning_rate * (1 + math.cos(math.pi * (place - self.warmup) / (1 - self.warmup))) / 2

    def share(self, step: int, steps: int) -> float:
        """Share of epsilon that one of all `steps` trains against, in (0, 1]."""
        return min((step + 1) / (self.ramp * steps), 1.0) if self.ramp else 1.0

    def augmented(self, x: Images, run: Run) -> Images:
        """A whole minibatch as one epoch sees it, on the network's device."""
        if self.pad:
            x = shifted(x, self.pad, generator=run.generator)
        if self.mirror:
            x = mirrored(x, generator=run.generator)
        return x.to(run.device, memory_format=torch.channels_last)

    def _begin(self, network: nn.Module, threat: ThreatModel | None, generator: torch.Generator) -> Run:
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others}],
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
        )
        return Run(
            network,
            optimizer,
            rate=lambda step: self.learning_rate,
            decay=self.average,
            generator=generator,
            given_threat=threat,
            half=self.half,
            compiled=self.compiled,
            processes=self.processes,
        )

    def _epoch(self, run: Run, data: Data, validation: Data | None, seed: int) -> Epoch:
        began = time.perf_counter()
        batches = len(data) // self.batch_size
        total, right = torch.zeros((), device=run.device), torch.zeros((), device=run.device)
        order = torch.randperm(len(data), generator=run.generator)[: batches * self.batch_size]
        for number, part in enumerate(order.split(self.batch_size)):
            if number % LOOK == LOOK - 1 and not math.isfinite(float(total)):
                break  # what is lost stays lost
            x, y = self.augmented(data.x[part], run), data.y[part].to(run.device)
            x, y = self.processes.part(x), self.processes.part(y)
            seen = self.learn(run, x, y)
            with torch.no_grad():
                total += seen.loss.detach()
                right += (seen.logits.argmax(1) == y).sum()
        examples = batches * self.batch_size / self.processes.size
        loss, accuracy = self.processes.mean([float(total) / batches, float(right) / examples])
        epoch = Epoch(loss, accuracy, time.perf_counter() - began)
        if validation is None:
            return epoch
        clean, robust = accuracies(
            run.averaged,
            validation,
            run.given_threat,
            self.validation_attack,
            self.batch_size,
            seed,
            self.processes,
        )
        return Epoch(epoch.loss, epoch.accuracy, epoch.seconds, clean, robust)
