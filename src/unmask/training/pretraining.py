"""Robust pretraining: what was learnt on other images is where adversarial training begins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..data import Data
from ..errors import UnusableInput
from ..threat import ThreatModel
from .adversarial import AdversarialTraining
from .base import History, Trainer


@dataclass(frozen=True, kw_only=True)
class Pretraining(Trainer):
    """Trains on `source` first, then on the data, both adversarially; the last layer starts anew in between.

    The two data sets may have different classes, but images of one shape.

    **Fields**
    - `source`: the data to pretrain on.
    - `before`, `after`: the recipe for each of the two.

    **Cost**: that of both.
    **Source**: Hendrycks et al. 2019, arXiv:1901.09960: pretraining on downsampled ImageNet, then five epochs on
    CIFAR-10.
    **Differs**: the rate of fine-tuning is a tenth of `Loop`'s peak, where theirs begins at 0.001.
    """

    source: Data
    before: Trainer = AdversarialTraining()
    after: Trainer = AdversarialTraining(epochs=5, learning_rate=0.02)

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
        """As `Trainer.fit`, with the history of both phases; pretraining is validated by nothing.

        Its checkpoint stands beside the other as `pretraining-NAME`.
        """
        if self.source.x.shape[1:] != data.x.shape[1:]:
            raise UnusableInput(
                f"images of {self.source.name} have shape {list(self.source.x.shape[1:])}, those of {data.name} "
                f"{list(data.x.shape[1:])}; resize one of them"
            )
        first = with_classes(network, int(self.source.y.max()) + 1, generator=generator)
        aside = None if checkpoint is None else checkpoint.with_name(f"pretraining-{checkpoint.name}")
        before = self.before.fit(
            first, self.source, threat, generator=generator, checkpoint=aside, progress=progress
        )
        transplant(first, network)

        def both(history: History) -> History:
            return History([*before.epochs, *history.epochs], [*before.events, *history.events])

        return both(
            self.after.fit(
                network,
                data,
                threat,
                generator=generator,
                validation=validation,
                checkpoint=checkpoint,
                progress=None if progress is None else lambda history: progress(both(history)),
            )
        )


def last_layer(network: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer, in the order of `named_modules`."""
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear) and name]
    if not linear:
        raise UnusableInput(
            "`Pretraining` exchanges the last `nn.Linear`, but this network has none; add one"
        )
    return linear[-1]


def with_classes(network: nn.Module, classes: int, *, generator: torch.Generator) -> nn.Module:
    """A copy of the network whose last layer is new and has `classes` outputs."""
    network = copy.deepcopy(network)
    name, old = last_layer(network)
    new = nn.Linear(old.in_features, classes, bias=old.bias is not None, device=old.weight.device)
    bound = old.in_features**-0.5  # as torch's own
    with torch.no_grad():
        for p in new.parameters():
            p.copy_(torch.rand(p.shape, generator=generator) * 2 * bound - bound)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
    return network


def transplant(pretrained: nn.Module, network: nn.Module) -> None:
    """Copies weights and statistics of everything but the last layer."""
    name, _ = last_layer(network)
    body = {key: t for key, t in pretrained.state_dict().items() if not key.startswith(name + ".")}
    network.load_state_dict(body, strict=False)
