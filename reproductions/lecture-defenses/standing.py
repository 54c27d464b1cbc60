"""The worst point of each example so far, and how far out lies the one that a defence takes from the attacker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unmask.classifier import Classifier
from unmask.judge import judge
from unmask.objectives import Targeted
from unmask.worst_case import WorstCase

WIDER = (9 / 8, 5 / 4, 3 / 2, 2, 3)  # times epsilon


class Standing:
    """The worst point of each example so far, by a judgement on draws that no attack saw."""

    def __init__(self, subject: Any, defended: Classifier):
        self.subject, self.defended = subject, defended
        count = subject.bench.attacked
        self.x, self.y = subject.bench.data.x[:count], subject.bench.data.y[:count]
        self.threat = subject.bench.threat
        self.worst = WorstCase(self.x)
        self.worst.offer(torch.arange(count), self.x, self.failures(self.x, "clean"))

    @property
    def rate(self) -> Tensor:
        """How often the worst points fool."""
        return self.worst.value

    def failures(
        self, x_adv: Tensor, tag: str, chosen: Tensor | slice = slice(None), forwards: int = 40
    ) -> Tensor:
        """How often each point fools the deployed prediction, over about so many forwards of a random network.

        `x_adv` holds the chosen examples alone.
        """
        draws = max(1, forwards // self.defended.passes)
        streams = self.subject.streams(f"judge {tag}", len(self.x))[chosen]
        x, y = self.x[chosen], self.y[chosen]
        verdict = judge(self.defended, x_adv, x, y, self.threat, draws=draws, generator=streams)
        assert bool(verdict.allowed.all())
        return verdict.failure_rate

    def offer(self, attack: Any, tag: str, *, survivors: bool = False) -> float:
        """Runs an attack, keeps what is worse than before; returns the accuracy that it leaves by itself.

        Of survivors alone: what it leaves of all, where those that fell before stay fallen.
        """
        chosen = (self.rate < 1).nonzero()[:, 0] if survivors else torch.arange(len(self.x))
        if not len(chosen):
            return 0.0
        streams = self.subject.streams(f"attack {tag}", len(self.x))[chosen]
        x_adv = attack.run(self.defended, self.x[chosen], self.y[chosen], self.threat, generator=streams)
        rate = self.failures(x_adv, tag, chosen)
        self.worst.offer(chosen, x_adv, rate)
        return float((1 - rate).sum()) / len(self.x)

    def towards(self, ahead: int, attack: Callable[[Any], Any]) -> None:
        """Aims what is left at the class so many after its own."""
        chosen = (self.rate < 1).nonzero()[:, 0]
        targets = (self.y[chosen] + ahead) % 10
        self.offer(attack(Targeted(targets)), f"towards {ahead}", survivors=True)

    def final(self) -> Tensor:
        """How often each worst point fools, on fresh draws."""
        return self.failures(self.worst.x_adv, "final", forwards=80)

    def falls_at(self, rate: Tensor, attack: Any) -> dict[int, dict[str, float | None]]:
        """Of each image that the defence keeps: how often, and at which larger epsilon of `WIDER` it falls (or None).

        It falls where more than half of its predictions are fooled: a boundary that has moved lies a little farther
        out, whereas a gradient that misleads does so at any distance.
        """
        kept = (rate <= 0.5).nonzero()[:, 0]
        found: dict[int, dict[str, float | None]] = {
            int(place): {"accuracy": 1 - float(rate[place]), "falls_at": None} for place in kept
        }
        for factor in WIDER:
            if not len(kept):
                break
            self.threat = replace(
                self.subject.bench.threat, epsilon=factor * self.subject.bench.threat.epsilon
            )
            streams = self.subject.streams(f"wider {factor}", len(self.x))[kept]
            x_adv = attack.run(self.defended, self.x[kept], self.y[kept], self.threat, generator=streams)
            fell = self.failures(x_adv, f"wider {factor}", kept) > 0.5
            for place in kept[fell]:
                found[int(place)]["falls_at"] = self.threat.epsilon
            kept = kept[~fell]
        self.threat = self.subject.bench.threat
        return found
