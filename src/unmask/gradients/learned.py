"""A learned surrogate for BPDA, and the measurement that chooses between surrogates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..classifier import seeded
from ..errors import Unsupported
from ..randomness import Streams
from ..tracing.repair.regions.regression import regress

Images = Float[Tensor, "batch channels height width"]
Transform = Callable[[Tensor], Tensor]


class LearnedSurrogate(nn.Module):
    """Three convolutions with soft ReLUs, added to the image where the channels allow it.

    **Arguments**
    - `channels`, `out`: of the image and of the transformation's result; height and width stay.
    - `width`, `size`: inner channels, and side of the filters.
    """

    def __init__(self, channels: int, out: int, *, width: int = 16, size: int = 5):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, size, padding=size // 2),
            nn.Softplus(beta=10),  # smooth, for slopes are what it is wanted for
            nn.Conv2d(width, width, size, padding=size // 2),
            nn.Softplus(beta=10),
            nn.Conv2d(width, out, size, padding=size // 2),
        )
        self.residual = channels == out
        if self.residual:  # starts as the identity
            nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Images) -> Images:
        """Something like the transformation's result, with slopes."""
        made = self.layers(x)
        return x + made if self.residual else made


def learn(
    transform: Transform,
    x: Images,
    epsilon: float,
    *,
    generator: torch.Generator | Streams,
    steps: int = 400,
    batch_size: int = 32,
) -> LearnedSurrogate:
    """Fits a `LearnedSurrogate` to a transformation on images and around them.

    **Arguments**
    - `x`: images to learn from; a few hundred do. Keep others for `agreement`.
    - `epsilon`: around each image a second one is taken, up to twice this far in each pixel (`nudges`).

    A random transformation is learnt in the mean over its draws, by the mean over examples.

    **Cost**: two passes of `transform` over `x`, and `steps` batches of training.
    **Raises** `Unsupported` where the transformation changes height or width.
    **Source**: the idea is Athalye et al. 2018, arXiv:1802.00420, section 4.1.2; architecture and recipe are ours.
    """
    streams = Streams.of(generator, len(x))
    near = (x + 2 * nudges(x, epsilon, generator=streams)).clamp(0, 1)
    inputs = torch.cat((x, near))
    with torch.no_grad(), seeded(streams.batch_seed(), x.device):
        targets = torch.cat([transform(part) for part in inputs.split(64)])
    if targets.shape[-2:] != x.shape[-2:]:
        raise Unsupported(
            f"the transformation makes {list(targets.shape[1:])} of {list(x.shape[1:])}; a surrogate is learnt for "
            "those that keep height and width only, give `surrogate` one of your own"
        )
    order = torch.Generator().manual_seed(streams.batch_seed())
    with seeded(streams.batch_seed(), x.device):
        network = LearnedSurrogate(x.shape[1], targets.shape[1]).to(x.device)

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        while True:
            chosen = torch.randint(len(inputs), (batch_size,), generator=order).to(x.device)
            yield inputs[chosen], targets[chosen]

    regress(network, batches(), steps=steps, rate=3e-3)
    return network


def nudges(x: Images, epsilon: float, *, generator: Streams) -> Images:
    """Steps to a corner of the ball: random signs, of single pixels, of 2 x 2 and of 4 x 4 blocks, at random.

    Single pixels alone would tell little: a denoiser removes those, and lets through what an attack finds.
    """
    channels, height, width = x.shape[1:]
    kinds = []
    for side in (1, 2, 4):
        coarse = generator.signs(channels, -(-height // side), -(-width // side), device=x.device)
        kinds.append(F.interpolate(coarse, scale_factor=side)[..., :height, :width])
    which = generator.integers(0, 3, device=x.device)
    return epsilon * torch.stack(kinds)[which, torch.arange(len(x), device=x.device)]


@dataclass(frozen=True)
class Agreement:
    """How well a surrogate agrees with what it takes the place of.

    **Fields**
    - `error`: distance between its results and the transformation's, over the length of the latter; a mean over
      images.
    - `cosine`: between the change that its slope predicts and the change of the transformation itself, for steps of
      the size of an attack; a mean over images and steps. A step that changes nothing counts as 0.
    """

    error: float
    cosine: float


def agreement(
    transform: Transform,
    surrogate: Transform,
    x: Images,
    epsilon: float,
    *,
    generator: torch.Generator | Streams,
    probes: int = 4,
) -> Agreement:
    """Measures a surrogate at images it was not fitted to.

    **Cost**: `2 * probes` passes of each over `x`. Both ends of a step see the same draw of a random transformation.
    """
    streams = Streams.of(generator, len(x))
    error = cosine = 0.0
    for _ in range(probes):
        step = nudges(x, epsilon, generator=streams)
        step = (x + step).clamp(0, 1) - x
        seed = streams.batch_seed()
        with torch.no_grad():
            with seeded(seed, x.device):
                before = transform(x)
            with seeded(seed, x.device):
                after = transform(x + step)
        value, predicted = torch.autograd.functional.jvp(surrogate, x, step)
        assert isinstance(value, Tensor)
        assert isinstance(predicted, Tensor)
        change = (after - before).flatten(1)
        cosine += float(F.cosine_similarity(predicted.flatten(1), change, dim=1).mean()) / probes
        distance = (value - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1).clamp_min(1e-12)
        error += float(distance.mean()) / probes
    return Agreement(error, cosine)


@dataclass(frozen=True)
class Choice:
    """The surrogate of largest cosine, and what was measured of all.

    **Fields**
    - `name`, `surrogate`: of the chosen one.
    - `candidates`, `measured`: all of them, and what was measured of each, by name.
    """

    name: str
    surrogate: Transform
    candidates: dict[str, Transform]
    measured: dict[str, Agreement]


def choose(
    transform: Transform,
    x: Images,
    epsilon: float,
    *,
    generator: torch.Generator | Streams,
    given: Mapping[str, Transform] | None = None,
    steps: int = 400,
) -> Choice:
    """The best of the identity, the surrogates given, and one learnt on three quarters of `x`, measured on the rest.

    **Arguments**
    - `given`: differentiable functions that somebody knows to be near, by name.
    - `steps`: of training the learnt one.

    **Raises** `Unsupported` where nothing fits, which takes a transformation that changes height or width and none
    given.
    """
    streams = Streams.of(generator, len(x))
    known, held_out = slice(0, max(1, 3 * len(x) // 4)), slice(3 * len(x) // 4, None)
    candidates: dict[str, Transform] = dict(given or {})
    with torch.no_grad(), seeded(streams.batch_seed(), x.device):
        shape = transform(x[:1]).shape
    if shape == x[:1].shape:
        candidates = {"identity": _identity, **candidates}
    if shape[-2:] == x.shape[-2:]:
        candidates["learned"] = learn(transform, x[known], epsilon, generator=streams[known], steps=steps)
    if not candidates:
        raise Unsupported(
            f"the transformation makes {list(shape[1:])} of {list(x.shape[1:])}; give a surrogate for it"
        )
    measured = {
        name: agreement(transform, f, x[held_out], epsilon, generator=streams[held_out].fork("probes"))
        for name, f in candidates.items()
    }
    best = max(measured, key=lambda name: measured[name].cosine)
    return Choice(best, candidates[best], candidates, measured)


def _identity(x: Images) -> Images:
    return x
