"""Transformations that shatter the gradient: with the exact gradient, and with BPDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from binarised import GreedyFlips, within_reach
from torch import Tensor

from unmask.attacks import APGD, MomentumPGD
from unmask.audit.records import clopper_pearson
from unmask.classifier import Classifier
from unmask.defenses import (
    JPEG,
    BitDepth,
    Composed,
    Defense,
    InputNoise,
    KWinners,
    LowRank,
    Median,
    NonLocalMeans,
    PixelDeflection,
    Preprocessing,
    Reformer,
    Thermometer,
    TotalVariation,
)
from unmask.gradients import BPDA, EOT, Exact, GradientEstimator, Smoothing
from unmask.gradients.learned import choose
from unmask.judge import judge
from unmask.objectives import Targeted, cross_entropy, margin
from unmask.randomness import Streams

Row = dict[str, Any]


def defences(bench: Any) -> dict[str, Callable[[], Defense]]:
    """Every transformation, with the paper's parameters where the networks bear them."""
    small = bench.data.x.shape[-1] < 32
    return {
        "bit depth, 1 bit" if small else "bit depth, 5 bits": partial(BitDepth, bits=1 if small else 5),
        "bit depth, 3 bits": partial(BitDepth, bits=3),
        "JPEG, quality 75": JPEG,
        "JPEG, quality 25": partial(JPEG, quality=25),
        "median, 2 x 2": Median,
        "median, 3 x 3": partial(Median, size=3),
        "thermometer, 16 levels": Thermometer,
        f"k winners, {100 * bench.share:.0f} %": partial(KWinners, share=bench.share),
        "low rank, half of the singular values": LowRank,
        "reformer": lambda: Reformer(autoencoder=bench.networks["reformer"]),
        "total variation": partial(TotalVariation, drop=0.0),
        "total variation, half of the pixels dropped": TotalVariation,
        "non-local means, 13-3-4": partial(NonLocalMeans, strength=4.0),
        "pixel deflection, 10 pixels": partial(PixelDeflection, deflections=10),
        "5 bits, median, non-local means": lambda: Composed((BitDepth(), Median(), NonLocalMeans())),
        "JPEG, then noise": lambda: Composed((JPEG(), InputNoise(sigma=0.03))),
    }


def rows(story: Any) -> dict[str, tuple[str, Callable[[], Row]]]:
    """One row for each defence and data set, the undefended network first."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    for bench in story.benches:
        plain = Subject(bench, lambda: None, story.seed)
        table[f"{bench.name}: undefended"] = ("-", plain.row)
        for name, make in defences(bench).items():
            subject = Subject(bench, make, story.seed)
            table[f"{bench.name}: {name}"] = ("essentially 0 %", subject.row)
    return table


@dataclass
class Subject:
    """One defence in front of one network."""

    bench: Any
    make: Callable[[], Defense | None]
    seed: int

    @cached_property
    def defense(self) -> Defense | None:
        """Made once its row is measured: a reformer has to be trained."""
        return self.make()

    @property
    def plain(self) -> Classifier:
        """The network, undefended."""
        own = {Thermometer: "thermometer", KWinners: "k_winners"}
        return Classifier(
            self.bench.networks[own.get(type(self.defense), "plain")],  # type: ignore[arg-type]
            deterministic=True,
        )

    def streams(self, tag: str, count: int) -> Streams:
        """The randomness of one part of the row."""
        return Streams.seeded(self.seed, self.bench.data.index[:count], tag)

    def row(self) -> Row:
        """Accuracies: clean, under the exact gradient, under each kind of BPDA, and per example the worst of all."""
        defended = self.plain if self.defense is None else self.defense.wrap(self.plain)
        estimators, agreement = self.estimators(defended)
        standing = Standing(self, defended)
        naive = standing.offer(APGD(steps=self.bench.steps, early_stop=defended.deterministic), "exact")
        left = {}
        for name, gradient in estimators.items():
            left[name] = standing.offer(self.attack(defended, gradient, self.bench.steps), name)
        # More effort on whatever is left, by each of the estimators; random defences are dear: by that which did best.
        if not defended.deterministic:
            estimators = {name: estimators[name] for name in sorted(left, key=left.__getitem__)[:1]}
        for name, gradient in estimators.items():
            for objective in (margin, cross_entropy):
                attack = self.longer(defended, gradient, objective)
                standing.offer(attack, f"{name}, again by {type(objective).__name__}", survivors=True)
            # Of a random defence's survivors, towards each wrong class: the nearest one changes from draw to draw.
            for ahead in range(1, 10) if not defended.deterministic else ():
                standing.towards(ahead, partial(self.longer, defended, gradient))
        reach = None
        if isinstance(self.defense, BitDepth) and self.defense.bits == 1:
            left["greedy flips"] = standing.offer(GreedyFlips(), "greedy flips")
            reach = float(
                within_reach(standing.x, self.bench.threat.epsilon).flatten(1).sum(1).float().mean()
            )
        worst = standing.final()
        count = self.bench.attacked
        return {
            "pixels_within_reach": reach,
            "what": "accuracy",
            "clean": self.clean(defended),
            "naive": naive,
            "bpda": left,
            "agreement": agreement,
            "value": worst,
            "interval": list(clopper_pearson(worst * count, count)),
            "images": count,
        }

    def clean(self, defended: Classifier) -> float:
        """Accuracy on clean test images."""
        count = min(self.bench.clean, len(self.bench.data))
        x, y = self.bench.data.x[:count], self.bench.data.y[:count]
        streams = self.streams("clean", count)
        right = 0
        for part in torch.arange(count).split(100):
            logits = defended.predict(x[part], generator=streams[part]).logits
            right += int((logits.argmax(1) == y[part]).sum())
        return right / count

    def estimators(self, defended: Classifier) -> tuple[dict[str, GradientEstimator], dict[str, Any]]:
        """The ways to follow the gradient, by name, and how well each stand-in's slope agrees."""
        if not isinstance(self.defense, Preprocessing):
            found: dict[str, GradientEstimator] = {}
            if isinstance(self.defense, KWinners):
                sigma = self.bench.threat.epsilon / 4
                found = {"ReLUs": BPDA(), "smoothed": Smoothing(sigma=sigma, draws=8)}
            elif isinstance(self.defense, Composed):
                found = {"identity": BPDA(same_values=True)}
            elif isinstance(self.defense, Reformer):
                found = {"exact gradient again": Exact()}  # it is a network: there is nothing to approximate
            return found, {}
        given = self.defense.stand_in
        choice = choose(
            self.defense.transformation(),
            self.bench.other,
            self.bench.threat.epsilon,
            generator=Streams.seeded(self.seed, torch.arange(len(self.bench.other)), "stand-ins"),
            given={} if given is None else {"given": given},
            steps=self.bench.training,
        )
        surrogates = {
            name: self.defense.with_stand_in(self.plain, stand_in).surrogate
            for name, stand_in in choice.candidates.items()
        }
        best_first = sorted(surrogates, key=lambda name: name != choice.name)
        agreement = {name: vars(choice.measured[name]) for name in best_first}
        return {name: BPDA(surrogates[name], same_values=True) for name in best_first}, agreement

    def attack(
        self, defended: Classifier, gradient: GradientEstimator, steps: int, objective: Any = cross_entropy
    ) -> Any:
        """APGD; for random networks momentum over two draws a step."""
        if defended.deterministic:
            return APGD(steps=steps, gradient=gradient, objective=objective)
        return MomentumPGD(
            steps=steps, gradient=EOT(gradient, draws=2), objective=objective, early_stop=False
        )

    def longer(self, defended: Classifier, gradient: GradientEstimator, objective: Any) -> Any:
        """Twice as many steps; for random networks five times as many, of a single draw each."""
        if defended.deterministic:
            return self.attack(defended, gradient, 2 * self.bench.steps, objective)
        return MomentumPGD(
            steps=5 * self.bench.steps, gradient=gradient, objective=objective, early_stop=False
        )


