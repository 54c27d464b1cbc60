"""Stochastic activation pruning: evaluated wrongly, attacked wrongly, attacked rightly.

Every row of the table is one function below. `unmask reproduce sap` runs them; each is saved as it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from unmask.attacks import PGD
from unmask.audit.records import clopper_pearson
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import SAP
from unmask.gradients import BPDA, Exact, GradientEstimator
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import Standard
from unmask.zoo import CNN, ResNet20

WEIGHTS = Path(__file__).with_name("weights") / "resnet20_cifar10_jpeg.safetensors"
EPSILON = 0.031
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured: numbers of images, passes of the claim, steps.

    **Fields**
    - `clean`, `single`, `mean`: images for the clean accuracy of the network, of one pass, of the mean.
    - `attacked`, `fewer`: images for the attacks on one pass or by BPDA, and for the other ones; `curve`: images for
      the curve over `iterations`.
    """

    clean: int
    single: int
    mean: int
    attacked: int
    fewer: int
    curve: int
    passes: int
    steps: int
    iterations: tuple[int, ...]
    epsilon: float


FULL = Scale(10_000, 1000, 100, 100, 50, 16, 100, 60, (10, 100, 1000, 10_000), EPSILON)
QUICK = Scale(500, 500, 200, 100, 100, 50, 30, 40, (10, 100), 0.2)


