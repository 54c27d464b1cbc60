"""Transformations that shatter the gradient: with the exact gradient, and with BPDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from binarised import GreedyFlips, within_reach
from standing import Standing

from unmask.attacks import APGD, MomentumPGD
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
from unmask.objectives import cross_entropy, margin_loss
from unmask.randomness import Streams
from unmask.statistics import clopper_pearson

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
            for objective in (margin_loss, cross_entropy):
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
        rate = standing.final()
        best = min(estimators, key=left.__getitem__, default=None)
        kept = {}
        if best is not None:
            kept = standing.falls_at(rate, self.longer(defended, estimators[best], margin_loss))
        worst = 1 - float(rate.mean())
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
            "kept": kept,
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
        """The ways to follow the gradient, by name, and how well each surrogate's slope agrees."""
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
        given = self.defense.surrogate
        choice = choose(
            self.defense.transformation(),
            self.bench.other,
            self.bench.threat.epsilon,
            generator=Streams.seeded(self.seed, torch.arange(len(self.bench.other)), "stand-ins"),
            given={} if given is None else {"given": given},
            steps=self.bench.training,
        )
        surrogates = {
            name: self.defense.with_surrogate(self.plain, surrogate).surrogate
            for name, surrogate in choice.candidates.items()
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
