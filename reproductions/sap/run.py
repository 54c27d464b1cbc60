"""Stochastic activation pruning: evaluated wrongly, attacked wrongly, attacked rightly.

Every row of the table is one function below. `unmask reproduce sap` runs them; each is saved as it ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import SAP
from unmask.gradients import BPDA, Exact, GradientEstimator
from unmask.judge import judge
from unmask.objectives import cross_entropy
from unmask.randomness import Streams
from unmask.statistics import clopper_pearson
from unmask.threat import Linf
from unmask.training import Standard
from unmask.zoo import CNN, ResNet20

WEIGHTS = Path(__file__).with_name("weights") / "resnet20_cifar10_jpeg.safetensors"
EPSILON = 0.031
# The long run's step, as a share of epsilon: PGD's default. It crosses the ball in 32 steps.
STEP = 0.0625
SAVE_EVERY = 100  # steps of the long run between two saved states, some seconds apart
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured: numbers of images, passes of the claim, steps.

    **Fields**
    - `clean`, `single`, `mean`: images for the clean accuracy of the network, of one pass, of the mean.
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


FULL = Scale(10_000, 1000, 100, 100, 400, 50, 16, 100, 60, (10, 100, 1000, 10_000), EPSILON)
QUICK = Scale(500, 500, 200, 100, 100, 100, 50, 30, 40, (10, 100), 0.2)


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
        self.long_run: LongRun | None = None
        self.folder: Path | None = None
        self.row = ""
        self.report: Callable[[int, int], None] = lambda done, total: None

    def watch(self, folder: Path, row: str, report: Callable[[int, int], None]) -> None:
        """Tells where to keep unfinished work, of which row, and whom to tell how much of it is done."""
        self.folder, self.row, self.report = folder, row, report

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
        saved = self._unfinished()
        for number, part in enumerate(torch.arange(len(x)).split(50)):
            if number < len(saved):
                continue
            streams = self.streams("attack", len(x))[part]
            x_adv = attack.run(crafted_on, x[part], y[part], threat, generator=streams)
            fresh = self.streams("judge", len(x))[part]
            verdict = judge(judged_on, x_adv, x[part], y[part], threat, generator=fresh)
            assert bool(verdict.allowed.all())
            saved.append((float(verdict.failure_rate.sum()), int((verdict.prediction == self.y[part]).sum())))
            self._unfinished(saved)
            self.report(min(50 * len(saved), len(x)), len(x))
        hits, right = sum(batch[0] for batch in saved), sum(batch[1] for batch in saved)
        if targeted:
            return {**share(round(hits), len(x), "targeted success"), "accuracy": right / len(x)}
        return share(len(x) - round(hits), len(x), "accuracy")

    def _unfinished(self, batches: list[tuple[float, int]] | None = None) -> list[tuple[float, int]]:
        """The finished batches of this row, `(hits, still right)` each, as they were saved or as they are now."""
        if self.folder is None:
            return []
        file = self.folder / "unfinished.json"
        if batches is None:
            known = json.loads(file.read_text()) if file.exists() else {}
            return [tuple(batch) for batch in known["batches"]] if known.get("row") == self.row else []
        self.folder.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(json.dumps({"row": self.row, "batches": batches}))
        file.with_suffix(".part").replace(file)
        return batches

    def curve(self, iterations: int) -> Row:
        """Targeted success within so many iterations of one and the same run without BPDA.

        An image whose best iterate fools the deployed defence here has left the run before the next row.
        """
        crafted_on, count = self.sap(1.0, passes=1, sampler="bernoulli"), self.scale.curve
        if self.long_run is None:
            file = None if self.folder is None else self.folder / "long_run.safetensors"
            self.long_run = LongRun(self, crafted_on, count, file)
        run = self.long_run
        if run.done > iterations:  # what was saved is further: this row needs a run of its own
            run = LongRun(self, crafted_on, count, None)
        run.advance(iterations)
        left = run.left
        hits: dict[str, Tensor] = {}
        for name, x_adv in (("best", run.x_best), ("last", run.x_adv)):
            hits[name] = torch.zeros(len(left), dtype=torch.bool)
            if len(left):
                x_adv = run.threat.settle(x_adv[left], run.x[left])
                fresh = self.streams("judge", count)[left]
                verdict = judge(self.sap(1.0), x_adv, run.x[left], run.y[left], run.threat, generator=fresh)
                assert bool(verdict.allowed.all())
                hits[name] = verdict.failure_rate > 0
        run.leave(hits["best"])
        gone = count - len(left)
        row = share(gone + int(hits["best"].sum()), count, "targeted success")
        return {**row, "last_iterate": (gone + int(hits["last"].sum())) / count}

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


class LongRun:
    """Targeted PGD without BPDA, crafted on single passes: one run that is looked at on its way.

    Follows the gradient of the pruned pass itself, by sign steps of `STEP` times epsilon, and keeps beside the last
    iterate the one whose single pass had the smallest loss. It is saved every `SAVE_EVERY` steps and goes on from
    there. `left` are the images that are still attacked.
    """

    def __init__(self, story: Story, classifier: Classifier, count: int, file: Path | None):
        self.classifier, self.file, self.story = classifier, file, story
        self.x, self.y = story.x[:count], story.targets[:count]
        self.threat = Linf(epsilon=story.scale.epsilon, goal="targeted")
        self.objective = cross_entropy.for_goal("targeted")
        self.streams = story.streams("long run", count)
        self.seeds = self.streams.seeds
        self.done, self.left = 0, torch.arange(count)
        self.x_adv = self.threat.random_start(self.x, generator=self.streams)
        self.x_best = self.x_adv.clone()
        self.value_best = torch.full((count,), -torch.inf)
        if file is not None and file.exists():
            self._load(file)

    def advance(self, iterations: int) -> None:
        """Goes on until so many updates are done."""
        while self.done < iterations and len(self.left):
            left = self.left
            x, y, x_adv = self.x[left], self.y[left], self.x_adv[left]
            est = Exact().estimate(self.classifier, self.objective, x_adv, y, generator=self.streams)
            better = left[est.value > self.value_best[left]]
            self.x_best[better] = self.x_adv[better]
            self.value_best[left] = torch.maximum(self.value_best[left], est.value)
            step = STEP * self.threat.epsilon * self.threat.steepest_ascent(est.grad)
            self.x_adv[left] = self.threat.project(x_adv + step, x)
            self.done += 1
            if self.done % SAVE_EVERY == 0:
                self.story.report(self.done, iterations)
                self._save()

    def leave(self, hit: Tensor) -> None:
        """Takes images out of the run; `hit` says which of those left."""
        self.left, self.streams = self.left[~hit], self.streams[~hit]
        self._save()

    def _save(self) -> None:
        if self.file is None:
            return
        state: dict[str, Tensor] = {
            "x_adv": self.x_adv,
            "x_best": self.x_best,
            "value_best": self.value_best,
            "left": self.left,
            "seeds": self.seeds,
        }
        part = self.file.with_suffix(".part")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, part, {"done": str(self.done), "counter": str(self.streams.counter)})
        part.replace(self.file)

    def _load(self, file: Path) -> None:
        with safe_open(file, "pt") as saved:
            state, told = {name: saved.get_tensor(name) for name in saved.keys()}, saved.metadata()  # noqa: SIM118
        if not torch.equal(state["seeds"], self.seeds):
            return  # another seed's or another scale's run
        self.x_adv, self.x_best, self.value_best = state["x_adv"], state["x_best"], state["value_best"]
        self.done, self.left = int(told["done"]), state["left"]
        self.streams = Streams(self.seeds[self.left], int(told["counter"]))


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
            lambda: story.attack(bernoulli, judged, BPDA(), steps=s.steps, count=s.bpda, targeted=False),
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
        return lambda: story.curve(n)

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
    last = f", last iterate {100 * row['last_iterate']:.1f} %" if "last_iterate" in row else ""
    return f"{100 * row['value']:.1f} % {row['what']} [{low:.1f}, {high:.1f}]{last}"
