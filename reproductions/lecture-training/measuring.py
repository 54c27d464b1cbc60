"""Accuracy of a trained network, and how a row of the table says it."""

from __future__ import annotations

from typing import Any

from torch import nn

from unmask.attacks import APGD, Attack
from unmask.classifier import Classifier
from unmask.data import Data
from unmask.judge import judge
from unmask.objectives import dlr
from unmask.randomness import Streams
from unmask.statistics import clopper_pearson
from unmask.threat import ThreatModel

Row = dict[str, Any]
ATTACKS: tuple[Attack, ...] = (APGD(steps=50), APGD(steps=50, objective=dlr))


def measured(network: nn.Module, data: Data, threat: ThreatModel, *, seed: int) -> Row:
    """Clean accuracy, and the worst over two attacks that no recipe trained against."""
    classifier = Classifier(network, deterministic=True)
    streams = Streams.seeded(seed, data.index, "measured")
    stands = classifier.predict(data.x, generator=streams).logits.argmax(1) == data.y
    clean = int(stands.sum())
    for attack in ATTACKS:
        left = stands.nonzero()[:, 0]
        if len(left):
            x, y, own = data.x[left], data.y[left], streams[left]
            x_adv = attack.run(classifier, x, y, threat, generator=own)
            stands[left] = judge(classifier, x_adv, x, y, threat, generator=own).failure_rate == 0
    return accuracy(clean, int(stands.sum()), len(data))


def accuracy(clean: int, robust: int, total: int) -> Row:
    """Two proportions of the same images; the robust one with its exact 95 % interval."""
    low, high = clopper_pearson(robust, total)
    return {"clean": clean / total, "robust": robust / total, "interval": [low, high], "images": total}


def describe(row: Row) -> str:
    """One cell of the table."""
    if "ratio" in row:
        return f"{row['ratio']:.1f} x standard training"
    if "needed" in row:
        return f"{row['needed']:.0f} = {row['factor']:.2f} log(1/delta)/eta^2"
    if "exact" in row:
        return f"{100 * row['exact']:.1f} %"
    if "rates" in row:
        tried = ", ".join(f"{100 * right:.1f} % at {rate}" for rate, right in row["rates"].items())
        return f"{row['rate']:g} ({tried})"
    low, high = (100 * v for v in row["interval"])
    if "masking" in row:
        masking = ", ".join(row["masking"]) or "none"
        return (
            f"standard attack {100 * row['naive']:.0f} %, all attacks {100 * row['robust']:.0f} % "
            f"[{low:.0f}, {high:.0f}], masking: {masking}"
        )
    said = f"clean {100 * row['clean']:.1f} %, robust {100 * row['robust']:.1f} % [{low:.1f}, {high:.1f}]"
    if "seeds" in row:
        said += f" over {row['seeds']} seeds"
    if "training_seconds" in row:
        spent = row["training_seconds"]
        said += f", training {spent:.0f} s" if spent >= 10 else f", training {spent:.1f} s"
    for event in row.get("events", ()):
        said += f", the guard acted at {event.partition(':')[0]}"
    return said
