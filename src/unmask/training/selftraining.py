"""Robust self-training: labels from an undefended teacher, robustness from images without labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data import Data
from ..errors import UnusableInput
from ..threat import ThreatModel
from .alternating import Alternating
from .base import History, Trainer
from .loop import Loop
from .standard import Standard
from .trades import TRADES


@dataclass(frozen=True, kw_only=True)
class SelfTraining(Trainer):
    """A teacher learns the labelled images, names the unlabelled ones, and the network learns both robustly.

    **Fields**
    - `unlabelled`: `[n, channels, height, width]`, in the box.
    - `teacher`: how a copy of the untrained network learns the labelled images.
    - `student`: how the network then learns everything.
    - `labelled_share`: of the labelled images among those that the student sees; they are repeated, or cut off,
      to reach it. An epoch of the student sees every unlabelled image once.
    - `pseudo_rate`: if given, minibatches of labelled and of pseudo-labelled images take turns, and the latter's
      learning rate is this share of the former's (`Alternating`); None mixes both kinds in every minibatch.

    **Cost**: that of `teacher` on the labelled images and of `student` on `n / (1 - labelled_share)`.
    **Source**: Carmon et al. 2019, arXiv:1905.13736 (robust self-training by TRADES, half of each minibatch
    labelled); the lecture for minibatches that take turns.
    **Differs**: half on average instead of in each minibatch; the teacher is the same architecture.
    """

    unlabelled: Float[Tensor, "n channels height width"]
    teacher: Trainer = Standard()
    student: Trainer = TRADES()
    labelled_share: float = 0.5
    pseudo_rate: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.labelled_share < 1:
            raise UnusableInput(
                f"`SelfTraining` has labelled_share={self.labelled_share}; give a number between 0 and 1"
            )

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
        """As `Trainer.fit`, with the history of the student.

        The teacher's checkpoint stands beside the student's as `teacher-NAME`.
        """
        if self.unlabelled.shape[1:] != data.x.shape[1:]:
            raise UnusableInput(
                f"unlabelled images have shape {list(self.unlabelled.shape[1:])}, those of {data.name} "
                f"{list(data.x.shape[1:])}; resize one of them"
            )
        teacher = copy.deepcopy(network)
        aside = None if checkpoint is None else checkpoint.with_name(f"teacher-{checkpoint.name}")
        self.teacher.fit(teacher, data, None, generator=generator, checkpoint=aside)
        labels = pseudo_labels(teacher, self.unlabelled)
        student, seen = self.student, self.mixed(data, labels)
        if self.pseudo_rate is not None:
            if not isinstance(student, Loop):
                raise UnusableInput(
                    f"`{type(student).__name__}` has no minibatches that could take turns; leave pseudo_rate out"
                )
            student = Alternating.of(student, self.unlabelled, labels, self.pseudo_rate)
            seen = self.labelled_alone(data)
        return student.fit(
            network,
            seen,
            threat,
            generator=generator,
            validation=validation,
            checkpoint=checkpoint,
            progress=progress,
        )

    def mixed(self, data: Data, labels: Int[Tensor, " n"]) -> Data:
        """Labelled images, as often as their share asks for, and unlabelled ones with the teacher's labels."""
        known = self.labelled_alone(data)
        x, y = torch.cat([known.x, self.unlabelled]), torch.cat([known.y, labels])
        return replace(data, x=x, y=y, index=torch.arange(len(x)))

    def labelled_alone(self, data: Data) -> Data:
        """The labelled images, as often as their share asks for beside all unlabelled ones."""
        wanted = round(len(self.unlabelled) * self.labelled_share / (1 - self.labelled_share))
        return data[torch.arange(max(wanted, 1)) % len(data)]


def pseudo_labels(
    teacher: nn.Module, x: Float[Tensor, "n channels height width"], batch_size: int = 500
) -> Int[Tensor, " n"]:
    """Classes that a network in eval mode names, on the CPU."""
    device = next(teacher.parameters()).device
    with torch.no_grad():
        return torch.cat([teacher(part.to(device)).argmax(1).cpu() for part in x.split(batch_size)])
