"""Saturated networks: FGSM on the exact gradient, and on the gradient at reduced gain.

Every row of the table is one function below. `unmask reproduce saturation` runs them; each is saved as it ends.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from unmask.attacks import FGSM
from unmask.classifier import Classifier
from unmask.data import load
from unmask.gradients import Exact, GradientEstimator, LogitScale, ReducedGain
from unmask.judge import judge
from unmask.objectives import cross_entropy
from unmask.randomness import Streams
from unmask.reproducing.request import Request
from unmask.statistics import clopper_pearson
from unmask.threat import Linf
from unmask.training import Penalised, Saturated, Trainer
from unmask.training.saturated import widen
from unmask.zoo import MLP

sys.path.insert(0, str(Path(__file__).parent))
from pull import pulls
from saturation_plots import plots  # noqa: F401
from zeros import PRECISIONS, origins

WEIGHTS = Path(__file__).with_name("weights")
EPSILON = 0.25  # the comment states none; Goodfellow et al. 2015 use this one on MNIST
GAINS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
MEASURED_ON = 200  # training images on which the gain is chosen
PULLED = 1000  # training images on which penalty and loss are compared
COMMITTED = (
    16.0,
    1e-5,
)  # gain of the saturated ReLU network's first weights, and its penalty's strength in the end
FOLLOWED = 500  # images whose gradient is followed to where it becomes zero
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
# Without penalty, from Glorot's weights: plain cross-entropy by Adam.
VANILLA = {
    "relu": Saturated(strength=0.0, gain=1.0, reach=1.0, learning_rate=1e-3, epochs=5),
    "sigmoid": Saturated(strength=0.0, gain=1.0, reach=1.0, learning_rate=3e-3, epochs=8),
}
# On digits; the networks on MNIST are committed, for these take minutes to train.
DIGITS: dict[str, Trainer] = {
    "vanilla relu": replace(VANILLA["relu"], epochs=20, batch_size=64),
    "vanilla sigmoid": replace(VANILLA["sigmoid"], epochs=20, batch_size=64),
    "saturated relu": Saturated(
        epochs=20, batch_size=64, gain=12.0, reach=1.0, first_strength=1e-7, strength=1e-5
    ),
    "sharpened sigmoid": Saturated(
        epochs=20, batch_size=64, gain=2.0, reach=1.0, strength=1e-3, sharpening=1e4, learning_rate=3e-3
    ),
    "penalised sigmoid": Penalised(epochs=80, batch_size=64),
}
Row = dict[str, Any]


class Saturation:
    """One network and what FGSM makes of it."""

    def __init__(self, kind: str, request: Request):
        self.kind, self.request = kind, request
        self.how, self.activation = kind.split()
        self.quick, self.seed = request.quick, request.seed
        self.threat = Linf(epsilon=EPSILON)
        self.name = "digits" if self.quick else "mnist"

    @cached_property
    def classifier(self) -> Classifier:
        widths = (64, 50, 50, 50, 10) if self.quick else (784, 200, 200, 200, 10)
        network = MLP(widths, activation=ACTIVATIONS[self.activation])
        if self.how != "vanilla" and not self.quick:
            file = WEIGHTS / f"{self.how}_{self.activation}_mnist.safetensors"
            network.load_state_dict(load_file(file))
        else:
            recipe = DIGITS[self.kind] if self.quick else VANILLA[self.activation]
            seeded = torch.Generator().manual_seed(self.seed)
            recipe.fit(network, load(self.name, split="train"), None, generator=seeded)
        return Classifier(network.eval().to(self.request.device), deterministic=True)

    @cached_property
    def data(self) -> Any:
        size = 8 if self.quick else 28
        return self.request.load(
            self.name, split="test", examples=self.request.examples, shape=(1, size, size)
        )

    def estimator(self, gain: float) -> GradientEstimator:
        """Reduced gain inside a sigmoid network; a scaled read-out for ReLU."""
        if gain == 1.0:
            return Exact()
        return ReducedGain(gain) if self.activation == "sigmoid" else LogitScale(scale=gain)

    @cached_property
    def gain(self) -> float:
        """The gain that leaves least accuracy on a few training images."""
        few = self.request.load(self.name, split="train", examples=MEASURED_ON)
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
        if not len(left):
            return {"what": "success", "images": 0}
        return share(int((~left).sum()), len(left), "success")

    def zeros(self, numbers: str) -> Row:
        """From which place on images' gradients are whole zero, computed in these numbers."""
        some = self.data[:FOLLOWED]
        found = origins(self.classifier.network, some.x, some.y, numbers)  # pyright: ignore
        return {"what": "origins", "origins": found, "images": len(some)}

    def pull(self) -> Row:
        """The penalty's gradient beside the loss's, layer by layer, at weights as drawn and at those in the end."""
        gain, strength = COMMITTED
        if self.quick:
            recipe = DIGITS[self.kind]
            assert isinstance(recipe, Saturated)
            gain, strength = recipe.gain or 1.0, recipe.strength
        some = self.request.load(self.name, split="train", examples=PULLED)
        network = self.classifier.network
        first = copy.deepcopy(network)
        widen(first, gain, generator=torch.Generator().manual_seed(self.seed))  # pyright: ignore
        sizes = {
            "first": pulls(first, strength, some.x, some.y),  # pyright: ignore
            "last": pulls(network, strength, some.x, some.y),  # pyright: ignore
        }
        return {"what": "pull", "pulls": sizes, "strength": strength, "images": len(some)}

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

    def histogram(self) -> Row:
        """Figure 1: elements of the gradient by size, and how many are exactly zero."""
        size = self.gradients(1.0).abs()
        counted = size[size > 0].log10()
        edges = torch.linspace(-46, 2, 49)  # float32 holds nothing below 1e-45
        counts = torch.histogram(counted.clamp(-45.9, 1.9), edges).hist
        points = [
            {"log10_from": float(low), "share": float(n) / size.numel()}
            for low, n in zip(edges, counts, strict=False)
        ]
        zero = float((size == 0).double().mean())
        middle = float(10 ** counted.median()) if len(counted) else 0.0
        return {"what": "histogram", "bins": points, "zero": zero, "median": middle, "images": len(size)}

    def distributions(self) -> Row:
        """Figure S1: weights and activations of each layer, and the weights' and activations' excess kurtosis."""
        network = self.classifier.network
        linears = [m for m in network.modules() if isinstance(m, nn.Linear)]  # pyright: ignore
        hidden = [m for m in network.modules() if isinstance(m, nn.ReLU | nn.Sigmoid)]  # pyright: ignore
        seen: list[torch.Tensor] = []
        hooks = [m.register_forward_hook(lambda _, args, out: seen.append(out.flatten())) for m in hidden]
        with torch.no_grad():
            network(self.data.x[:1000])
        for hook in hooks:
            hook.remove()
        layers = [binned("weights", i, m.weight.detach().flatten()) for i, m in enumerate(linears)]
        layers += [binned("activations", i, values) for i, values in enumerate(seen)]
        return {"what": "distributions", "layers": layers, "images": min(1000, len(self.data))}


