"""Saturated networks: FGSM on the exact gradient, and on the gradient at reduced gain.

Every row of the table is one function below. `unmask reproduce saturation` runs them; each is saved as it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from unmask.attacks import FGSM
from unmask.audit.records import clopper_pearson
from unmask.classifier import Classifier
from unmask.data import load
from unmask.gradients import Exact, GradientEstimator, LogitScale, ReducedGain
from unmask.judge import judge
from unmask.objectives import cross_entropy
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import Saturated
from unmask.zoo import MLP

WEIGHTS = Path(__file__).with_name("weights") / "relu_mnist.safetensors"
EPSILON = 0.25  # the comment states none; Goodfellow et al. 2015 use this one on MNIST
GAINS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
MEASURED_ON = 200  # training images on which the gain is chosen
DIGITS = {
    "relu": Saturated(epochs=20, batch_size=64, gain=12.0, reach=1.0, first_strength=1e-7, strength=1e-5),
    "sigmoid": Saturated(epochs=60, batch_size=64),
}
Row = dict[str, Any]


class Saturation:
    """One saturated network and what FGSM makes of it."""

    def __init__(self, activation: str, quick: bool, seed: int):
        self.activation, self.quick, self.seed = activation, quick, seed
        self.threat = Linf(epsilon=EPSILON)
        self.name = "digits" if quick else "mnist"

    @cached_property
    def classifier(self) -> Classifier:
        kind = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[self.activation]
        if self.quick:
            network = MLP((64, 50, 50, 50, 10), activation=kind)
            seeded = torch.Generator().manual_seed(self.seed)
            DIGITS[self.activation].fit(network, load("digits", split="train"), None, generator=seeded)
        else:
            network = MLP((784, 200, 200, 200, 10), activation=kind)
            network.load_state_dict(load_file(WEIGHTS))
        return Classifier(network.eval(), deterministic=True)

    @cached_property
    def data(self) -> Any:
        return load(self.name, split="test")

    def estimator(self, gain: float) -> GradientEstimator:
        """Reduced gain inside a sigmoid network; a scaled read-out for ReLU."""
        if gain == 1.0:
            return Exact()
        return ReducedGain(gain) if self.activation == "sigmoid" else LogitScale(scale=gain)

    @cached_property
    def gain(self) -> float:
        """The gain that leaves least accuracy on a few training images."""
        few = load(self.name, split="train", examples=MEASURED_ON)
        return min(GAINS, key=lambda gain: self.right(gain, few).sum())

    def right(self, gain: float, data: Any) -> torch.Tensor:
        """Which images FGSM leaves right, judged on the network itself."""
        attack, parts = FGSM(gradient=self.estimator(gain)), []
        for part in torch.arange(len(data)).split(500):
            x, y = data.x[part], data.y[part]
            streams = Streams.seeded(self.seed, data.index[part], "fgsm")
            x_adv = attack.run(self.classifier, x, y, self.threat, generator=streams)
            verdict = judge(self.classifier, x_adv, x, y, self.threat, generator=streams)
            assert bool(verdict.allowed.all())
            parts.append(verdict.failure_rate == 0)
        return torch.cat(parts)

    @cached_property
    def clean_right(self) -> torch.Tensor:
        network = self.classifier.network  # may train, so before gradients are switched off
        with torch.no_grad():
            return network(self.data.x).argmax(1) == self.data.y  # pyright: ignore

    def gradients(self, gain: float) -> torch.Tensor:
        """Of the cross-entropy at the test images, `[images, pixels]`."""
        parts = []
        for part in torch.arange(len(self.data)).split(500):
            x, y = self.data.x[part], self.data.y[part]
            streams = Streams.seeded(self.seed, self.data.index[part], "gradient")
            estimator = self.estimator(gain)
            parts.append(estimator.estimate(self.classifier, cross_entropy, x, y, generator=streams).grad)
        return torch.cat(parts).flatten(1)

    def accuracy(self, gain: float) -> Row:
        right = self.right(gain, self.data)
        return {**share(int(right.sum()), len(right), "accuracy"), "gain": gain}

    def clean(self) -> Row:
        return share(int(self.clean_right.sum()), len(self.data), "accuracy")

    def zero_elements(self) -> Row:
        zero = self.gradients(1.0) == 0
        return {"what": "of the elements", "value": float(zero.double().mean()), "images": len(zero)}

    def zero_images(self) -> Row:
        zero = (self.gradients(1.0) == 0).all(1)
        return share(int(zero.sum()), len(zero), "of the images")

    def success_on_the_rest(self) -> Row:
        """Of images whose gradient is not all zero and which the network gets right."""
        rest = ~(self.gradients(1.0) == 0).all(1) & self.clean_right
        left = self.right(1.0, self.data)[rest]
        return share(int((~left).sum()), max(1, int(rest.sum())), "success")

    def sweep(self) -> Row:
        """Figure 2: accuracy of the network itself, and share of gradient elements that are not zero, by gain."""
        points = [
            {
                "gain": gain,
                "accuracy": float(self.right(gain, self.data).double().mean()),
                "non_zero": float((self.gradients(gain) != 0).double().mean()),
            }
            for gain in GAINS
        ]
        return {"what": "sweep", "points": points, "images": len(self.data)}


class Story:
    """The networks of this run."""

    def __init__(self, quick: bool, seed: int):
        names = ("relu", "sigmoid") if quick else ("relu",)
        self.parts = {name: Saturation(name, quick, seed) for name in names}


def share(count: int, total: int, what: str) -> Row:
    """A proportion with its exact 95 % interval."""
    low, high = clopper_pearson(count, total)
    return {"what": what, "value": count / total, "interval": [low, high], "images": total}


PUBLISHED = {
    "relu": ("98.1 %", "98.0 %", "8.4 %", "-", "-", "-"),
    "sigmoid": ("97.2 %", "96.6 %", "1.7 %", "98.2 %", "97.9 %", "62 %"),
}


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, the published figure, and how to measure ours."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    for name, part in story.parts.items():
        measured: dict[str, Callable[[], Row]] = {
            "clean": part.clean,
            "naive FGSM": lambda part=part: part.accuracy(1.0),
            "stable FGSM": lambda part=part: part.accuracy(part.gain),
            "gradient elements exactly zero": part.zero_elements,
            "images whose whole gradient is zero": part.zero_images,
            "naive FGSM on the other images": part.success_on_the_rest,
        }
        for (what, measure), published in zip(measured.items(), PUBLISHED[name], strict=True):
            table[f"saturated {name}: {what}"] = (published, measure)
        table[f"saturated {name}: sweep over the gain"] = ("Figure 2", part.sweep)
    return table


def describe(row: Row) -> str:
    """One cell of the table."""
    if "points" in row:
        return ", ".join(f"{p['gain']:g}: {100 * p['accuracy']:.1f} %" for p in row["points"])
    text = f"{100 * row['value']:.1f} % {row['what']}"
    if "interval" in row:
        low, high = (100 * v for v in row["interval"])
        text += f" [{low:.1f}, {high:.1f}]"
    return text + (f", gain {row['gain']:g}" if "gain" in row else "")


def plots(done: dict[str, Row]) -> dict[str, Any]:
    """Figure 2 of each network whose sweep is there."""
    from matplotlib.figure import Figure

    figures = {}
    for name, row in done.items():
        if "points" not in row:
            continue
        figure = Figure(figsize=(4.5, 3), layout="constrained")
        axes = figure.add_subplot()
        gains = [p["gain"] for p in row["points"]]
        axes.semilogx(gains, [1 - p["accuracy"] for p in row["points"]], "o-", color="tab:red", label="error")
        axes.semilogx(
            gains, [p["non_zero"] for p in row["points"]], "s--", color="black", label="non-zero gradients"
        )
        axes.set(xlabel="gain while the attack is made", ylabel="share", ylim=(-0.03, 1.03), title=name)
        axes.legend()
        figures[f"figure2_{name.split()[1].rstrip(':')}.png"] = figure
    return figures
