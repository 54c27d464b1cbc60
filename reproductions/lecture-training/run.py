"""Adversarial training: what holds up, what it costs, what it trades away. Lecture notes, section 2.

Every row of the table is one function below. `unmask reproduce lecture-training` runs them; each is saved as it ends.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path

import torch
from torch import nn

from unmask.attacks import FGSM
from unmask.data import Data
from unmask.reproducing.request import Request
from unmask.threat import Linf
from unmask.training import (
    AdversarialTraining,
    FastTraining,
    RobustAndWeakFeatures,
    Standard,
    Trainer,
)
from unmask.zoo import CNN, StridedCNN

sys.path.insert(0, str(Path(__file__).parent))
from figures import TOY, plots  # noqa: F401
from measuring import Row, describe, measured  # noqa: F401
from more_data import moved, with_another_task, with_unlabelled
from schedules import FULL, GUARD_EVERY, QUICK, TURNS, recipes
from trained import Trained

BETAS = (0.5, 1.0, 3.0, 6.0)
DELTAS = (0.1, 0.01, 1e-3, 1e-6)


class Story(Trained):
    """The data and every recipe, at one scale.

    A convolutional network with large strides on MNIST at a radius of 0.3, or a small one on digits at 0.15.
    """

    def __init__(self, request: Request):
        request.refuse("steps")
        self.request, self.quick, self.seed = request, request.quick, request.seed
        self.scale = request.scaled(QUICK if request.quick else FULL, examples=("attacked",))
        self.threat = Linf(epsilon=self.scale.epsilon)
        self.recipes = recipes(self.scale, self.scale.epochs, half=self.scale.half)
        self.small_recipes = recipes(self.scale, self.scale.small_epochs, half=False)
        self.ratios = cache(self._ratios)
        self.audit_images = self.scale.audited

    @cached_property
    def train(self) -> Data:
        return self.request.load(self.scale.data, split="train", examples=self.scale.examples)

    @property
    def small(self) -> Data:
        return self.train[: self.scale.small]

    @cached_property
    def test(self) -> Data:
        return self.request.load(self.scale.data, split="test", examples=self.scale.attacked)

    def network(self, classes: int = 10, seed: int | None = None) -> nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed if seed is None else seed)
            size = self.train.x.shape[-1]
            if self.quick:
                return CNN(size, classes=classes)
            return StridedCNN(size, classes=classes, widths=(16, 32), hidden=100)

    def accuracy(self, name: str) -> Row:
        """Of a recipe's network, and how it was trained."""
        network, notes = self.kept(name, self.recipes[name], self.train)
        return {**self.measured(network), **notes}

    def audited(self, name: str) -> Row:
        """What `unmask audit --budget quick` says of the same network."""
        return self.audit(self.kept(name, self.recipes[name], self.train)[0])

    def _ratios(self) -> dict[str, float]:
        """On as many images as hold one check of fast training's guard, where there are so many."""
        count = GUARD_EVERY * self.scale.batch_size + FastTraining().guard_examples
        return self.costs(self.recipes, self.train[:count], self.scale.rounds)

    def pretraining(self, pretrained: bool) -> Row:
        """Accuracies on classes 5 to 9."""
        recipe, data = with_another_task(self.small_recipes, self.scale, self.small, pretrained=pretrained)
        test = moved(self.test[self.test.y >= 5])
        return measured(self.trained(recipe, data, classes=5)[0], test, self.threat, seed=self.seed)

    def selftraining(self, unlabelled: bool, pseudo_rate: float | None = None) -> Row:
        """Accuracies on all classes."""
        recipe, data = with_unlabelled(
            self.small_recipes, self.scale, self.small, unlabelled=unlabelled, pseudo_rate=pseudo_rate
        )
        return self.measured(self.trained(recipe, data)[0])

    def tradeoff(self, recipe: Trainer) -> Row:
        """Accuracies on the smaller data set."""
        return self.measured(self.trained(recipe, self.small)[0])

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

    def weak_features(self, delta: float) -> Row:
        """How many weak features alone come to that error without an adversary, and their share of the order."""
        model = RobustAndWeakFeatures(**TOY)
        needed = model.weak_needed(delta)
        return {"needed": needed, "factor": needed * model.eta**2 / math.log(1 / delta)}


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, the published figure, and how to measure ours."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    published = {
        "pgd": "roughly 10 x (lecture 2.1)",
        "free": f"{story.scale.replays} x a pass, m-fold fewer passes (Shafahi et al.)",
        "yopo-5-3": "4 to 5 x less time than PGD-10, in 36 epochs instead of 105 (Zhang D. et al.)",
    }

    for name in story.recipes:
        if name not in ("standard", "fgsm-edge-long"):
            table[f"cost of a pass over the data: {name}"] = (
                published.get(name, "-"),
                partial(story.cost, name),
            )
    for name in story.recipes:
        table[f"accuracy: {name}"] = ("-", partial(story.accuracy, name))
    for name in story.recipes:
        table[f"audit: {name}"] = ("no masking", partial(story.audited, name))
    trades = story.small_recipes["trades"]
    frontier = {f"TRADES, beta {beta:g}": replace(trades, beta=beta) for beta in BETAS}
    for name, recipe in {**frontier, "pgd": story.small_recipes["pgd"]}.items():
        table[f"trade-off: {name}"] = (
            "more beta, more robust, less clean" if name in frontier else "-",
            partial(story.tradeoff, recipe),
        )
    model = RobustAndWeakFeatures(**TOY)
    first = torch.eye(1 + model.weak)[0]
    for name, best, of in (("standard", model.natural(), "best"), ("pgd", first, "first feature")):
        for epsilon in (0.0, model.eta, 2 * model.eta):
            table[f"toy model: {name}, epsilon {epsilon:g}"] = (
                f"{100 * model.accuracy(best, epsilon=epsilon):.1f} % ({of}, closed form)",
                partial(story.toy, name, epsilon),
            )
    for delta in DELTAS:
        order = math.log(1 / delta) / model.eta**2
        table[f"toy model: weak features for an error of {delta:g}"] = (
            f"of the order of log(1/delta)/eta^2 = {order:.1f} (lecture 2.2)",
            partial(story.weak_features, delta),
        )
    few = f"{story.scale.labels} labels"
    table[f"more data: {few} of classes 5 to 9, from scratch"] = ("-", partial(story.pretraining, False))
    table[f"more data: {few} of classes 5 to 9, pretrained on 0 to 4"] = (
        "up to 10 points more (CIFAR-10 after ImageNet)",
        partial(story.pretraining, True),
    )
    table[f"more data: {few}, TRADES"] = ("-", partial(story.selftraining, False))
    table[f"more data: {few}, the others by self-training"] = (
        "5 to 10 points more (CIFAR-10, 500,000 images)",
        partial(story.selftraining, True),
    )
    for rate in TURNS:
        table[
            f"more data: {few}, labelled and pseudo-labelled in turns, the latter at {rate:g} x the rate"
        ] = (
            "5 to 10 points more (lecture, 2.3)",
            partial(story.selftraining, True, rate),
        )
    return table
