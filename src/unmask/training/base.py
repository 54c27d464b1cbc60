"""What every recipe of training has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import Data
from ..threat import ThreatModel


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    **Fields**
    - `loss`, `accuracy`: means over the training images as the recipe saw them (augmented, attacked), accuracy in
      [0, 1].
    - `seconds`: wall time, without validation.
    - `clean_accuracy`, `robust_accuracy`: of the averaged weights on the validation data, in [0, 1]; None where
      there are none. The robust one is an upper bound by a short attack, for steering, not for reporting.
    """

    loss: float
    accuracy: float
    seconds: float
    clean_accuracy: float | None = None
    robust_accuracy: float | None = None


@dataclass
class History:
    """What a training run saw, epoch by epoch, over all resumptions.

    **Fields**
    - `events`: what a recipe did beside its routine, one sentence each.
    """

    epochs: list[Epoch] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def record(self) -> list[dict[str, Any]]:
        """The epochs, for JSON."""
        return [asdict(epoch) for epoch in self.epochs]

    @property
    def best(self) -> int | None:
        """Index of the first epoch with the largest robust validation accuracy; None where none was measured."""
        measured = [
            (e.robust_accuracy, -n) for n, e in enumerate(self.epochs) if e.robust_accuracy is not None
        ]
        return -max(measured)[1] if measured else None


class Trainer(ABC):
    """A recipe: trains a network in place."""

    @abstractmethod
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
        """Leaves the trained weights in `network`, in eval mode, and the global random state as it was.

        **Arguments**
        - `threat`: what the network is hardened against; None where the recipe has no adversary.
        - `generator`: order of the examples, their augmentation, and the attack's randomness.
        - `validation`: measured after every epoch. With a threat, the weights of the epoch with the best robust
          accuracy are those that stay.
        - `checkpoint`: written after every epoch; if it is there, training goes on behind it and ends with the
          same weights as an uninterrupted run.
        - `progress`: called after every epoch.
        """
