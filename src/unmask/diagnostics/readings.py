"""How else the images may have been meant, where a network does badly on them as they are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from scipy.stats import binomtest
from torch import Tensor

from ..classifier import Classifier
from ..data.box import InUnits
from ..errors import ModelFailed
from ..randomness import Streams
from ..sources.preprocessing import Preprocessed, Preprocessing
from .base import Images, Labels

BELOW = 0.8  # clean accuracy under which other readings are tried. Ours.
EXAMPLES, FEW = 64, 16  # asked about each reading, and about each size, which may be large. Ours.
# Most that a reading may leave of the mistakes, and the largest chance that it is luck, over all that were tried. Ours.
MISTAKES, CHANCE = 2 / 3, 0.01
SIZES = (224, 32, 28, 64, 96, 128, 256, 299, 384)

# Mean and deviation of the training images, as their libraries' recipes have them, in units of [0, 1].
_COLOUR = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet (torchvision)
    ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),  # CIFAR-10
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),  # CIFAR-100
    ((0.485, 0.458, 0.408), (1 / 255,) * 3),  # ImageNet, means taken off bytes (Caffe, Keras)
)
_SIZES = ("resize", "crop")
_GREY = (((0.1307,), (0.3081,)), ((0.286,), (0.353,)))  # MNIST, Fashion-MNIST


@dataclass(frozen=True)
class _Tried:
    steps: Preprocessing
    accuracy: float
    better: int
    worse: int

    def pays(self, given: float, tried: int) -> bool:
        """Whether it is far better than the images as they are given, and not by luck (sign test, Bonferroni)."""
        if 1 - self.accuracy > MISTAKES * (1 - given):
            return False
        chance = binomtest(self.better, self.better + self.worse, 0.5, alternative="greater").pvalue
        return float(chance) * tried < CHANCE


def meant(classifier: Classifier, x: Images, y: Labels, accuracy: float, streams: Streams) -> str:
    """A sentence that says with which options the network does far better; empty where none is known.

    Tried are, on at most 64 images, the usual numbers (bytes, [-1, 1], published means and deviations, the data's own),
    the order of the channels and the layout; then, on at most 16, the usual sizes.

    **Arguments**
    - `x`: in [0, 1]; `y`: the true labels; `accuracy`: on all of them, as given.

    **Cost**: none from an accuracy of 0.8 on; else at most 26 forwards of 64 images and 9 of 16.
    """
    if (
        accuracy >= BELOW
        or x.ndim != 4
        or x.shape[1] not in (1, 3)
        or isinstance(classifier.network, InUnits)
    ):
        return ""
    many, few = ((x[:n], y[:n], streams[:n]) for n in (EXAMPLES, FEW))
    given = _right(classifier, *many)
    found = list(_tried(classifier, *many, given, _numbers(x)))
    best = _best(found, float(given.double().mean()))
    before = Preprocessing() if best is None else best.steps
    at_first = as_given = _right(classifier, *few)
    sized = list(_tried(classifier, *few, as_given, _sizes(x.shape[-1], before)))
    if best is not None:
        at_first = _right(_behind(classifier, before), *few)
    larger = _best(sized, float(at_first.double().mean()))
    best = larger or best
    if best is None:
        return ""
    asked = len(as_given) if best is larger else len(given)
    return (
        f"clean accuracy is {accuracy:.1%} as the images are given, and {best.accuracy:.1%} of {asked} with "
        f"{options(best.steps)}: if the network was trained so, give that, or do the same inside the network"
    )


def runs_with(classifier: Classifier, x: Images, streams: Streams) -> str:
    """The options with which a network runs that fails on `x`; empty where none is known. **Cost**: 20 forwards."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or isinstance(classifier.network, InUnits):
        return ""
    layouts = [Preprocessing(channels_last=True)]
    sizes = [Preprocessing(resize=size, crop=size) for size in SIZES if size != x.shape[-1]]
    both = [step.updated(Preprocessing(channels_last=True)) for step in sizes]
    for steps in (*layouts, *sizes, *both):
        try:
            with torch.no_grad():
                logits = _behind(classifier, steps)(x, generator=streams.fork("readings")).logits
        except ModelFailed:
            continue
        if logits.ndim == 2 and len(logits) == len(x) and bool(torch.isfinite(logits).all()):
            return options(steps)
    return ""


def runs_with_channels(classifier: Classifier, x: Images, streams: Streams) -> int:
    """1 or 3 where a network that fails on `x` runs with so many channels, else 0. **Cost**: a forward."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or isinstance(classifier.network, InUnits):
        return 0
    other = x.mean(1, keepdim=True) if x.shape[1] == 3 else x.expand(-1, 3, -1, -1).contiguous()
    try:
        with torch.no_grad():
            logits = classifier(other, generator=streams.fork("readings")).logits
    except ModelFailed:
        return 0
    usable = logits.ndim == 2 and len(logits) == len(x) and bool(torch.isfinite(logits).all())
    return other.shape[1] if usable else 0


def options(steps: Preprocessing) -> str:
    """The steps as one types them.

    >>> options(Preprocessing(mean=(0.5, 0.5, 0.5), std=(1 / 255,), channels_last=True))
    '--mean 0.5,0.5,0.5 --std 1/255 --channels-last'
    """
    said = []
    for field in fields(Preprocessing):
        value = getattr(steps, field.name)
        if value:
            name = f"--{field.name.replace('_', '-')}"
            said.append(
                name if value is True else f"{name} {_typed(value, 'x' if field.name in _SIZES else ',')}"
            )
    return " ".join(said)


def _typed(value: object, between: str) -> str:
    if isinstance(value, tuple):
        return between.join(_typed(one, between) for one in value)
    return "1/255" if value == 1 / 255 else f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(x: Images) -> list[Preprocessing]:
    """What may stand between these images and the network, but for their size: the plain ones first."""
    channels = x.shape[1]
    numbers = [Preprocessing(), Preprocessing(std=(1 / 255,)), Preprocessing(mean=(0.5,), std=(0.5,))]
    numbers += [Preprocessing(mean=m, std=s) for m, s in (_COLOUR if channels == 3 else _GREY)]
    std, mean = torch.std_mean(x.double(), dim=(0, 2, 3))
    if bool((std > 0).all()):
        numbers.append(
            Preprocessing(
                mean=tuple(round(v, 4) for v in mean.tolist()), std=tuple(round(v, 4) for v in std.tolist())
            )
        )
    layouts = [Preprocessing(), Preprocessing(channels_last=True)]
    if channels == 3:
        layouts.insert(1, Preprocessing(bgr=True))
    found = [step.updated(layout) for layout in layouts for step in numbers]
    return [step for step in found if step != Preprocessing()]


def _sizes(now: int, steps: Preprocessing) -> list[Preprocessing]:
    return [steps.updated(Preprocessing(resize=size, crop=size)) for size in SIZES if size != now]


def _tried(
    classifier: Classifier,
    x: Images,
    y: Labels,
    streams: Streams,
    given: Tensor,
    readings: list[Preprocessing],
) -> Iterator[_Tried]:
    for steps in readings:
        try:
            right = _right(_behind(classifier, steps), x, y, streams)
        except ModelFailed:  # it takes no such layout or size
            continue
        yield _Tried(
            steps, float(right.double().mean()), int((right & ~given).sum()), int((given & ~right).sum())
        )


def _best(found: list[_Tried], given: float) -> _Tried | None:
    """Of those that pay, the first that is within two points of the best."""
    paying = [one for one in found if one.pays(given, len(found))]
    if not paying:
        return None
    most = max(one.accuracy for one in paying)
    return next(one for one in paying if one.accuracy >= most - 0.02)


def _behind(classifier: Classifier, steps: Preprocessing) -> Classifier:
    asked = Preprocessed(classifier.network, steps, read=lambda outputs: outputs)
    return classifier.replace(network=asked.on(classifier.device))


def _right(classifier: Classifier, x: Images, y: Labels, streams: Streams) -> Tensor:
    with torch.no_grad():
        logits = classifier(x, generator=streams.fork("readings")).logits
    if logits.ndim != 2 or len(logits) != len(x):
        raise ModelFailed("no logits")
    return logits.argmax(1) == y
