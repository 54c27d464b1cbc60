"""A finished audit of a linear classifier of digits, by hand: the best attack has a closed form."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from unmask.audit.evidence import Evidence, hash_images, write_evidence
from unmask.audit.records import (
    AttackRecord,
    Cost,
    Environment,
    MaskingFinding,
    Report,
    ThreatRecord,
)
from unmask.audit.verdict import verdict
from unmask.data import Data, load
from unmask.report.json import write_json
from unmask.statistics import clopper_pearson
from unmask.target.load import build, checkpoint_hash
from unmask.threat import Linf

TARGET = """\
import random
import torch
from torch import nn
from unmask.data import load


class NearestMean(nn.Module):
    def __init__(self):
        super().__init__()
        data = load("digits", split="train")
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data = 2 * means
        self.linear.bias.data = -(means**2).sum(1)

    def forward(self, x):
        return self.linear(x.flatten(1))


class Coin(nn.Module):
    "Answers at random, right with probability 0.6 whatever the input."

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        logits = self.inner(x)
        lie = torch.rand(len(x)) < 0.4
        return torch.where(lie[:, None], -logits, logits)


def linear():
    return NearestMean().eval()


def coin():
    return Coin(NearestMean()).eval()


def broken():
    raise RuntimeError("no weights here\\nand a second line")


def needs(width, depth=3):
    return NearestMean()


def number():
    return 3


def deep():
    return needs_more()


def needs_more():
    raise KeyError("layer7")


SIZE = 3


class Minus(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return -self.inner(x)


class MinusMinus(NearestMean):
    "The same function; what its field of that name holds is another."

    def __init__(self):
        super().__init__()
        self.network = Minus(nn.Sequential(nn.Flatten(), self.linear))

    def forward(self, x):
        return -self.network(x)


def with_a_network():
    return MinusMinus().eval()
"""
EPSILON, EXAMPLES = 0.1, 40


def write_target(folder: Path) -> Path:
    file = folder / "nearest_mean.py"
    file.write_text(TARGET)
    return file


def best_linear_attack(network: torch.nn.Module, data: Data, threat: Linf) -> tuple[Tensor, Tensor]:
    """For a linear classifier and L-infinity, the sign of the weight difference is optimal."""
    weight = network.linear.weight.detach()  # type: ignore[union-attr]
    best, best_margin = data.x.clone(), torch.full((len(data),), torch.inf)
    for c in range(10):
        direction = (weight[c] - weight[data.y]).sign().reshape(data.x.shape)
        x_adv = threat.settle(data.x + threat.epsilon * direction, data.x)
        logits = network(x_adv).detach()
        margin = logits.gather(1, data.y[:, None])[:, 0] - logits[:, c]
        margin = margin.masked_fill(data.y == c, torch.inf)
        better = margin < best_margin
        best[better], best_margin[better] = x_adv[better], margin[better]
    return best, best_margin < 0


def small_audit(folder: Path, spec: str, *, claim: float | None = 0.9, data: Data | None = None) -> Report:
    """Writes what a sound audit of `…:linear` would."""
    data = load("digits", examples=EXAMPLES) if data is None else data
    network, _ = build(spec)
    threat = Linf(epsilon=EPSILON)
    x_adv, broken = best_linear_attack(network, data, threat)
    wrong = network(data.x).argmax(1) != data.y
    x_adv[wrong] = data.x[wrong]
    return write_audit(
        folder,
        spec,
        data,
        x_adv,
        (broken | wrong).double(),
        network,
        clean=1 - wrong.double().mean().item(),
        claim=claim,
    )


def write_audit(
    folder: Path,
    spec: str,
    data: Data,
    x_adv: Tensor,
    rates: Tensor,
    network: torch.nn.Module,
    *,
    clean: float,
    claim: float | None,
    passes: int = 1,
    draws: int = 1,
    stochastic: bool = False,
) -> Report:
    kept = rates > 0
    record = ThreatRecord(norm="linf", epsilon=EPSILON)
    evidence = Evidence(
        x_adv=x_adv[kept],
        index=data.index[kept],
        label=data.y[kept],
        prediction=network(x_adv[kept]).argmax(1),
        failure_rate=rates[kept],
        originals=hash_images(data.x[kept]),
        threat=record,
        data=data.name,
        split=data.split,
        target=spec,
        checkpoint_hash=checkpoint_hash(network),
        passes=passes,
        draws=draws,
    )
    write_evidence(folder, evidence)
    robust = 1 - rates.sum().item() / len(data)
    interval = clopper_pearson(robust * len(data), len(data))
    report = Report(
        verdict=verdict(claim=claim, interval=interval),
        claim=claim,
        threat=record,
        examples=len(data),
        sample_seed=data.sample_seed,
        clean_accuracy=clean,
        robust_accuracy=robust,
        robust_accuracy_interval=interval,
        naive_robust_accuracy=clean,
        attacks=[
            AttackRecord(
                recipe="closed form",
                robust_accuracy=robust,
                newly_broken=3,
                forwards=1,
                backwards=0,
                seconds=0.1,
            )
        ],
        masking=[
            MaskingFinding(
                mechanism="shattered",
                symptom="made up for the tests",
                operation="torch.round",
                file=spec.rpartition(":")[0],
                line=7,
                code="class NearestMean(nn.Module):",
            )
        ],
        cost=Cost(forwards=400, backwards=0, judge_forwards=40, seconds=0.2),
        environment=Environment(
            versions={"unmask": "0"},
            device="cpu",
            seed=0,
            batch_size=16,
            checkpoint_hash=checkpoint_hash(network),
        ),
        target=spec,
        data=data.name,
        split=data.split,
        passes=passes,
        stochastic=stochastic,
    )
    write_json(folder, report)
    return report
