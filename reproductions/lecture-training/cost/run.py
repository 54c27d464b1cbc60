"""What each recipe's robust accuracy costs: every recipe at several lengths, at its own learning rate.

`unmask reproduce lecture-training/cost` trains on CIFAR-10 (JPEG) at 8/255, with `--quick` on digits at 0.15.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.attacks import PGD
from unmask.data import Data
from unmask.reproducing.request import Request
from unmask.threat import Linf
from unmask.training import YOPO, AdversarialTraining, FastTraining, FreeTraining, Loop, Standard
from unmask.training.validation import accuracies
from unmask.zoo import CNN, StridedCNN

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import curves
from measuring import Row, describe  # noqa: F401
from trained import Trained

STEERING = PGD(steps=10, rel_step_size=0.25)
RECIPES: dict[str, Callable[..., Loop]] = {
    "standard": Standard,
    "pgd": AdversarialTraining,
    "fgsm": partial(FastTraining, guard_every=200),
    "free-4": partial(FreeTraining, replays=4),
    "yopo-5-3": YOPO,
    "yopo-3-5": partial(YOPO, full=3, inner=5),
    "yopo-2-5": partial(YOPO, full=2, inner=5),
}
FAMILY = {"yopo-5-3": "yopo-3-5", "yopo-2-5": "yopo-3-5"}  # whose learning rate serves them, too
PUBLISHED = {
    "pgd": "roughly 10 x (lecture 2.1)",
    "free-4": "4 x a pass, on 1/4 of the epochs (Shafahi et al.)",
    "yopo-5-3": "a whole training in 1/5 to 1/4 of the time, 36 epochs to 105 (Zhang D. et al.)",
}


@dataclass(frozen=True)
class Scale:
    """How much is trained.

    **Fields**
    - `examples`: of the training split.
    - `lengths`: passes over these, recipe by recipe.
    - `plain`: what all recipes share.
    - `rates`: those that each kind of recipe tries, on the first `tried` training images for `tries` passes.
    - `held`: the last images of the training split, which say which rate was best.
    - `attacked`: of the test split; `audited`: of these, by the audit.
    - `seeds`: trainings of each recipe and length.
    - `timed`: training images of a pass in the comparison of costs, `rounds` times.
    """

    data: str
    epsilon: float
    examples: int | None
    lengths: dict[str, tuple[int, ...]]
    plain: dict[str, Any]
    rates: tuple[float, ...]
    tried: int
    tries: int
    held: int
    attacked: int
    audited: int
    seeds: int
    timed: int
    rounds: int


CIFAR = Scale(
    data="cifar10",
    epsilon=8 / 255,
    examples=20_000,
    lengths={
        "pgd": (3, 8, 16),
        "fgsm": (3, 10, 20),
        "free-4": (2, 5, 10),
        "yopo-3-5": (2, 5, 10, 20),
        "yopo-2-5": (3, 8),
        "yopo-5-3": (2, 4),
        "standard": (3,),
    },
    plain={"batch_size": 128, "pad": 2, "average": 0.99, "half": True},
    rates=(0.02, 0.05, 0.1),
    tried=10_000,
    tries=3,
    held=1000,
    attacked=1000,
    audited=100,
    seeds=1,
    timed=2560,
    rounds=3,
)
DIGITS = Scale(
    data="digits",
    epsilon=0.15,
    examples=None,
    lengths={
        "pgd": (6, 12),
        "fgsm": (18,),
        "free-4": (4, 8),
        "yopo-3-5": (10,),
        "yopo-2-5": (16,),
        "yopo-5-3": (6,),
        "standard": (12,),
    },
    plain={"batch_size": 64, "pad": 0, "mirror": False, "average": 0.98},
    rates=(0.1, 0.2, 0.4),
    tried=1000,
    tries=12,
    held=297,
    attacked=500,
    audited=50,
    seeds=3,
    timed=1297,
    rounds=5,
)


def recipe(name: str, passes: int, plain: dict[str, Any]) -> Loop:
    """By name, for so many passes over the data."""
    once = RECIPES[name](**plain)
    return replace(once, epochs=passes * once.updates)


class Story(Trained):
    """The data, and the rates that were found for them."""

    def __init__(self, request: Request):
        request.refuse("steps")
        self.request, self.seed = request, request.seed
        self.scale = request.scaled(DIGITS if request.quick else CIFAR, examples=("attacked",))
        if request.seeds > 1:  # the table's own, one after the other
            self.scale = replace(self.scale, seeds=1)
        self.threat = Linf(epsilon=self.scale.epsilon)
        self.audit_images = self.scale.audited
        self.ratios = cache(self._ratios)

    @cached_property
    def every(self) -> Data:
        return self.request.load(self.scale.data, split="train")

    @property
    def train(self) -> Data:
        return self.every[: self.scale.examples]

    @property
    def held(self) -> Data:
        return self.every[len(self.every) - self.scale.held :]

    @cached_property
    def test(self) -> Data:
        return self.request.load(self.scale.data, split="test", examples=self.scale.attacked)

    def network(self, classes: int = 10, seed: int | None = None) -> nn.Module:
        channels, size = self.train.x.shape[1], self.train.x.shape[-1]
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed if seed is None else seed)
            if self.scale.data == "digits":
                return CNN(size, classes=classes)
            return StridedCNN(size, channels=channels, classes=classes)

    def _ratios(self) -> dict[str, float]:
        once = {name: recipe(name, 1, self.scale.plain) for name in self.scale.lengths}
        guard = FastTraining().guard_examples
        return self.costs(once, self.train[: self.scale.timed + guard], self.scale.rounds)

    def rate(self, name: str) -> Row:
        """The best of the same few learning rates, after a short training each."""
        name = FAMILY.get(name, name)
        file = None if self.networks is None else self.networks / f"rate-{name}.json"
        if file is not None and file.exists():
            return json.loads(file.read_text(encoding="utf-8"))
        some = self.train[: self.scale.tried]
        short = recipe(name, self.scale.tries, self.scale.plain)
        found: dict[str, float] = {}
        for rate in self.scale.rates:
            network, _ = self.trained(replace(short, learning_rate=rate), some)
            threat = self.threat if short.hardens else None
            clean, robust = accuracies(network, self.held, threat, STEERING, 250, self.seed)
            found[f"{rate:g}"] = clean if robust is None else robust
        row = {
            "rates": found,
            "rate": float(max(found, key=lambda rate: found[rate])),
            "images": len(self.held),
        }
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(row), encoding="utf-8")
        return row

    def made(self, name: str, passes: int, seed: int) -> tuple[nn.Module, Row]:
        """A recipe's network, at the rate that suits the recipe."""
        plain = {**self.scale.plain, "learning_rate": self.rate(name)["rate"]}
        return self.kept(f"{name}-{passes}-{seed}", recipe(name, passes, plain), self.train, seed)

    def accuracy(self, name: str, passes: int) -> Row:
        """Over all seeds: means, and the smallest and largest robust accuracy instead of an interval."""
        runs: list[Row] = []
        for seed in range(self.seed, self.seed + self.scale.seeds):
            network, notes = self.made(name, passes, seed)
            runs.append({**self.measured(network), **notes})
        if len(runs) == 1:
            return runs[0]
        robust = [run["robust"] for run in runs]
        means = {k: sum(run[k] for run in runs) / len(runs) for k in ("clean", "robust", "training_seconds")}
        events = [event for run in runs for event in run["events"]]
        row = {**means, "interval": [min(robust), max(robust)], "seeds": len(runs), "each": robust}
        return {**row, "events": events, "images": len(self.test)}

    def audited(self, name: str, passes: int) -> Row:
        """What `unmask audit --budget quick` says of the first seed's network."""
        return self.audit(self.made(name, passes, self.seed)[0])


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, the published figure, and how to measure ours."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    lengths = story.scale.lengths
    for name in lengths:
        if name != "standard":
            table[f"cost of a pass over the data: {name}"] = (
                PUBLISHED.get(name, "-"),
                partial(story.cost, name),
            )
    for name in [name for name in lengths if name not in FAMILY]:
        table[f"learning rate: {name}"] = ("-", partial(story.rate, name))
    pairs = [(name, n) for name, passes in lengths.items() for n in passes]
    for name, n in sorted(pairs, key=lambda pair: pair[1] != lengths[pair[0]][-1]):  # the longest first
        table[f"accuracy: {name}, {n} passes"] = ("-", partial(story.accuracy, name, n))
    for name, passes in lengths.items():
        table[f"audit: {name}, {passes[-1]} passes"] = (
            "no masking",
            partial(story.audited, name, passes[-1]),
        )
    return table


def plots(done: dict[str, Row]) -> dict[str, Any]:
    """Robust accuracy over training time, a line for each recipe."""
    points: dict[str, list[Row]] = {}
    for title, row in done.items():
        kind, _, rest = title.partition(": ")
        name = rest.partition(",")[0]
        if kind == "accuracy" and name != "standard":  # its accuracy under attack is nearly none
            points.setdefault(name, []).append(row)
    return {"accuracy_per_minute.png": curves(points)} if points else {}
