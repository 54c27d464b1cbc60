"""How far a training has come: its history, the weights that it may end with, and the checkpoint that keeps both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..errors import Diverged
from .base import Epoch, History
from .checkpoint import load_checkpoint, save_checkpoint
from .run import Run

Weights = dict[str, Tensor]


@dataclass(eq=False)
class Course:
    """A training from its first epoch or its checkpoint to its end.

    **Fields**
    - `recipe`: its name; a checkpoint of another recipe is refused.
    - `checkpoint`: the file that every epoch is written to; None for no file.
    - `best`: averaged weights of the epoch with the best robust validation accuracy; empty where none was measured.
    - `last`: averaged weights after the last epoch.
    """

    run: Run
    recipe: str
    checkpoint: Path | None
    history: History = field(default_factory=History)
    best: Weights = field(default_factory=dict)
    last: Weights = field(default_factory=dict)

    @classmethod
    def begin(cls, run: Run, recipe: str, checkpoint: Path | None, updates: int) -> Course:
        """Behind the last epoch in `checkpoint` if there is one; an epoch makes so many `updates`."""
        course = cls(run, recipe, checkpoint)
        if checkpoint is not None and checkpoint.exists():
            groups, course.history = load_checkpoint(checkpoint, recipe)
            run.restore(groups)
            run.state = {k: t.to(run.device) for k, t in groups.get("state", {}).items()}
            run.done = course.done * updates
            course.best = groups.get("best", {})
            run.generator.set_state(groups["generator"]["state"])
        run.events = course.history.events
        course.last = run.weights()["mean"]
        return course

    @property
    def done(self) -> int:
        """Epochs so far."""
        return len(self.history.epochs)

    def stalled(self, patience: int | None) -> bool:
        """Whether `patience` epochs have passed without a better robust validation accuracy; None is endless."""
        best = self.history.best
        return patience is not None and best is not None and self.done - 1 - best >= patience

    def add(self, epoch: Epoch, learning_rate: float) -> None:
        """Takes in one more epoch of a training whose rate was at most `learning_rate`.

        **Raises** `Diverged` where the loss or a weight is no finite number; the network then has the best weights
        so far, or the last that were sound.
        """
        if not (math.isfinite(epoch.loss) and self.run.finite()):
            self._leave(self.best or self.last)
            raise Diverged(
                f"training has diverged: the loss or a weight is no finite number in epoch {self.done + 1} (loss "
                f"{epoch.loss:g}); the weights of epoch {self.done} are kept: lower the learning rate "
                f"({learning_rate:g}), or epsilon",
                self.done,
            )
        self.history.epochs.append(epoch)
        self.last = self.run.weights()["mean"]
        if self.history.best == self.done - 1:
            self.best = self.last

    def save(self) -> None:
        """Writes the checkpoint, if there is to be one."""
        if self.checkpoint is None:
            return
        groups = {
            **self.run.weights(),
            "best": self.best,
            "state": self.run.state,
            "generator": {"state": self.run.generator.get_state()},
        }
        save_checkpoint(self.checkpoint, groups, self.history, self.recipe)

    def end(self) -> History:
        """Leaves the best weights in the network, else the averaged ones, in eval mode."""
        self._leave(self.best or self.run.averaged.state_dict())
        return self.history

    def _leave(self, weights: Weights) -> None:
        self.run.network.load_state_dict(weights)
        self.run.network.eval()
