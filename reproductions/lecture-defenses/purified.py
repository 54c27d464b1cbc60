"""Reconstruction by a generative model: the break by hand, and the audit that is told nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import targets
from standing import Standing

from unmask.attacks import APGD, MomentumPGD
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.gradients import BPDA, EOT, GradientEstimator
from unmask.objectives import cross_entropy, margin_loss
from unmask.randomness import Streams
from unmask.reproducing.request import Request
from unmask.statistics import clopper_pearson
from unmask.threat import Linf

Row = dict[str, Any]
CLAIM = 0.8  # below what the standard attack leaves of either: what its authors would state
PUBLISHED = {
    "projection": "55 % left on MNIST in L2, by BPDA (Athalye et al. 2018, section 5.4)",
    "diffusion": "-",
}


@dataclass(frozen=True)
class Bench:
    """Digits, in both modes: an audit takes minutes of one core.

    **Fields**
    - `attacked`: test images, a stratified sample by the seed, as `unmask audit` takes it.
    - `steps`: of each attack by hand.
    """

    data: Data
    threat: Linf
    attacked: int = 64
    steps: int = 40


def bench(request: Request) -> Bench:
    """As many images and steps as are asked for; of quick mode, few."""
    scale = Bench(load("digits", split="test"), Linf(epsilon=0.2))
    if request.quick:
        scale = replace(scale, attacked=24, steps=20)
    scale = request.scaled(scale, examples=("attacked",), steps=("steps",))
    data = load("digits", split="test", examples=scale.attacked, seed=request.seed)
    return replace(scale, data=data)


def rows(story: Any) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Two rows for each purifier: by hand, and the audit."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    for name in targets.DEFENCES:
        subject = Subject(story.purified, name, story.seed)
        table[f"digits, purifier: {name}"] = PUBLISHED[name], subject.by_hand
        table[f"digits, purifier: {name}, audit"] = "-", partial(told_nothing, subject)
    return table


@dataclass
class Subject:
    """One purifier in front of the network."""

    bench: Bench
    name: str
    seed: int

    def streams(self, tag: str, count: int) -> Streams:
        """The randomness of one part of the row."""
        return Streams.seeded(self.seed, self.bench.data.index[:count], tag)

    def by_hand(self) -> Row:
        """By the exact gradient; with the identity for the purifier; through all of its steps, in several ways."""
        plain = Classifier(targets.plain(), deterministic=True)
        defense = targets.DEFENCES[self.name]
        defended = defense.wrap(plain)
        identity = BPDA(defense.with_surrogate(plain, None).surrogate, same_values=True)
        through = BPDA(same_values=True)
        standing = Standing(self, defended)
        clean = 1 - float(standing.rate.mean())
        naive = standing.offer(APGD(steps=self.bench.steps, early_stop=False), "exact")
        left = {}
        for name, gradient in {"identity": identity, "unrolled": through}.items():
            left[name] = standing.offer(self.attack(gradient), name)
            left[f"{name}, margin"] = standing.offer(self.attack(gradient, margin_loss), f"{name}, margin")
        for ahead in range(1, 10):
            standing.towards(ahead, partial(self.attack, through))
        for objective in (margin_loss, cross_entropy):
            attack = MomentumPGD(
                steps=self.bench.steps,
                gradient=EOT(through, draws=8),
                objective=objective,
                early_stop=False,
            )
            standing.offer(attack, f"momentum by {type(objective).__name__}", survivors=True)
        value = 1 - float(standing.final().mean())
        count = self.bench.attacked
        return {
            "what": "accuracy",
            "clean": clean,
            "naive": naive,
            "bpda": left,
            "value": value,
            "interval": list(clopper_pearson(value * count, count)),
            "images": count,
        }

    def attack(self, gradient: GradientEstimator, objective: Any = cross_entropy) -> Any:
        """APGD over four draws a step."""
        return APGD(
            steps=self.bench.steps, gradient=EOT(gradient, draws=4), objective=objective, early_stop=False
        )


def told_nothing(subject: Subject) -> Row:
    """`unmask audit` of the module alone, with a claim."""
    began = time.process_time()
    network = getattr(targets, subject.name)()
    claim = claim_about(subject.bench.threat, claim=CLAIM, exhaustive=True, budget="quick", seed=subject.seed)
    report = audit(network, subject.bench.data, claim)
    return {
        "what": "accuracy that the audit leaves",
        "clean": report.clean_accuracy,
        "naive": report.naive_robust_accuracy,
        "value": report.robust_accuracy,
        "interval": list(report.robust_accuracy_interval),
        "images": report.examples,
        "verdict": report.verdict,
        "claim": CLAIM,
        "found": [{"mechanism": f.mechanism, "line": f.code, "repair": f.repair} for f in report.masking],
        "processor_seconds": time.process_time() - began,
    }


def describe(row: Row) -> str:
    """One cell of the table."""
    low, high = (100 * v for v in row["interval"])
    if "verdict" in row:
        found = "; ".join(f"{f['mechanism']} at `{f['line']}`" for f in row["found"])
        return (
            f"claim {100 * row['claim']:.0f} % {row['verdict']}: standard attack {100 * row['naive']:.1f} %, "
            f"**{100 * row['value']:.1f} % left** [{low:.1f}, {high:.1f}] of {row['images']}; {found}; "
            f"{row['processor_seconds']:.0f} processor seconds"
        )
    ways = "; ".join(f"{name} {100 * left:.1f} %" for name, left in row["bpda"].items())
    return (
        f"clean {100 * row['clean']:.1f} %; exact gradient {100 * row['naive']:.1f} %; {ways}; "
        f"**worst {100 * row['value']:.1f} %** [{low:.1f}, {high:.1f}] of {row['images']}"
    )
