"""CLEVER calls fragile models robust: staircase, ramp, saturated sigmoids, precision; and our marks notice.

Every row of the table is one function below. `unmask reproduce clever` runs them; each is saved as it ends.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from unmask.bounds import Bracketing, Brackets, Clever, NearestSearch
from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.reproducing.request import Request
from unmask.threat import L2, Linf, NormBall, ThreatModel
from unmask.training import Standard
from unmask.zoo import CNN

sys.path.insert(0, str(Path(__file__).parent))
from counterexamples import InPrecision, Ramp, SaturatedSigmoid, Staircase
from saturated_units import KINDS, POOL, by_art, saturated, saturated_on_digits

Row = dict[str, Any]
# Shares of a step that rise; 0.2 is the paper's figure.
WIDTHS = (0.5, 0.2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-7)
GAINS = (100.0, 1e3)


@dataclass(frozen=True)
class Scale:
    """How much is measured: images, maxima and points of CLEVER, its radius for each norm, and the attacks' steps.

    `units` are images in front of saturated units, `art` the first of them that ART scores too, `paper` N_b and N_s.
    """

    images: int
    batches: int
    samples: int
    linf: float
    l2: float
    steps: int
    units: int
    art: int
    paper: tuple[int, int]


FULL = Scale(6, 30, 32, 0.3, 2.0, 10, units=8, art=3, paper=(500, 1024))
QUICK = Scale(4, 20, 32, 0.3, 2.0, 12, units=4, art=1, paper=(20, 32))


class Story:
    """The fragile network, the images, and every model that hides its slope.

    `mnist_lenet5` of the folder `models` beside the one that UNMASK_DATA names, or a small CNN on digits, trained in
    seconds.
    """

    def __init__(self, request: Request):
        self.request, self.seed = request, request.seed
        self.scale = request.scaled(
            QUICK if request.quick else FULL, examples=("images", "units"), steps=("steps",)
        )

    @cached_property
    def network(self) -> nn.Module:
        return (_digits_network() if self.request.quick else _mnist_network()).to(self.request.device)

    @cached_property
    def images(self) -> Data:
        """The first ones that the network gets right."""
        return self.right(self.network, self.scale.images)

    def right(self, network: nn.Module, count: int) -> Data:
        """The first `count` images that a network gets right, of four times as many."""
        name, size = ("digits", 8) if self.request.quick else ("mnist", 28)
        data = self.request.load(name, split="test", examples=4 * count, shape=(1, size, size))
        with torch.no_grad():
            return data[(network(data.x).argmax(1) == data.y).nonzero()[:, 0][:count]]

    def bracket(self, model: nn.Module, threat: ThreatModel) -> Row:
        """Median CLEVER score and attack distance, how many scores lie at or above it, and how those are marked."""
        clever = Clever(batches=self.scale.batches, samples=self.scale.samples)
        return _row(self.brackets(model, self.images, threat, clever))

    def brackets(self, model: nn.Module, data: Data, threat: ThreatModel, clever: Clever) -> Brackets:
        """Scores, and the nearest adversarial examples that attacks find."""
        search = NearestSearch(steps=self.scale.steps, restarts=1, targets=4)
        streams = Streams.seeded(self.seed, data.index, "clever")
        classifier = Classifier(model, deterministic=True)
        bracketing = Bracketing(clever=clever, search=search, methods=())
        return bracketing.run(classifier, data.x, data.y, threat, generator=streams)

    def units(self, kind: str, threat: NormBall) -> Row:
        """The same on a network of saturated units, at the paper's N_b x N_s, and ART on some of the images."""
        network = saturated_on_digits() if self.request.quick else saturated(kind)
        network = network.to(self.request.device)
        batches, samples = self.scale.paper
        clever = Clever(batches=batches, samples=samples, pool_factor=POOL)
        data = self.right(network, self.scale.units)
        found = self.brackets(network, data, threat, clever)
        theirs = by_art(network, data.x[: self.scale.art], threat, clever, self.seed)
        return {
            **_row(found),
            "scores": [b.clever.score for b in found.examples],
            "distances": [b.attack for b in found.examples],
            "art": theirs,
        }

    def linf(self) -> NormBall:
        return Linf(epsilon=self.scale.linf)

    def l2(self) -> NormBall:
        return L2(epsilon=self.scale.l2)

    def behind(self, *layers: nn.Module) -> nn.Module:
        """The network behind something."""
        return nn.Sequential(*layers, self.network).eval()


