"""Stochastic activation pruning: evaluated wrongly, attacked wrongly, attacked rightly.

Every row of the table is one function below. `unmask reproduce sap` runs them; each is saved as it ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.defenses import SAP
from unmask.gradients import BPDA, Exact, GradientEstimator
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.reproducing.forecast import Work
from unmask.reproducing.request import Request
from unmask.statistics import clopper_pearson
from unmask.threat import Linf
from unmask.training import Standard
from unmask.types import Average
from unmask.zoo import CNN, ResNet20

sys.path.insert(0, str(Path(__file__).parent))
from long_run import LongRun, Settings, ours, published

WEIGHTS = Path(__file__).with_name("weights") / "resnet20_cifar10_jpeg.safetensors"
EPSILON = 0.031
Goal = Literal["targeted", "untargeted"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured: numbers of images, passes of the claim, steps.

    **Fields**
    - `clean`, `single`, `mean`: images for the clean accuracy of the network, of one pass, of the mean.
    - `published`: images for the attack with its published settings, over `published_steps`.
    - `attacked`, `fewer`: images for the attacks on one pass, and for the other ones; `bpda`: images for the attack
      by BPDA; `curve`: images for the curve over `iterations`.
    """

    clean: int
    single: int
    mean: int
    attacked: int
    bpda: int
    fewer: int
    curve: int
    passes: int
    steps: int
    iterations: tuple[int, ...]
    epsilon: float
    published: int
    published_steps: tuple[int, ...]


FULL = Scale(
    10_000, 1000, 100, 100, 400, 50, 16, 100, 60, (10, 100, 1000, 10_000), EPSILON, 100, (500, 10_000)
)
QUICK = Scale(500, 500, 200, 100, 100, 100, 50, 30, 40, (10, 100), 0.2, 16, (100,))


