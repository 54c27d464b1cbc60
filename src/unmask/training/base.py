"""What every recipe of training has in common: a history, and checkpoints that lose nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data import Data
from ..errors import UnusableInput, first_line
from ..threat import ThreatModel


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    **Fields**
    - `loss`, `accuracy`: means over the augmented training images as they were seen, accuracy in [0, 1].
    - `seconds`: wall time.
    """

    loss: float
    accuracy: float
    seconds: float


@dataclass
class History:
    """What a training run saw, epoch by epoch, over all resumptions."""

    epochs: list[Epoch] = field(default_factory=list)

    def record(self) -> list[dict[str, float]]:
        """For JSON."""
        return [asdict(epoch) for epoch in self.epochs]


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
        checkpoint: Path | None = None,
        progress: Callable[[History], None] | None = None,
    ) -> History:
        """Leaves the trained weights in `network`, in eval mode, and the global random state as it was.

        **Arguments**
        - `threat`: what the network is hardened against; None where the recipe has no adversary.
        - `generator`: order of the examples and their augmentation.
        - `checkpoint`: written after every epoch; if it is there, training goes on behind it and ends with the
          same weights as an uninterrupted run.
        - `progress`: called after every epoch.
        """


def save_checkpoint(path: Path, groups: dict[str, dict[str, Tensor]], history: History) -> None:
    """Writes named groups of tensors in one safetensors file, whole or not at all."""
    tensors = {
        f"{group}/{name}": t.detach().contiguous().clone()
        for group, part in groups.items()
        for name, t in part.items()
    }
    epochs = [[e.loss, e.accuracy, e.seconds] for e in history.epochs]
    tensors["history/epochs"] = torch.tensor(epochs, dtype=torch.float64).reshape(-1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, unfinished)
    unfinished.replace(path)


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], History]:
    """The inverse of `save_checkpoint`. **Raises** `UnusableInput` for a file that is not one."""
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no dict: it has no iterator)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
        rows = groups.pop("history")["epochs"].tolist()
    except Exception as error:  # safetensors' errors share no base with those of the file system
        raise UnusableInput(f"{path} is no checkpoint of a training run ({first_line(error)})") from error
    return groups, History([Epoch(*row) for row in rows])
