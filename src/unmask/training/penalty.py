"""Networks saturated by the papers' penalty and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..data import Data
from ..errors import UnusableInput
from ..threat import ThreatModel
from .base import History
from .loop import Loop, Seen
from .run import Images, Labels, Run
from .saturated import hidden_units, penalties_of, widen


@dataclass(frozen=True, kw_only=True)
class Penalised(Loop):
    """Cross-entropy plus the sum of complementary functions over all hidden units, by Adam in float64.

    Tensor by tensor the penalty's gradient is made `pull` times as long as that of the cross-entropy. A fixed weight
    finds no such balance: both gradients vanish as units saturate, each at its own pace. Both become smaller than
    float32 or Adam's usual epsilon of 1e-8 can hold; hence float64, and an epsilon that is practically zero. In the end
    the network is of the type that it had.

    Hidden units are those of `nn.Sigmoid` and `nn.ReLU` modules. `threat` is not used.

    **Fields**
    - `pull`: length of the penalty's gradient as a multiple of the cross-entropy's.
    - `alone`: share of the steps, the first ones, that learn without a penalty: from Glorot's weights on, the penalty
      would saturate units that have learnt nothing.
    - `gain`: as `Saturated` has it.
    - `learning_rate`: of Adam; it falls to zero over the last fifth of the steps.

    **Cost**: `epochs * len(data)` forwards and twice as many backwards.
    **Source**: Nayebi & Ganguli 2017, arXiv:1703.09202 (penalty and complementary functions), through Brendel &
    Bethge 2017, arXiv:1704.01547. **Differs**: neither states strength, schedule or optimiser; these are ours.
    """

    epochs: int = 5
    learning_rate: float = 0.02
    average: float = 0.0
    pad: int = 0
    mirror: bool = False
    pull: float = 0.5
    alone: float = 0.25
    gain: float | None = 1.0

    hardens = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pull < float("inf"):
            raise UnusableInput(f"`Penalised` has pull={self.pull}; give 0 or a positive number")
        if not 0 <= self.alone <= 1:
            raise UnusableInput(f"`Penalised` has alone={self.alone}; give a share in [0, 1]")

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
        dtype = next(network.parameters()).dtype
        validation = None if validation is None else replace(validation, x=validation.x.double())
        network.double()
        try:
            return super().fit(
                network,
                data,
                threat,
                generator=generator,
                validation=validation,
                checkpoint=checkpoint,
                progress=progress,
            )
        finally:
            network.to(dtype)

    def _begin(self, network: nn.Module, threat: ThreatModel | None, generator: torch.Generator) -> Run:
        if not hidden_units(network):
            raise UnusableInput("`Penalised` found no nn.Sigmoid and no nn.ReLU in the network; use modules")
        if self.gain is not None:
            widen(network, self.gain, generator=generator)
        tiny = torch.finfo(torch.float64).tiny
        return Run(
            network,
            torch.optim.Adam(network.parameters(), eps=tiny),
            rate=lambda step: self.learning_rate,
            decay=self.average,
            generator=generator,
            compiled=self.compiled,
            processes=self.processes,
        )

    def set_aside(self, run: Run, data: Data) -> Data:
        run.state["steps"] = torch.tensor(max(1, len(data) // self.batch_size * self.passes))
        return data

    def rate(self, step: int, steps: int) -> float:
        return self.learning_rate * min(1.0, (1 - step / steps) / 0.2)

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        with penalties_of(run.network) as penalties:
            logits = run.logits(x.double())
        loss = nn.functional.cross_entropy(logits, y)
        learned = [p for p in run.network.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(loss, learned, retain_graph=True)
        pull = self.pull if run.done >= self.alone * int(run.state["steps"]) else 0.0
        pulls = torch.autograd.grad(torch.stack(penalties).sum(), learned, allow_unused=True)
        for p, slope, towards in zip(learned, slopes, pulls, strict=True):
            length = 0.0 if towards is None else float(towards.norm())
            p.grad = slope if not length else slope + pull * slope.norm() / length * towards
        run.update()
        return Seen(loss, logits)