class Story:
    """The network, the data and every way of looking at them.

    ResNet-20 on CIFAR-10 (JPEG), or a small network on digits, trained in seconds, at a radius of 0.2.
    """

    def __init__(self, request: Request):
        self.request, self.seed = request, request.seed
        counts = ("clean", "single", "mean", "attacked", "bpda", "fewer", "curve", "published")
        self.scale = request.scaled(QUICK if request.quick else FULL, examples=counts, steps=("steps",))
        if request.steps is not None:
            self.scale = replace(self.scale, iterations=(request.steps,), published_steps=(request.steps,))
        self.long_run: LongRun | None = None
        self.folder: Path | None = None
        self.row = ""
        self.report: Callable[[int, int], None] = lambda done, total: None

    @cached_property
    def network(self) -> nn.Module:
        return (_digits_network() if self.request.quick else _resnet20()).to(self.request.device)

    @cached_property
    def vanilla(self) -> Classifier:
        return Classifier(self.network, deterministic=True)

    @cached_property
    def data(self) -> Data:
        if self.request.quick:
            return self.request.load("digits", split="test", shape=(1, 8, 8))
        return self.request.load("cifar10", split="test", shape=(3, 32, 32))

    @property
    def x(self) -> Tensor:
        return self.data.x

    @property
    def y(self) -> Tensor:
        return self.data.y

    @cached_property
    def targets(self) -> Tensor:
        shift = Streams.seeded(self.seed, self.data.index, "targets").integers(1, 10)
        return (self.y + shift) % 10

    def watch(self, folder: Path, row: str, report: Callable[[int, int], None]) -> None:
        """Tells where to keep unfinished work, of which row, and whom to tell how much of it is done."""
        self.folder, self.row, self.report = folder, row, report

    def sap(
        self,
        ratio: float,
        *,
        passes: int | None = None,
        sampler: Any = "multinomial",
        average: Average | None = None,
    ) -> Classifier:
        """SAP around the network; a mean over the paper's passes unless told otherwise."""
        passes = self.scale.passes if passes is None else passes
        return SAP(ratio=ratio, sampler=sampler, passes=passes, average=average).wrap(self.vanilla)

    def streams(self, tag: str, count: int) -> Streams:
        """The randomness of one row."""
        return Streams.seeded(self.seed, torch.arange(count, device=self.request.device), tag)

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
        also_on: Classifier | None = None,
    ) -> Row:
        """Accuracy, or targeted success, after PGD on one classifier and fresh draws of another.

        `also_on` judges the same points: what it sees stands beside.
        """
        x = self.x[:count]
        y = (self.targets if targeted else self.y)[:count]
        threat = Linf(epsilon=self.scale.epsilon, goal="targeted" if targeted else "untargeted")
        attack = PGD(steps=steps, rel_step_size=max(0.02, 2.5 / steps), gradient=gradient, early_stop=False)
        saved = self._unfinished()
        for number, part in enumerate(torch.arange(len(x)).split(50)):
            if number < len(saved):
                continue
            streams = self.streams("attack", len(x))[part]
            x_adv = attack.run(crafted_on, x[part], y[part], threat, generator=streams)
            fresh = self.streams("judge", len(x))[part]
            verdict = judge(judged_on, x_adv, x[part], y[part], threat, generator=fresh)
            assert bool(verdict.allowed.all())
            hits = [float(verdict.failure_rate.sum())]
            if also_on is not None:
                other = judge(also_on, x_adv, x[part], y[part], threat, generator=fresh.fork("also"))
                hits.append(float(other.failure_rate.sum()))
            saved.append((*hits, int((verdict.prediction == self.y[part]).sum())))
            self._unfinished(saved)
            self.report(min(50 * len(saved), len(x)), len(x))
        *met, right = (sum(column) for column in zip(*saved, strict=True))
        if targeted:
            return {**share(round(met[0]), len(x), "targeted success"), "accuracy": right / len(x)}
        row = share(len(x) - round(met[0]), len(x), "accuracy")
        return row if also_on is None else {**row, "also": {"Bernoulli sampler": 1 - met[1] / len(x)}}

    def _unfinished(self, batches: list[tuple[float, ...]] | None = None) -> list[tuple[float, ...]]:
        """The finished batches of this row, hits and still right, as they were saved or as they are now."""
        if self.folder is None:
            return []
        file = self.folder / "unfinished.json"
        if batches is None:
            known = json.loads(file.read_text()) if file.exists() else {}
            mine = (known.get("row"), known.get("seed")) == (self.row, self.seed)
            return [tuple(batch) for batch in known["batches"]] if mine else []
        self.folder.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(
            json.dumps({"row": self.row, "seed": self.seed, "batches": batches})
        )
        file.with_suffix(".part").replace(file)
        return batches

    def run(self, settings: Settings, count: int, file: str | None) -> LongRun:
        """A long run on the first images, on single passes of the Bernoulli approximation."""
        targeted = settings.goal == "targeted"
        return LongRun(
            self.sap(1.0, passes=1, sampler="bernoulli"),
            self.x[:count],
            (self.targets if targeted else self.y)[:count],
            self.scale.epsilon,
            settings,
            self.streams(settings.tag, min(count, len(self.x))),
            None if self.folder is None or file is None else self.folder / f"{file}-{self.seed}.safetensors",
            lambda done, total: self.report(done, total),
        )

    def met(self, run: LongRun, x_adv: Tensor, judged_on: Classifier) -> Tensor:
        """Which of the images left meet the run's goal at these points, on fresh draws."""
        left = run.left
        if not len(left):
            return torch.zeros(0, dtype=torch.bool, device=left.device)
        points = run.threat.settle(x_adv[left], run.x[left])
        fresh = self.streams("judge", len(run.x))[left]
        verdict = judge(judged_on, points, run.x[left], run.y[left], run.threat, generator=fresh)
        assert bool(verdict.allowed.all())
        return verdict.failure_rate > 0

    def curve(self, iterations: int) -> Row:
        """Targeted success within so many iterations of one and the same run without BPDA.

        An image whose best iterate fools the deployed defence here has left the run before the next row.
        """
        settings = ours(self.scale.epsilon)
        if self.long_run is None:
            self.long_run = self.run(settings, self.scale.curve, "long_run")
        run = self.long_run
        if run.done > iterations:  # what was saved is further: this row needs a run of its own
            run = self.run(settings, self.scale.curve, None)
        run.advance(iterations)
        count, gone = len(run.x), len(run.x) - len(run.left)
        best, last = (self.met(run, x_adv, self.sap(1.0)) for x_adv in (run.x_best, run.x_adv))
        run.leave(best)
        row = share(gone + int(best.sum()), count, "targeted success")
        return {**row, "also": {"last iterate": (gone + int(last.sum())) / count}}

    def published(self, goal: Goal, steps: int) -> Row:
        """The attack with its published settings: the best iterates on the exact sampler, and every other way to judge.

        All images stay in the run to the end.
        """
        run = self.run(published(goal), self.scale.published, f"published_{goal}")
        if run.done > steps:
            run = self.run(published(goal), self.scale.published, None)
        run.advance(steps)
        deployed = self.sap(1.0)
        ways = {
            "": (run.x_best, deployed),
            "last iterate": (run.x_adv, deployed),
            "Bernoulli sampler": (run.x_best, self.sap(1.0, sampler="bernoulli")),
            "mean of probabilities": (run.x_best, self.sap(1.0, average="probabilities")),
        }
        count, saved = len(run.x), self._unfinished()
        for place in range(10 * len(saved), count, 10):  # a judgement takes longer than the attack
            run.left = torch.arange(place, min(place + 10, count), device=run.x.device)
            saved.append(tuple(int(self.met(run, *asked).sum()) for asked in ways.values()))
            self._unfinished(saved)
            self.report(run.left[-1].item() + 1, count)
        hits = dict(zip(ways, (sum(part) for part in zip(*saved, strict=True)), strict=True))
        shown = hits if goal == "targeted" else {way: count - n for way, n in hits.items()}
        what = "targeted success" if goal == "targeted" else "accuracy"
        return {
            **share(shown.pop(""), count, what),
            "also": {way: n / count for way, n in shown.items()},
        }

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
    attacked = {"steps": s.steps, "count": s.attacked}
    fewer = {"steps": s.steps, "count": s.fewer}

    def single(ratio: float) -> Classifier:
        return story.sap(ratio, passes=1, sampler="bernoulli")

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
            lambda: story.attack(single(2.0), single(2.0), Exact(), targeted=False, **attacked),
        ),
        "BPDA through the vanilla network, r = 1x": (
            "0.1 % ± 0.05",
            lambda: story.attack(
                single(1.0),
                story.sap(1.0),
                BPDA(),
                steps=s.steps,
                count=s.bpda,
                targeted=False,
                also_on=story.sap(1.0, sampler="bernoulli"),
            ),
        ),
        "transfer from the vanilla network, targeted": (
            "70 % success",
            lambda: story.attack(story.vanilla, story.sap(1.0), Exact(), targeted=True, **fewer),
        ),
        "no BPDA, exact gradient, untargeted": (
            "not effective, about 83 % stays",
            lambda: story.attack(single(1.0), story.sap(1.0), Exact(), targeted=False, **fewer),
        ),
    }

    def without_bpda(n: int) -> Callable[[], Row]:
        return lambda: story.curve(n)

    for n in s.iterations[:-1]:
        table[f"no BPDA, targeted, {n:,} iterations"] = ("below 50 % success", without_bpda(n))
    for n in s.published_steps:
        for goal, said in (("untargeted", "about 83 % stays"), ("targeted", "below 50 % success")):
            name = f"no BPDA, published settings, {goal}, {n:,} steps"
            table[name] = (said, partial(story.published, goal, n))
    table["BPDA through the vanilla network, targeted"] = (
        "-",
        lambda: story.attack(single(1.0), story.sap(1.0), BPDA(), targeted=True, **fewer),
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
    also = "".join(f", {way} {100 * value:.1f} %" for way, value in row.get("also", {}).items())
    return f"{100 * row['value']:.1f} % {row['what']} [{low:.1f}, {high:.1f}]{also}"


def at_published_scale(request: Request) -> dict[str, Work]:
    """The whole test set, and the targeted run of 10,000 steps on 200 images; each point is judged over 100 passes."""
    story = Story(replace(request, quick=False))
    images, long, steps, passes = 10_000, 200, 10_000, FULL.passes

    def work(count: int, gradients: float, crafted_on: Callable[[], Classifier]) -> Work:
        return Work(
            network=lambda: cast(nn.Module, crafted_on().network),
            deployed=lambda: cast(nn.Module, story.sap(1.0).network),
            shape=(3, 32, 32),
            gradients=count * gradients,
            forwards=count * passes,
        )

    def bernoulli() -> Classifier:
        return story.sap(1.0, passes=1, sampler="bernoulli")

    return {
        f"BPDA, {FULL.steps} steps, {images:,} images": work(images, FULL.steps, lambda: story.vanilla),
        f"no BPDA, published settings, 500 steps, {images:,} images": work(images, 500, bernoulli),
        f"no BPDA, targeted, {steps:,} steps, {long} images": work(long, steps, bernoulli),
    }
