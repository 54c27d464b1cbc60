"""Detectors at a fixed false-positive rate: against plain PGD, and against attacks that know of them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import thresholds
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from unmask.attacks import APGD, PGD, Attack, CarliniWagner, ConfidenceSweep, FeatureMatching, JointPGD
from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.defenses.detectors import (
    AnyOf,
    BayesianUncertainty,
    BinaryDetector,
    Detection,
    Detector,
    Divergence,
    FeatureSqueezing,
    KernelDensity,
    Layers,
    LocalDimension,
    Mahalanobis,
    ReconstructionError,
    suspicion,
    threshold_at,
)
from unmask.judge import judge
from unmask.objectives import Undetected, margin_loss
from unmask.randomness import Streams
from unmask.statistics import clopper_pearson
from unmask.threat import L2
from unmask.worst_case import WorstCase

Row = dict[str, Any]
RATE = 0.05  # of false positives
ATTACKED = 32  # images of MNIST
CALIBRATION = 300  # clean test images, behind the attacked ones, on which each threshold is set


@dataclass
class Setting:
    """A network and the images around it. Only images that it gets right are attacked."""

    bench: Any
    seed: int
    network: nn.Module
    fitted: int

    @cached_property
    def train(self) -> Data:
        """What the detectors are made of."""
        return load(self.bench.data.name, split="train", examples=self.fitted)

    @cached_property
    def attacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and places of the attacked ones."""
        x, y = self.bench.data.x[: 2 * self.bench.attacked], self.bench.data.y[: 2 * self.bench.attacked]
        with torch.no_grad():
            right = (self.network(x).argmax(1) == y).nonzero()[:, 0][: self.bench.attacked]
        return x[right], y[right], right

    @cached_property
    def clean(self) -> Tensor:
        """Those on which the thresholds are set."""
        start = 2 * self.bench.attacked
        return self.bench.data.x[start : start + CALIBRATION]

    @cached_property
    def known(self) -> Tensor:
        """The adversarial images that a defender thinks of: PGD on some of the training images."""
        x, y = self.train.x[:500], self.train.y[:500]
        streams = Streams.seeded(self.seed, self.train.index[:500], "known")
        plain = Classifier(self.network, deterministic=True)
        return PGD(steps=20, early_stop=False).run(plain, x, y, self.bench.threat, generator=streams)

    def generator(self) -> torch.Generator:
        """Randomness that belongs to no image."""
        return torch.Generator().manual_seed(self.seed)


def detectors(setting: Setting) -> dict[str, Callable[[], Detector]]:
    """How each is made."""
    net, x, y = setting.network, setting.train.x, setting.train.y

    def magnet() -> Detector:
        coder = setting.bench.networks["reformer"]
        parts = [
            ReconstructionError(coder, p=1.0),
            Divergence(net, coder),
            Divergence(net, coder, temperature=40.0),
        ]
        scores = [suspicion(part, setting.clean, generator=setting.generator()) for part in parts]
        held = [threshold_at(each, RATE / len(parts)) for each in scores]
        return AnyOf(list(zip(parts, held, strict=True)), setting.clean)

    return {
        "kernel density": lambda: KernelDensity(net, x, y),
        "Mahalanobis": lambda: Mahalanobis(net, x, y, x_adv=setting.known),
        "local dimension": lambda: LocalDimension(net, x[:400], x_adv=setting.known[:200]),
        "MagNet's detectors": magnet,
        "feature squeezing": lambda: FeatureSqueezing(net),
        "learned, on images": lambda: BinaryDetector(x[:500], setting.known, generator=setting.generator()),
        "learned, on the last hidden layer": lambda: BinaryDetector(
            x[:500], setting.known, layers=Layers(net), generator=setting.generator()
        ),
        "Bayesian uncertainty": lambda: BayesianUncertainty(net),  # thirty passes: the dearest
    }