class Standing:
    """The worst point of each example so far, by a judgement on draws that no attack saw."""

    def __init__(self, subject: Subject, defended: Classifier):
        self.subject, self.defended = subject, defended
        count = subject.bench.attacked
        self.x, self.y = subject.bench.data.x[:count], subject.bench.data.y[:count]
        self.worst = self.x.clone()
        self.rate = self.failures(self.x, "clean")

    def failures(self, x_adv: Tensor, tag: str, forwards: int = 40) -> Tensor:
        """How often each point fools the deployed prediction, over about so many forwards of a random network."""
        threat = self.subject.bench.threat
        draws = max(1, forwards // self.defended.passes)
        streams = self.subject.streams(f"judge {tag}", len(self.x))
        verdict = judge(self.defended, x_adv, self.x, self.y, threat, draws=draws, generator=streams)
        assert bool(verdict.allowed.all())
        return verdict.failure_rate

    def offer(self, attack: Any, tag: str, *, survivors: bool = False) -> float:
        """Runs an attack, keeps what is worse than before; returns the accuracy that it leaves by itself."""
        chosen = (self.rate < 1).nonzero()[:, 0] if survivors else torch.arange(len(self.x))
        if not len(chosen):
            return 0.0
        x_adv = self.worst.clone()
        streams = self.subject.streams(f"attack {tag}", len(self.x))[chosen]
        threat = self.subject.bench.threat
        x_adv[chosen] = attack.run(self.defended, self.x[chosen], self.y[chosen], threat, generator=streams)
        rate = self.failures(x_adv, tag)
        better = rate > self.rate
        self.worst[better], self.rate = x_adv[better], torch.maximum(rate, self.rate)
        return 1 - float(rate.mean())

    def towards(self, ahead: int, attack: Callable[[Any], Any]) -> None:
        """Aims what is left at the class so many after its own."""
        chosen = (self.rate < 1).nonzero()[:, 0]
        targets = (self.y[chosen] + ahead) % 10
        self.offer(attack(Targeted(targets)), f"towards {ahead}", survivors=True)

    def final(self) -> float:
        """Accuracy at the worst points, on fresh draws."""
        return 1 - float(self.failures(self.worst, "final", forwards=80).mean())


def describe(row: Row) -> str:
    """One cell of the table."""
    ways = "".join(f"; {_way(name)} {100 * left:.1f} %" for name, left in row["bpda"].items())
    low, high = (100 * v for v in row["interval"])
    cosines = ", ".join(f"{name} {a['cosine']:.2f}" for name, a in row["agreement"].items())
    return (
        f"clean {100 * row['clean']:.1f} %; exact gradient {100 * row['naive']:.1f} %{ways}; "
        f"**worst {100 * row['value']:.1f} %** [{low:.1f}, {high:.1f}]"
        + (f" (cosines: {cosines})" if cosines else "")
    )


def _way(name: str) -> str:
    return name if name in ("greedy flips", "smoothed", "exact gradient again") else f"BPDA by {name}"
