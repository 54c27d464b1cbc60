"""Adversarial training: what holds up, what it costs, what it trades away. Lecture notes, section 2.

Every row of the table is one function below. `unmask reproduce lecture-training` runs them; each is saved as it ends.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.attacks import APGD, FGSM, Attack
from unmask.audit.records import clopper_pearson
from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.judge import judge
from unmask.objectives import dlr
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import (
    TRADES,
    YOPO,
    AdversarialTraining,
    FastTraining,
    FreeTraining,
    Loop,
    Pretraining,
    RobustAndWeakFeatures,
    SelfTraining,
    Standard,
    Trainer,
)
from unmask.zoo import CNN, StridedCNN

sys.path.insert(0, str(Path(__file__).parent))
from figures import TOY, plots  # noqa: F401

Row = dict[str, Any]
ATTACKS: tuple[Attack, ...] = (APGD(steps=50), APGD(steps=50, objective=dlr))
SHAPES = ((3, 5), (2, 5))  # m and n of YOPO-m-n beside its own, 5 and 3
BETAS = (0.5, 1.0, 3.0)  # and the recipe's own, 6, among the accuracies


@dataclass(frozen=True)
class Scale:
    """How much is trained.

    **Fields**
    - `examples`: of the training split; `attacked`: of the test split.
    - `epochs`: of every recipe; free in the paper's own count, so that it sees the data `epochs` times here.
    - `ramp`: share of the steps in which epsilon rises.
    - `trades_rate`: learning rate of TRADES, 0.1 for the others; at 0.1 it ends with one class for all on MNIST.
    - `labels`: known to fine-tuning and to self-training; `rounds`: of the timing.
    """

    data: str
    epsilon: float
    examples: int | None
    attacked: int
    epochs: int
    batch_size: int
    replays: int
    ramp: float
    trades_rate: float
    labels: int
    rounds: int


FULL = Scale("mnist", 0.3, 6000, 1000, 10, 64, 4, 0.4, 0.03, 500, 3)
QUICK = Scale("digits", 0.15, None, 500, 12, 64, 4, 0.0, 0.1, 80, 5)


class Story:
    """The data and every recipe, at one scale.

    **Arguments**
    - `quick`: a small convolutional network on digits at a radius of 0.15; else one with larger strides on MNIST at
      0.3.
    """

    def __init__(self, quick: bool, seed: int):
        self.quick = quick
        self.scale = QUICK if quick else FULL
        self.seed = seed
        self.threat = Linf(epsilon=self.scale.epsilon)
        self.train = load(self.scale.data, split="train", examples=self.scale.examples)
        self.test = load(self.scale.data, split="test", examples=self.scale.attacked)
        self.recipes = _recipes(self.scale)
        self.costs = cache(self._costs)

    def network(self, classes: int = 10) -> nn.Module:
        """The same untrained network every time."""
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            size = self.train.x.shape[-1]
            if self.quick:
                return CNN(size, classes=classes)
            return StridedCNN(size, classes=classes, widths=(16, 32), hidden=100)

    def trained(self, recipe: Trainer, data: Data | None = None, classes: int = 10) -> nn.Module:
        """Trained on `data`, all of it by default."""
        network = self.network(classes)
        generator = torch.Generator().manual_seed(self.seed)
        recipe.fit(network, self.train if data is None else data, self.threat, generator=generator)
        return network

    def hardened(self, recipe: Trainer) -> Row:
        """Accuracies of a network trained on all data, and the processor seconds that training took."""
        began = time.process_time()
        network = self.trained(recipe)
        spent = time.process_time() - began
        return {**self.measured(network), "training_seconds": spent}

    def measured(self, network: nn.Module, data: Data | None = None) -> Row:
        """Clean accuracy, and the worst over two attacks that no recipe trained against."""
        data = self.test if data is None else data
        classifier = Classifier(network, deterministic=True)
        streams = Streams.seeded(self.seed, data.index, "measured")
        stands = classifier.predict(data.x, generator=streams).logits.argmax(1) == data.y
        clean = int(stands.sum())
        for attack in ATTACKS:
            left = stands.nonzero()[:, 0]
            if len(left):
                x, y, own = data.x[left], data.y[left], streams[left]
                x_adv = attack.run(classifier, x, y, self.threat, generator=own)
                stands[left] = judge(classifier, x_adv, x, y, self.threat, generator=own).failure_rate == 0
        return accuracy(clean, int(stands.sum()), len(data))

    def _costs(self) -> dict[str, float]:
        """Processor time of one epoch of each recipe over standard training's: the median of interleaved rounds."""
        seconds: dict[str, list[float]] = {name: [] for name in self.recipes}
        for _ in range(self.scale.rounds):
            for name, recipe in self.recipes.items():
                once = replace(recipe, epochs=recipe.updates)
                began = time.process_time()
                self.trained(once)
                seconds[name].append(time.process_time() - began)
        plain = seconds["standard"]
        return {
            name: statistics.median(s / p for s, p in zip(spent, plain, strict=True))
            for name, spent in seconds.items()
        }

    def cost(self, name: str) -> Row:
        """Processor time of a pass over the data, relative to standard training."""
        return {"ratio": self.costs()[name]}

    def few_labels(self) -> tuple[Data, Data, Data]:
        """Classes 0 to 4 with all labels, classes 5 to 9 (as 0 to 4) with few, and the test images of the latter."""
        low, high, test = self.train.y < 5, self.train.y >= 5, self.test.y >= 5
        target = chosen(self.train, high)
        return (
            chosen(self.train, low),
            moved(chosen(target, torch.arange(len(target)) < self.scale.labels)),
            moved(chosen(self.test, test)),
        )

    def pretraining(self, pretrained: bool) -> Row:
        """Few labels of five classes, with and without robust pretraining on the other five."""
        source, target, test = self.few_labels()
        loop = self.recipes["pgd"]
        batch = min(32, len(target))
        # As many passes over the few images as cost what the whole data set costs.
        tuned = replace(loop, batch_size=batch, epochs=3 * self.scale.epochs)
        recipe = Pretraining(source=source, before=loop, after=tuned) if pretrained else tuned
        return self.measured(self.trained(recipe, target, classes=5), test)

    def selftraining(self, unlabelled: bool) -> Row:
        """TRADES on the first labels only, with and without the images behind them under a teacher's labels."""
        known = chosen(self.train, torch.arange(len(self.train)) < self.scale.labels)
        student = self.recipes["trades"]
        teacher = replace(self.recipes["standard"], batch_size=min(32, len(known)), epochs=40)
        if unlabelled:
            recipe: Trainer = SelfTraining(
                unlabelled=self.train.x[len(known) :], teacher=teacher, student=student
            )
        else:
            # As many steps as the other row's student.
            others = len(self.train) - len(known)
            steps = 2 * others // self.scale.batch_size * self.scale.epochs
            batch = min(32, len(known))
            recipe = replace(student, batch_size=batch, epochs=max(steps // (len(known) // batch), 1))
        return self.measured(self.trained(recipe, known))

    def toy(self, name: str, epsilon: float) -> Row:
        """A trained linear network's accuracy in Tsipras et al.'s model, exact for its weights."""
        model = RobustAndWeakFeatures(**TOY)
        plain = {"epochs": 4, "batch_size": 200, "learning_rate": 0.05, "weight_decay": 0.0, "pad": 0}
        recipe = (
            Standard(**plain, mirror=False)
            if name == "standard"
            else AdversarialTraining(**plain, mirror=False, attack=FGSM())
        )
        network = nn.Sequential(nn.Flatten(), nn.Linear(101, 2))
        for p in network.parameters():
            nn.init.zeros_(p)
        generator = torch.Generator().manual_seed(self.seed)
        threat = Linf(epsilon=0.6, box=(-math.inf, math.inf))
        recipe.fit(network, model.draw(20_000, generator=generator), threat, generator=generator)
        layer = network[1]
        assert isinstance(layer, nn.Linear)
        weights = (layer.weight[1] - layer.weight[0]).detach()
        bias = float((layer.bias[1] - layer.bias[0]).detach())
        return {"exact": model.accuracy(weights, bias=bias, epsilon=epsilon)}


def _recipes(scale: Scale) -> dict[str, Loop]:
    plain: dict[str, Any] = {
        "epochs": scale.epochs,
        "batch_size": scale.batch_size,
        "learning_rate": 0.1,
        "pad": 0,
        "mirror": False,
        "average": 0.98,
        "ramp": scale.ramp,
    }
    yopo = {f"yopo-{m}-{n}": replace(YOPO(**plain), full=m, inner=n) for m, n in SHAPES}
    return {
        "standard": Standard(**plain),
        "pgd": AdversarialTraining(**plain),
        "fgsm": FastTraining(**plain),
        "free": replace(FreeTraining(**plain), epochs=scale.epochs * scale.replays, replays=scale.replays),
        "yopo-5-3": YOPO(**plain),
        **yopo,
        "trades": replace(TRADES(**plain), learning_rate=scale.trades_rate),
    }


def chosen(data: Data, which: Tensor) -> Data:
    """Some of the examples."""
    return replace(data, x=data.x[which], y=data.y[which], index=data.index[which])


def moved(data: Data) -> Data:
    """Classes 5 to 9 as 0 to 4."""
    return replace(data, y=data.y - 5)


def accuracy(clean: int, robust: int, total: int) -> Row:
    """Two proportions of the same images; the robust one with its exact 95 % interval."""
    low, high = clopper_pearson(robust, total)
    return {"clean": clean / total, "robust": robust / total, "interval": [low, high], "images": total}


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, the published figure, and how to measure ours."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    published = {
        "pgd": "roughly 10 x (lecture 2.1)",
        "free": f"{story.scale.replays} x a pass, m-fold fewer passes (Shafahi et al.)",
        "yopo-5-3": "4 to 5 x less time than PGD-10, in 36 epochs instead of 105 (Zhang D. et al.)",
    }

    def cost(name: str) -> Callable[[], Row]:
        return lambda: story.cost(name)

    def hardened(recipe: Trainer) -> Callable[[], Row]:
        return lambda: story.hardened(recipe)

    for name in story.recipes:
        if name != "standard":
            table[f"cost of a pass over the data: {name}"] = (published.get(name, "-"), cost(name))
    for name, recipe in story.recipes.items():
        table[f"accuracy: {name}"] = ("-", hardened(recipe))
    for beta in BETAS:
        recipe = replace(story.recipes["trades"], beta=beta)
        table[f"trade-off: TRADES, beta {beta:g}"] = ("more beta, more robust, less clean", hardened(recipe))
    for name, epsilon, theory in (
        ("standard", 0.0, "99.9 % (closed form)"),
        ("standard", 0.6, "0.2 % (closed form)"),
        ("pgd", 0.0, "95.0 % = p (closed form)"),
        ("pgd", 0.6, "95.0 % = p (closed form)"),
    ):
        table[f"toy model: {name}, epsilon {epsilon:g}"] = (
            theory,
            lambda name=name, epsilon=epsilon: story.toy(name, epsilon),
        )
    few = f"{story.scale.labels} labels"
    table[f"more data: {few} of classes 5 to 9, from scratch"] = ("-", lambda: story.pretraining(False))
    table[f"more data: {few} of classes 5 to 9, pretrained on 0 to 4"] = (
        "up to 10 points more (CIFAR-10 after ImageNet)",
        lambda: story.pretraining(True),
    )
    table[f"more data: {few}, TRADES"] = ("-", lambda: story.selftraining(False))
    table[f"more data: {few}, the others by self-training"] = (
        "5 to 10 points more (CIFAR-10, 500,000 images)",
        lambda: story.selftraining(True),
    )
    return table


def describe(row: Row) -> str:
    """One cell of the table."""
    if "ratio" in row:
        return f"{row['ratio']:.1f} x standard training"
    if "exact" in row:
        return f"{100 * row['exact']:.1f} %"
    low, high = (100 * v for v in row["interval"])
    spent = f", training {row['training_seconds']:.0f} s" if "training_seconds" in row else ""
    return (
        f"clean {100 * row['clean']:.1f} %, robust {100 * row['robust']:.1f} % [{low:.1f}, {high:.1f}]{spent}"
    )