def binned(kind: str, layer: int, values: torch.Tensor) -> Row:
    """Shares in 41 bins over the range of the values, and their excess kurtosis."""
    low, high = float(values.min()), float(values.max())
    counts = torch.histc(values, 41, low, high) / values.numel()
    deviation = values.double() - values.double().mean()
    kurtosis = float(deviation.pow(4).mean() / deviation.square().mean().square() - 3)
    return {
        "kind": kind,
        "layer": layer + 1,
        "kurtosis": kurtosis,
        "low": low,
        "high": high,
        "shares": counts.tolist(),
    }


class Story:
    """The networks of this run."""

    def __init__(self, request: Request):
        request.refuse("steps")
        self.parts = {kind: Saturation(kind, request) for kind in PUBLISHED}


def share(count: int, total: int, what: str) -> Row:
    """A proportion with its exact 95 % interval."""
    low, high = clopper_pearson(count, total)
    return {"what": what, "value": count / total, "interval": [low, high], "images": total}


# Clean, naive FGSM, stable FGSM, zero elements, images of zero gradient, success on the other images.
PUBLISHED = {
    "vanilla relu": ("98.7 %", "0.2 %", "-", "-", "-", "-"),
    "vanilla sigmoid": ("98 %", "2.5 %", "-", "0 %", "-", "-"),
    "saturated relu": ("98.1 %", "98.0 %", "8.4 %", "-", "-", "-"),
    "sharpened sigmoid": ("97.2 %", "96.6 %", "1.7 %", "98.2 %", "97.9 %", "62 %"),
    "penalised sigmoid": ("97.2 %", "96.6 %", "1.7 %", "98.2 %", "97.9 %", "62 %"),
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
            table[f"{name}: {what}"] = (published, measure)
        table[f"{name}: gradient histogram"] = ("Figure 1", part.histogram)
        table[f"{name}: weights and activations"] = ("Figure S1", part.distributions)
        if name == "saturated relu":
            table[f"{name}: penalty against loss, by layer"] = ("-", part.pull)
        if part.how != "vanilla":
            table[f"{name}: sweep over the gain"] = ("Figure 2", part.sweep)
            for numbers in PRECISIONS:
                table[f"{name}: where the gradient becomes zero, {numbers}"] = (
                    "-",
                    partial(part.zeros, numbers),
                )
    return table


def describe(row: Row) -> str:
    """One cell of the table."""
    if "origins" in row:
        return ", ".join(f"{place} {count}" for place, count in row["origins"].items())
    if "pulls" in row:
        return "; ".join(
            f"{when} weights {', '.join(f'{v:.1e}' for v in each)}" for when, each in row["pulls"].items()
        )
    if "points" in row:
        return ", ".join(f"{p['gain']:g}: {100 * p['accuracy']:.1f} %" for p in row["points"])
    if "bins" in row:
        return f"median size of the others {row['median']:.1e}"
    if "layers" in row:
        sizes = {
            kind: [c["kurtosis"] for c in row["layers"] if c["kind"] == kind]
            for kind in ("weights", "activations")
        }
        return "kurtosis of " + "; ".join(f"{k} {', '.join(f'{v:.1f}' for v in c)}" for k, c in sizes.items())
    if not row["images"]:
        return "there are none"
    text = f"{100 * row['value']:.1f} % {row['what']}"
    if "interval" in row:
        low, high = (100 * v for v in row["interval"])
        text += f" [{low:.1f}, {high:.1f}]"
    return text + (f", gain {row['gain']:g}" if "gain" in row else "")