def _row(found: Brackets) -> Row:
    right = [b for b in found.examples if b.attack > 0]
    misled = [b for b in right if b.clever.score >= b.attack]
    return {
        "clever": median(b.clever.score for b in right) if right else None,
        "attack": median(b.attack for b in right) if right else None,
        "zero_gradients": sum(b.clever.zero_gradient_share for b in right) / max(len(right), 1),
        "misled": len(misled),
        "misled_unmarked": sum(b.marked.mark == "unrefuted" for b in misled),
        "marks": found.counts(),
        "masking": bool(found.masking),
        "images": len(right),
    }


def _digits_network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = CNN(8, widths=(8, 16), hidden=32)
    recipe = Standard(epochs=6, batch_size=32, learning_rate=0.1, pad=0, mirror=False)
    recipe.fit(network, load("digits", split="train"), None, generator=torch.Generator().manual_seed(0))
    return network.eval()


def _mnist_network() -> nn.Module:
    folder = os.environ.get("UNMASK_DATA")
    file = Path(folder or "", "..", "models", "networks.py")
    if not folder or not file.is_file():
        raise UnusableInput(
            "the full reproduction needs mnist_lenet5 of models/networks.py beside the folder that UNMASK_DATA names; "
            "set it, or give --quick"
        )
    spec = importlib.util.spec_from_file_location("other_peoples_networks", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mnist_lenet5()


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, what the report says, and how to measure ours."""
    robust = "robust, though it is not"
    linf, l2 = story.linf(), story.l2()
    table: dict[str, tuple[str, Callable[[], Row]]] = {}

    def measure(model: Callable[[], nn.Module], threat: ThreatModel) -> Row:
        return story.bracket(model(), threat)

    def add(name: str, published: str, model: Callable[[], nn.Module], *threats: ThreatModel) -> None:
        for threat in threats or (linf, l2):
            table[f"{name}, {threat.norm}"] = (published, partial(measure, model, threat))

    add("the network itself", "-", lambda: story.network)
    add("staircase, c = 255", robust, lambda: story.behind(Staircase()))
    for width in WIDTHS:
        said = "as delta shrinks, no gradient is seen" if width < 0.2 else "-"
        add(f"ramp, delta = {width:g}", said, lambda width=width: story.behind(Ramp(width=width)), linf)
    for gain in GAINS:
        add(
            f"sigmoid, gain {gain:g}",
            "may saturate to machine zero",
            lambda gain=gain: story.behind(SaturatedSigmoid(gain)),
            linf,
        )
    for gain in (1e5, 1e7):
        for dtype in (torch.float32, torch.float64):
            add(
                f"sigmoid, gain {gain:g}, {str(dtype).removeprefix('torch.')}",
                "not Lipschitz on a digital computer",
                lambda gain=gain, dtype=dtype: InPrecision(story.behind(SaturatedSigmoid(gain)), dtype),
                linf,
            )
    for kind in ("sharpened sigmoid",) if story.request.quick else KINDS:
        for threat in (linf, l2):
            table[f"{kind} units, {threat.norm}"] = (
                "may saturate to machine zero",
                partial(story.units, kind, threat),
            )
    return table


def describe(row: Row) -> str:
    """One cell of the table."""
    if row["clever"] is None:
        return "every image is misclassified already"
    marks = row["marks"]
    text = (
        f"CLEVER {row['clever']:.3g}, attack {row['attack']:.3g}; {row['misled']} misled, {row['misled_unmarked']} of "
        f"them unmarked; {marks['refuted']} refuted, {marks['unreliable']} unreliable, {marks['unrefuted']} unrefuted; "
        f"{100 * row['zero_gradients']:.3g} % zero gradients"
    )
    if row.get("art"):
        pairs = zip(row["scores"], row["art"], row["distances"], strict=False)
        text += "; CLEVER / ART / attack " + ", ".join(f"{o:.2g} / {a:.2g} / {d:.2g}" for o, a, d in pairs)
    return text


def plots(done: dict[str, Row]) -> dict[str, Any]:
    """CLEVER against the distance that an attack reaches, as the ramps of the staircase shrink."""
    from matplotlib.figure import Figure

    shown = [(w, done[f"ramp, delta = {w:g}, linf"]) for w in WIDTHS if f"ramp, delta = {w:g}, linf" in done]
    if not shown:
        return {}
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    widths = [w for w, _ in shown]
    axes.plot(widths, [r["clever"] for _, r in shown], "o-", label="CLEVER, median")
    axes.plot(widths, [r["attack"] for _, r in shown], "s--", label="nearest adversarial example, median")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("width of a ramp, share of a step")
    axes.set_ylabel("L∞ distance")
    axes.legend()
    return {"clever_against_delta.png": figure}
