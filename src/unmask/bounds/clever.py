"""CLEVER: an *estimate* of the distance below which no adversarial example exists. It is not a bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..gradients import Exact, GradientEstimator
from ..objectives import Targeted
from ..randomness import SampleStreams, Streams
from ..threat import ThreatModel
from .half import HalfBackward
from .weibull import WeibullFit, fit_reverse_weibull

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]

# Points drawn together, so that `points_at_once` changes only the memory and not the points.
_BLOCK = 512


@dataclass(frozen=True)
class CleverScore:
    """One example's CLEVER score and what it rests on.

    **Fields**
    - `score`: estimated distance in the threat's norm; at most the sampling radius; 0 where the prediction is wrong
      (targeted: where it is the target already); NaN where a gradient was not finite.
    - `target`: the class with the smallest score.
    - `margin`: logit of the true class minus the target's, at the example.
    - `lipschitz`: estimated largest dual norm of the gradient of that difference in the ball.
    - `fit`: the reverse Weibull law of the maxima; None where `degenerate` says why there is none. Where it does not
      fit at all, `lipschitz` is the largest norm seen.
    - `spread`: smallest of the maxima by the largest, in [0, 1]; 0 where all are zero, NaN where one is not finite.
    - `zero_gradient_share`: share of the sampled gradients, over all targets, that are exactly zero everywhere.
    - `capped`: whether the score is the sampling radius itself, so that the distance may be larger.
    - `degenerate`: `zero` (every maximum is zero), `constant` (all maxima are equal: a linear function, or a pool too
      small), `misclassified`, `nonfinite`, or None.
    """

    score: float
    target: int
    margin: float
    lipschitz: float
    fit: WeibullFit | None
    spread: float
    zero_gradient_share: float
    capped: bool
    degenerate: Literal["zero", "constant", "misclassified", "nonfinite"] | None


@dataclass(frozen=True, kw_only=True)
class Clever:
    """Cross-Lipschitz extreme value for network robustness.

    The largest gradient norm in each of `batches` samples of the ball follows a reverse Weibull law if the network is
    Lipschitz; its end point estimates the local Lipschitz constant L, and margin / L the distance. Goodfellow 2018
    (arXiv:1804.07870) shows where this fails without notice: see `mark`.

    **Fields**
    - `batches`: number of maxima, N_b; at least 10.
    - `samples`: points per maximum, N_s.
    - `pool_factor`: None draws fresh points for each maximum, as the paper says. A number k draws `k * samples`
      points once, and each maximum is taken over a random part of them, as the released code and ART do: `batches / k`
      times cheaper, but the maxima then repeat, and the fit's p-value means nothing and is NaN.
    - `gradient`: how a slope is estimated.
    - `points_at_once`: points per forward pass, at most 512; bounds the memory. On a processor 256 are faster where
      the activations of 512 leave its cache.
    - `half`: backward passes of the exact gradient in bfloat16 (see `HalfBackward`), for processors and GPUs that
      multiply in it. Each maximum then carries its rounding, at most 1.1 % on nine networks (`docs/bounds.md`).

    **Cost**: `batches * samples` points per example (`pool_factor * samples` with a pool), one estimate each
    per target; with the exact gradient one forward, and one backward per target. One more forward per example.
    **Source**: Weng et al. 2018, arXiv:1801.10578, algorithm 1.
    **Differs**: the margin is that of the label, not of the predicted class, so a wrong prediction scores 0.
    """

    batches: int = 500
    samples: int = 1024
    pool_factor: int | None = None
    gradient: GradientEstimator = Exact()
    points_at_once: int = 512
    half: bool = False

    def __post_init__(self) -> None:
        if self.batches < 10:
            raise UnusableInput(f"batches is {self.batches}; a law needs at least 10 maxima")
        if self.samples < 1:
            raise UnusableInput(f"samples is {self.samples}; give at least 1")
        if self.pool_factor is not None and self.pool_factor < 1:
            raise UnusableInput(
                f"pool_factor is {self.pool_factor}; give at least 1, or None for fresh points"
            )

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> list[CleverScore]:
        """One record per example. `threat` gives the norm, the box and the goal; its epsilon is the sampling radius.

        Untargeted: the smallest score over all other classes, all from the same points. Targeted: `y` is the target
        and the predicted class the one to leave.
        """
        streams = Streams.of(generator, len(x))
        with torch.no_grad():
            logits = classifier(x, generator=streams).logits
        classes = torch.arange(logits.shape[1], device=x.device)
        if threat.goal == "targeted":
            source, targets = logits.argmax(1), y[:, None]
        else:
            source, targets = y, classes.expand(len(y), -1)[classes != y[:, None]].reshape(len(y), -1)
        margins = (logits.gather(1, source[:, None]) - logits.gather(1, targets)).double()
        maxima, zeros = self._maxima(classifier, x, source, targets, threat, streams)
        return [
            self._score(margins[i], targets[i], maxima[i], float(zeros[i]), threat.epsilon)
            for i in range(len(x))
        ]

    def _maxima(
        self,
        classifier: Classifier,
        x: Images,
        source: Labels,
        targets: Int[Tensor, "batch targets"],
        threat: ThreatModel,
        streams: Streams,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maxima `[batch, targets, batches]` and the share of zero gradients `[batch]`."""
        drawn = self.samples * (self.batches if self.pool_factor is None else self.pool_factor)
        norms = x.new_zeros(*targets.shape, drawn, dtype=torch.float64)
        own = [streams[i : i + 1] for i in range(len(x))]
        for i in range(len(x)):
            done = 0
            for points, noise in self._points(x[i], threat, own[i], drawn):
                part = slice(done, done := done + len(points))
                label = source[i].expand(len(points))
                for t, grad in enumerate(self._slopes(classifier, points, label, targets[i], noise)):
                    flat = grad.flatten(1)
                    # In float64 no norm of a float32 gradient underflows to a false zero.
                    norms[i, t, part] = torch.linalg.vector_norm(
                        flat, threat.dual_p, dim=1, dtype=torch.float64
                    )
        zeros = (norms == 0).double().mean((1, 2))
        if self.pool_factor is None:
            maxima = norms.reshape(*targets.shape, self.batches, self.samples).amax(3)
        else:
            count = self.batches * self.samples
            chosen = [SampleStreams(s, 1).integers(0, drawn, count, device=x.device) for s in own]
            index = torch.stack(chosen).expand(-1, targets.shape[1], -1)
            maxima = norms.gather(2, index).reshape(*targets.shape, self.batches, self.samples).amax(3)
        return maxima.cpu().numpy(), zeros.cpu().numpy()

    def _points(
        self, x: Float[Tensor, " *dims"], threat: ThreatModel, stream: Streams, count: int
    ) -> Iterator[tuple[Images, Streams]]:
        """Random points of one example's ball and box, `points_at_once` at most, and a stream for each."""
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            own = SampleStreams(stream.fork(f"points {start}"), size)
            block = threat.random_start(x.expand(size, *x.shape), generator=own)
            for first in range(0, size, self.points_at_once):
                part = slice(first, first + self.points_at_once)
                yield block[part], own[part]

    def _slopes(
        self, classifier: Classifier, points: Images, label: Labels, targets: Labels, streams: Streams
    ) -> Iterator[Images]:
        """The gradient of each target's logit minus the label's. Autograd's own share one forward pass."""
        objectives = [Targeted(target.expand(len(points))) for target in targets]
        if not isinstance(self.gradient, Exact):
            for objective in objectives:
                yield self.gradient.estimate(classifier, objective, points, label, generator=streams).grad
            return
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            outputs = classifier(points, generator=streams)
            for objective in objectives:
                more = objective is not objectives[-1]
                values = objective(outputs, label)
                with HalfBackward() if self.half else nullcontext():
                    slope = classifier.gradient(values, points, retain_graph=more)
                yield slope

    def _score(
        self, margins: Tensor, targets: Tensor, maxima: np.ndarray, zeros: float, radius: float
    ) -> CleverScore:
        scores = [
            self._of_target(float(margin), int(target), row, zeros, radius)
            for margin, target, row in zip(margins, targets, maxima, strict=True)
        ]
        return min(scores, key=lambda s: -1.0 if math.isnan(s.score) else s.score)

    def _of_target(
        self, margin: float, target: int, maxima: np.ndarray, zeros: float, radius: float
    ) -> CleverScore:
        if not (np.isfinite(maxima).all() and math.isfinite(margin)):
            return CleverScore(math.nan, target, margin, math.nan, None, math.nan, zeros, False, "nonfinite")
        largest = float(maxima.max())
        spread = float(maxima.min()) / largest if largest > 0 else 0.0
        if margin <= 0:
            return CleverScore(0.0, target, margin, largest, None, spread, zeros, False, "misclassified")
        if largest == 0:
            return CleverScore(radius, target, margin, 0.0, None, spread, zeros, True, "zero")
        fit, lipschitz = None, largest
        if spread < 1 - 1e-6:  # else equal up to float32 rounding of the gradient: there is no law to fit
            fit = fit_reverse_weibull(maxima)
            if self.pool_factor is not None:
                fit = replace(fit, ks_pvalue=math.nan)
            lipschitz = fit.end_point
        score = margin / lipschitz
        kind = None if fit else "constant"
        capped = score >= radius
        return CleverScore(min(score, radius), target, margin, lipschitz, fit, spread, zeros, capped, kind)