def rows(story: Any) -> dict[str, tuple[str, Callable[[], Row]]]:
    """One row for each detector, on digits or MNIST, and other people's MagNet, where it is at hand.

    One more row holds all of them against an attack that knows of none.
    """
    bench = story.benches[0] if story.quick else replace(story.benches[0], attacked=ATTACKED)
    setting = Setting(bench, story.seed, bench.networks["plain"], 1000 if story.quick else 1500)
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    for name, make in detectors(setting).items():
        table[f"{bench.name}, detector: {name}"] = (
            "plain PGD detected, adaptive attacks not",
            lambda make=make: row(setting, make()),
        )
    table[f"{bench.name}, detectors: Carlini-Wagner, kappa swept"] = (
        "-",
        lambda: kappas(setting),
    )
    if not story.quick and MAGNET.is_file():
        table["MNIST, detector: MagNet as others trained it"] = (
            "falls to a joint attack (Carlini & Wagner 2017, arXiv:1711.08478)",
            lambda: other_peoples_magnet(story),
        )
    return table


def adaptive(setting: Setting, detector: Detector) -> dict[str, Attack]:
    """The attacks that know of the detector. None stops at the first success of a random one."""
    stop = not isinstance(detector, BayesianUncertainty)
    steps = 2 * setting.bench.steps
    hidden = Layers(setting.network)
    return {
        "high confidence": ConfidenceSweep(
            inner=PGD(steps=steps // 2, early_stop=stop), confidences=(0.0, 5.0, 15.0, 40.0)
        ),
        "weighted sum": APGD(steps=steps, objective=Undetected(margin_loss), early_stop=stop),
        "selective": JointPGD(steps=steps, early_stop=stop),
        "orthogonal": JointPGD(rule="orthogonal", steps=steps, early_stop=stop),
        "feature matching": FeatureMatching(
            features=lambda x: hidden(x)[1][0], guides=setting.train.x[:300], steps=steps, early_stop=stop
        ),
    }


def row(setting: Setting, detector: Detector) -> Row:
    """How often each attack fools classifier and detector, and how well the detector tells its points apart."""
    defence = Detection.at(RATE, detector, setting.clean, generator=setting.generator())
    random = isinstance(detector, BayesianUncertainty)
    plain = Classifier(setting.network, deterministic=True)
    guarded, seen = behind(setting, detector, defence.threshold)
    x, y, places = setting.attacked
    threat = setting.bench.threat

    def streams(tag: str) -> Streams:
        return Streams.seeded(setting.seed, places, tag)

    def judged(x_adv: Tensor, tag: str) -> tuple[Tensor, Tensor, Tensor]:
        """Rate at which both are fooled, the score, and whether the classifier alone is fooled."""
        both = judge(guarded, x_adv, x, y, threat, draws=8, generator=streams(f"judge {tag}")).failure_rate
        alone = judge(plain, x_adv, x, y, threat, generator=streams(tag)).failure_rate
        return both, suspicion(detector, x_adv, generator=setting.generator()), alone > 0

    naive = PGD(steps=setting.bench.steps, early_stop=False)
    points = naive.run(plain, x, y, threat, generator=streams("pgd"))
    success, scores, wrong = judged(points, "pgd")
    rates = {"plain PGD": float(success.mean())}
    everyone, least = (
        torch.arange(len(x)),
        WorstCase(x),
    )  # of each image the least suspicious misclassified point
    least.offer(everyone, points, torch.where(wrong, -scores, -torch.inf))
    best = success.clone()
    for name, attack in adaptive(setting, detector).items():
        found = attack.run(seen, x, y, threat, generator=streams(name))
        success, score, fools = judged(found, name)
        rates[name] = float(success.mean())
        best = torch.maximum(best, success)
        least.offer(everyone, found, torch.where(fools, -score, -torch.inf))
    # More effort on whatever is left: towards every class, then five times as many steps, from a random point.
    steps = setting.bench.steps
    more = {
        "every class": JointPGD(targets=9, steps=2 * steps),
        "selective, longer": JointPGD(steps=10 * steps, random_start=True),
        "orthogonal, longer": JointPGD(rule="orthogonal", steps=10 * steps, random_start=True),
    }
    for name, attack in more.items():
        left = (best < 1).nonzero()[:, 0]
        if random or not len(left):
            break
        points = x.clone()
        points[left] = attack.run(seen, x[left], y[left], threat, generator=streams(name)[left])
        success, score, fools = judged(points, name)
        rates[f"{name}, on the rest"] = float(success[left].mean())
        best = torch.maximum(best, success)
        least.offer(everyone, points, torch.where(fools, -score, -torch.inf))
    clean = suspicion(detector, setting.clean, generator=setting.generator())
    detected = float((scores[wrong] > defence.threshold).float().mean()) if wrong.any() else float("nan")
    lowest = -least.value
    caught = lowest[lowest.isfinite()]
    total = float(best.sum())
    return {
        "table": __name__,
        "what": "share of images on which classifier and detector are fooled",
        "value": total / len(x),
        "interval": list(clopper_pearson(total, len(x))),
        "images": len(x),
        "false_positive_rate": RATE,
        "success": rates,
        "detected_pgd": detected,
        "detected_adaptive": float((caught > defence.threshold).float().mean())
        if len(caught)
        else float("nan"),
        "area_pgd": area(clean, scores[wrong]),
        "area_adaptive": area(clean, caught),
        "scores": {
            name: s.tolist() for name, s in (("clean", clean), ("pgd", scores[wrong]), ("adaptive", caught))
        },
        "threshold": defence.threshold,
        "threshold_uncertainty": uncertainty(setting, detector, clean, least),
    }


def behind(setting: Setting, detector: Detector, threshold: float) -> tuple[Classifier, Classifier]:
    """The network beside a detector at that threshold, and what an attack that knows of it differentiates."""
    plain = Classifier(setting.network, deterministic=True)
    random = isinstance(detector, BayesianUncertainty)
    guarded = Detection(detector=detector, threshold=threshold).wrap(plain.replace(deterministic=not random))
    if isinstance(detector, FeatureSqueezing):
        return guarded, Detection(detector=detector.differentiable(), threshold=threshold).wrap(plain)
    return guarded, guarded


def uncertainty(setting: Setting, detector: Detector, clean: Tensor, least: WorstCase) -> Row:
    """The row's figure with the threshold's own uncertainty: `thresholds.joint_interval`.

    At either end count the least suspicious points so far, and both rules of the joint attack again, which stops where
    it passes and at a stricter threshold has to go on.
    """
    x, y, places = setting.attacked
    stop = not isinstance(detector, BayesianUncertainty)

    def fooled(threshold: float) -> float:
        guarded, seen = behind(setting, detector, threshold)
        best = torch.zeros(len(x))
        for name in ("so far", "selective", "orthogonal"):
            streams = Streams.seeded(setting.seed, places, f"{name} at another threshold")
            points = least.x_adv
            if name != "so far":
                attack = JointPGD(rule=name, steps=2 * setting.bench.steps, early_stop=stop)
                points = attack.run(seen, x, y, setting.bench.threat, generator=streams)
            rate = judge(guarded, points, x, y, setting.bench.threat, draws=8, generator=streams).failure_rate
            best = torch.maximum(best, rate)
            if bool((best == 1).all()):
                break
        return float(best.sum())

    n, above = len(clean), int((clean > threshold_at(clean, RATE)).sum())
    return {
        "false_positive_rates": list(thresholds.rate_interval(n, above)),
        **thresholds.joint_interval(fooled, clean, RATE, len(x)),
    }


KAPPAS = (0.0, 5.0, 10.0, 20.0)


def kappas(setting: Setting) -> Row:
    """Carlini-Wagner's nearest points at one confidence after another, by an adversary who knows of no detector."""
    x, y, places = setting.attacked
    threat = L2(epsilon=3.0 if x.shape[-1] > 8 else 1.5)
    plain = Classifier(setting.network, deterministic=True)
    points, lengths = [], []
    for kappa in KAPPAS:
        attack = CarliniWagner(confidence=kappa, steps=100, searches=5, early_stop=False)
        streams = Streams.seeded(setting.seed, places, f"kappa {kappa}")
        points.append(attack.run(plain, x, y, threat, generator=streams))
        lengths.append(float(threat.distance(points[-1], x).mean()))
    both = {}
    for name, make in detectors(setting).items():
        guarded = Detection.at(RATE, make(), setting.clean, generator=setting.generator()).wrap(plain)
        streams = Streams.seeded(setting.seed, places, "judge kappa")
        seen = [judge(guarded, x_adv, x, y, threat, generator=streams).failure_rate for x_adv in points]
        both[name] = [float(rate.mean()) for rate in seen]
    return {
        "table": __name__,
        "what": "share of images on which classifier and detector are fooled, for each kappa",
        "value": max(max(rates) for rates in both.values()),
        "images": len(x),
        "false_positive_rate": RATE,
        "epsilon": threat.epsilon,
        "kappas": list(KAPPAS),
        "lengths": lengths,
        "both": both,
    }


def area(clean: Tensor, adversarial: Tensor) -> float:
    """Under the ROC curve: 1 where every adversarial image is more suspicious than every clean one."""
    if not len(adversarial):
        return float("nan")
    label = [0] * len(clean) + [1] * len(adversarial)
    return float(roc_auc_score(label, torch.cat([clean, adversarial]).double().numpy()))


MAGNET = Path(os.environ.get("UNMASK_DATA", ""), "..", "models", "networks.py").resolve()


class _Scores(Detector):
    """Both reconstruction errors of a network that hands them out as `scores`."""

    def __init__(self, magnet: nn.Module, which: int):
        super().__init__()
        self.magnet, self.which = magnet, which

    def forward(self, x: Tensor) -> Tensor:
        return self.magnet.scores(x)[self.which]  # type: ignore[operator]


def other_peoples_magnet(story: Any) -> Row:
    """Reformer and both detectors of the networks beside the data."""
    spec = importlib.util.spec_from_file_location("other_peoples_networks", MAGNET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.mnist_magnet()
    setting = Setting(replace(story.benches[0], attacked=ATTACKED), story.seed, network, 500)
    parts: list[Detector] = [_Scores(network, 0), _Scores(network, 1)]
    held = [threshold_at(suspicion(p, setting.clean, generator=setting.generator()), RATE / 2) for p in parts]
    return row(setting, AnyOf(list(zip(parts, held, strict=True)), setting.clean))


def describe(row: Row) -> str:
    """One cell of the table."""
    if "kappas" in row:
        cells = [
            f"{name} {', '.join(f'{100 * rate:.0f}' for rate in rates)} %"
            for name, rates in row["both"].items()
        ]
        lengths = ", ".join(f"{length:.2f}" for length in row["lengths"])
        kappas = ", ".join(f"{kappa:g}" for kappa in row["kappas"])
        return f"kappa {kappas}: mean L2 length {lengths}; classifier and detector fooled: {'; '.join(cells)}"
    low, high = (100 * v for v in row["interval"])
    ways = ", ".join(f"{name} {100 * rate:.0f} %" for name, rate in row["success"].items())
    return (
        f"plain PGD {100 * row['detected_pgd']:.0f} % detected, AUC {row['area_pgd']:.2f}; adaptive "
        f"{100 * row['detected_adaptive']:.0f} %, AUC {row['area_adaptive']:.2f}; **both fooled "
        f"{100 * row['value']:.0f} %** [{low:.0f}, {high:.0f}] ({ways}){_with_threshold(row)}"
    )


def _with_threshold(row: Row) -> str:
    if "threshold_uncertainty" not in row:
        return ""
    more = row["threshold_uncertainty"]
    low, high = (100 * v for v in more["interval"])
    least, most = (100 * v for v in more["false_positive_rates"])
    return (
        f"; with the threshold's own uncertainty [{low:.0f}, {high:.0f}]: it rejects {least:.1f} to {most:.1f} % of "
        "clean images"
    )