class Story:
    """The network, the data and every way of looking at them.

    **Arguments**
    - `quick`: a small network on digits, trained in seconds, at a radius of 0.2; else ResNet-20 on CIFAR-10 (JPEG).
    """

    def __init__(self, quick: bool, seed: int):
        self.scale = QUICK if quick else FULL
        self.seed = seed
        data = load("digits" if quick else "cifar10", split="test")
        self.x, self.y = data.x, data.y
        self.network = _digits_network() if quick else _resnet20()
        self.vanilla = Classifier(self.network, deterministic=True)
        shift = Streams.seeded(seed, data.index, "targets").integers(1, 10)
        self.targets = (self.y + shift) % 10

    def sap(self, ratio: float, *, passes: int | None = None, sampler: Any = "multinomial") -> Classifier:
        """SAP around the network; a mean over the paper's passes unless told otherwise."""
        passes = self.scale.passes if passes is None else passes
        return SAP(ratio=ratio, sampler=sampler, passes=passes).wrap(self.vanilla)

    def streams(self, tag: str, count: int) -> Streams:
        """The randomness of one row."""
        return Streams.seeded(self.seed, torch.arange(count), tag)

    def clean(self, classifier: Classifier, count: int) -> Row:
        """Accuracy on the first `count` test images."""
        x, y = self.x[:count], self.y[:count]
        right = 0
        for part in torch.arange(len(x)).split(100):
            streams = self.streams("clean", len(x))[part]
            right += int((classifier.predict(x[part], generator=streams).logits.argmax(1) == y[part]).sum())
        return share(right, len(x), "accuracy")

    def attack(
        self,
        crafted_on: Classifier,
        judged_on: Classifier,
        gradient: GradientEstimator,
        *,
        steps: int,
        count: int,
        targeted: bool,
    ) -> Row:
        """Accuracy, or targeted success, after PGD on one classifier and fresh draws of another."""
        x = self.x[:count]
        y = (self.targets if targeted else self.y)[:count]
        threat = Linf(epsilon=self.scale.epsilon, goal="targeted" if targeted else "untargeted")
        attack = PGD(steps=steps, rel_step_size=max(0.02, 2.5 / steps), gradient=gradient, early_stop=False)
        hits, right = 0.0, 0
        for part in torch.arange(len(x)).split(50):
            streams = self.streams("attack", len(x))[part]
            x_adv = attack.run(crafted_on, x[part], y[part], threat, generator=streams)
            fresh = self.streams("judge", len(x))[part]
            verdict = judge(judged_on, x_adv, x[part], y[part], threat, generator=fresh)
            assert bool(verdict.allowed.all())
            hits += float(verdict.failure_rate.sum())
            right += int((verdict.prediction == self.y[part]).sum())
        if targeted:
            return {**share(round(hits), len(x), "targeted success"), "accuracy": right / len(x)}
        return share(len(x) - round(hits), len(x), "accuracy")

    def cost(self) -> Row:
        """Processor time of one forward pass of SAP as a multiple of the network's own."""
        x, rounds = self.x[:50], 5
        times = {}
        contenders = {
            "vanilla": self.vanilla,
            "multinomial": self.sap(1.0),
            "bernoulli": self.sap(1.0, sampler="bernoulli"),
        }
        for name, classifier in contenders.items():
            spent = []
            for n in range(rounds + 1):  # the first one warms up
                began = time.process_time()
                with torch.no_grad():
                    classifier(x, generator=self.streams(f"cost {n}", len(x)))
                spent.append(time.process_time() - began)
            times[name] = sorted(spent[1:])[rounds // 2] / len(x)
        return {
            "what": "processor time beside one vanilla forward",
            "milliseconds": {name: 1000 * t for name, t in times.items()},
            "ratio": {name: times[name] / times["vanilla"] for name in ("multinomial", "bernoulli")},
        }


def share(count: int, total: int, what: str) -> Row:
    """A proportion with its exact 95 % interval."""
    low, high = clopper_pearson(count, total)
    return {"what": what, "value": count / total, "interval": [low, high], "images": total}


def _resnet20() -> nn.Module:
    network = ResNet20()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def _digits_network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = CNN(8)
    recipe = Standard(epochs=15, batch_size=32, learning_rate=0.1, pad=1, mirror=False)
    recipe.fit(network, load("digits", split="train"), None, generator=torch.Generator().manual_seed(0))
    return network


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, the published figure, and how to measure ours. Dear ones last."""
    s = story.scale
    bernoulli = story.sap(1.0, passes=1, sampler="bernoulli")
    judged = story.sap(1.0)
    doubled = story.sap(2.0, passes=1, sampler="bernoulli")
    attacked = {"steps": s.steps, "count": s.attacked}
    fewer = {"steps": s.steps, "count": s.fewer}
    table: dict[str, tuple[str, Callable[[], Row]]] = {
        "clean, vanilla network": ("-", lambda: story.clean(story.vanilla, s.clean)),
        "cost of one forward": ("-", story.cost),
        "clean, SAP r = 1x, one pass": ("-", lambda: story.clean(story.sap(1.0, passes=1), s.single)),
        "clean, SAP r = 2x, one pass": (
            "about 83 % (the flawed re-implementation)",
            lambda: story.clean(story.sap(2.0, passes=1), s.single),
        ),
        f"clean, SAP r = 1x, mean of {s.passes}": (
            "about 83 %",
            lambda: story.clean(story.sap(1.0), s.mean),
        ),
        "flawed evaluation: r = 2x, one pass, exact gradient": (
            "no better than undefended",
            lambda: story.attack(doubled, doubled, Exact(), targeted=False, **attacked),
        ),
        "BPDA through the vanilla network, r = 1x": (
            "0.1 % ± 0.05",
            lambda: story.attack(bernoulli, judged, BPDA(), targeted=False, **attacked),
        ),
        "transfer from the vanilla network, targeted": (
            "70 % success",
            lambda: story.attack(story.vanilla, judged, Exact(), targeted=True, **fewer),
        ),
        "no BPDA, exact gradient, untargeted": (
            "not effective, about 83 % stays",
            lambda: story.attack(bernoulli, judged, Exact(), targeted=False, **fewer),
        ),
    }

    def without_bpda(n: int) -> Callable[[], Row]:
        return lambda: story.attack(bernoulli, judged, Exact(), targeted=True, steps=n, count=s.curve)

    for n in s.iterations[:-1]:
        table[f"no BPDA, targeted, {n:,} iterations"] = ("below 50 % success", without_bpda(n))
    table["BPDA through the vanilla network, targeted"] = (
        "-",
        lambda: story.attack(bernoulli, judged, BPDA(), targeted=True, **fewer),
    )
    table[f"clean, SAP r = 2x, mean of {s.passes}"] = ("-", lambda: story.clean(story.sap(2.0), s.mean))
    last = s.iterations[-1]
    table[f"no BPDA, targeted, {last:,} iterations"] = ("below 50 % success", without_bpda(last))
    return table


def describe(row: Row) -> str:
    """One cell of the table."""
    if "ratio" in row:
        return ", ".join(f"{name} {ratio:.1f} x" for name, ratio in row["ratio"].items())
    low, high = (100 * v for v in row["interval"])
    return f"{100 * row['value']:.1f} % {row['what']} [{low:.1f}, {high:.1f}]"
