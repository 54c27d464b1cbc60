"""Semi-supervision as the lecture has it: labelled and pseudo-labelled minibatches in turn."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data import Data
from ..errors import UnusableInput
from .loop import Loop, Seen
from .run import Images, Labels, Run


@dataclass(frozen=True, kw_only=True)
class Alternating(Loop):
    """A step on labelled images, then one on pseudo-labelled images at a smaller learning rate, and so on.

    **Fields**
    - `learner`: what happens to a minibatch of either kind; one step a minibatch.
    - `unlabelled`: `[n, channels, height, width]`, in the box.
    - `labels`: `[n]`, the classes that a teacher has named.
    - `pseudo_rate`: the learning rate on pseudo-labelled minibatches as a share of that on labelled ones, in (0, 1].

    An epoch sees as many images of either kind as there are labelled ones; the unlabelled come in a new order when
    all have been seen.

    **Cost**: twice that of `learner`.
    **Source**: the lecture (part 2, "semi-supervision"): alternating iterations, "typically a smaller learning rate".
    """

    learner: Loop
    unlabelled: Float[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"]
    pseudo_rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.pseudo_rate <= 1:
            raise UnusableInput(f"the pseudo rate is {self.pseudo_rate}; give a share of the rate, in (0, 1]")
        if self.learner.updates != 1:
            raise UnusableInput(
                f"`{type(self.learner).__name__}` steps more than once per minibatch and cannot take turns with "
                "pseudo-labels"
            )
        if len(self.unlabelled) < self.batch_size:
            raise UnusableInput(
                f"there are {len(self.unlabelled)} unlabelled images for minibatches of {self.batch_size}; give more "
                "of them, or a smaller batch size"
            )

    @classmethod
    def of(
        cls,
        learner: Loop,
        unlabelled: Float[Tensor, "n channels height width"],
        labels: Int[Tensor, " n"],
        pseudo_rate: float,
    ) -> Alternating:
        """With the learner's schedule, augmentation and the like."""
        shared = {f.name: getattr(learner, f.name) for f in fields(Loop)}
        return cls(**shared, learner=learner, unlabelled=unlabelled, labels=labels, pseudo_rate=pseudo_rate)

    @property
    def updates(self) -> int:
        return 2

    @property
    def passes(self) -> int:
        return self.epochs

    def rate(self, step: int, steps: int) -> float:
        """Steps with even numbers are on labelled images."""
        return super().rate(step, steps) * (self.pseudo_rate if step % 2 else 1.0)

    def set_aside(self, run: Run, data: Data) -> Data:
        return self.learner.set_aside(run, data)

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        """What is reported is the labelled minibatch's loss."""
        number = run.done // 2
        seen = self.learner.learn(run, x, y)
        chosen = self._chosen(run, number)
        images = self.processes.part(self.augmented(self.unlabelled[chosen], run))
        self.learner.learn(run, images, self.processes.part(self.labels[chosen].to(run.device)))
        return seen

    def _chosen(self, run: Run, number: int) -> Int[Tensor, " batch"]:
        """Places of the minibatch of that number: a new order for each time that all have been seen."""
        batches = len(self.unlabelled) // self.batch_size
        again, place = divmod(number, batches)
        generator = torch.Generator().manual_seed(run.generator.initial_seed() + again)
        order = torch.randperm(len(self.unlabelled), generator=generator)
        return order[place * self.batch_size : (place + 1) * self.batch_size]
