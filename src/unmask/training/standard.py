"""Plain training: the undefended network that every defence is compared with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..classifier import seeded
from ..data import Data
from ..errors import UnusableInput
from ..threat import ThreatModel
from .base import Epoch, History, Trainer, load_checkpoint, save_checkpoint

Images = Float[Tensor, "batch channels height width"]


def shifted(x: Images, pad: int, *, generator: torch.Generator) -> Images:
    """Each image moved by up to `pad` pixels both ways, its border reflected."""
    padded = nn.functional.pad(x, (pad,) * 4, mode="reflect")
    batch, channels, height, width = x.shape
    top = torch.randint(2 * pad + 1, (batch, 1), generator=generator)
    left = torch.randint(2 * pad + 1, (batch, 1), generator=generator)
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    return padded[
        torch.arange(batch)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns
    ]


def mirrored(x: Images, *, generator: torch.Generator) -> Images:
    """Half of the images, left and right exchanged."""
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, x.flip(3), x)


@dataclass(frozen=True, kw_only=True)
class Standard(Trainer):
    """Cross-entropy by SGD with Nesterov momentum, one cycle of the learning rate, averaged weights.

    **Fields**
    - `epochs`, `batch_size`: the last, incomplete batch of an epoch is left out.
    - `learning_rate`: at its peak; it rises linearly over `warmup` (a share of all steps) and falls to zero by a
      cosine.
    - `momentum`, `weight_decay`: of SGD; gains and biases are not decayed.
    - `average`: decay per step of the exponential moving average of weights and batch statistics, which is what
      the network holds in the end.
    - `pad`: largest shift of the augmentation, in pixels; 0 for none.
    - `mirror`: also mirror half of the images; wrong for digits and letters.
    - `half`: bfloat16 forward and backward passes, float32 weights.
    - `compiled`: by `torch.compile`, a minute in advance.

    **Cost**: `epochs * len(data)` forwards and backwards.
    **Source**: He et al. 2016, arXiv:1512.03385 (augmentation, momentum); Smith & Topin 2019, arXiv:1708.07120
    (one cycle). **Differs**: cosine instead of two linear pieces; label smoothing is left out on purpose, for it
    masks gradients.
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
    half: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UnusableInput(f"`Standard` has {name}={getattr(self, name)}; give at least 1")

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
        """As `Trainer.fit`; `threat` is not used."""
        steps = len(data) // self.batch_size
        if not steps:
            raise UnusableInput(
                f"`Standard` has batch_size={self.batch_size}, but there are {len(data)} examples"
            )
        device = next(network.parameters()).device
        network.train()
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others}],
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
        )
        mean = {name: t.detach().clone() for name, t in network.state_dict().items()}
        history = History()
        if checkpoint is not None and checkpoint.exists():
            groups, history = load_checkpoint(checkpoint)
            network.load_state_dict(groups["network"])
            mean = {name: t.to(device) for name, t in groups["mean"].items()}
            for n, buffer in groups.get("momentum", {}).items():  # there is none without momentum
                optimizer.state[(*decayed, *others)[int(n)]]["momentum_buffer"] = buffer.to(device)
            generator.set_state(groups["generator"]["state"])
        forward = torch.compile(network) if self.compiled else network
        seed = int(
            torch.randint(2**62, (), generator=torch.Generator().manual_seed(generator.initial_seed()))
        )
        while len(history.epochs) < self.epochs:
            done = len(history.epochs)
            with seeded(seed + done, device):  # dropout and the like of the network itself
                epoch = self._epoch(forward, network, optimizer, mean, data, done * steps, generator)
            history.epochs.append(epoch)
            if checkpoint is not None:
                momentum = {
                    str(n): optimizer.state[p]["momentum_buffer"]
                    for n, p in enumerate((*decayed, *others))
                    if self.momentum
                }
                groups = {
                    "network": network.state_dict(),
                    "mean": mean,
                    "momentum": momentum,
                    "generator": {"state": generator.get_state()},
                }
                save_checkpoint(checkpoint, groups, history)
            if progress is not None:
                progress(history)
        network.load_state_dict(mean)
        network.eval()
        return history

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of all `steps`."""
        place = (step + 1) / steps
        if place < self.warmup:
            return self.learning_rate * place / self.warmup
        return self.learning_rate * (1 + math.cos(math.pi * (place - self.warmup) / (1 - self.warmup))) / 2

    def _epoch(
        self,
        forward: Callable[[Tensor], Tensor],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        mean: dict[str, Tensor],
        data: Data,
        step: int,
        generator: torch.Generator,
    ) -> Epoch:
        began = time.perf_counter()
        device = next(network.parameters()).device
        steps = len(data) // self.batch_size
        total, right = torch.zeros((), device=device), torch.zeros((), device=device)
        for part in torch.randperm(len(data), generator=generator)[: steps * self.batch_size].split(
            self.batch_size
        ):
            x, y = data.x[part], data.y[part].to(device)
            if self.pad:
                x = shifted(x, self.pad, generator=generator)
            if self.mirror:
                x = mirrored(x, generator=generator)
            x = x.to(device, memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step, steps * self.epochs)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
                logits = forward(x)
            loss = nn.functional.cross_entropy(logits.float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            # An average over all the past would remember the first weights: short at first, then as asked for.
            decay = min(self.average, step / (step + 9))
            with torch.no_grad():
                for name, t in network.state_dict().items():
                    if t.is_floating_point():
                        mean[name].lerp_(t, 1 - decay)
                    else:
                        mean[name].copy_(t)
                total += loss
                right += (logits.argmax(1) == y).sum()
        accuracy = float(right) / (steps * self.batch_size)
        return Epoch(float(total) / steps, accuracy, time.perf_counter() - began)
