"""CLEVER: an *estimate* of the distance below which no adversarial example exists. It is not a bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...classifier import Classifier
from ...errors import UnusableInput
from ...gradients import Exact, GradientEstimator
from ...objectives import Targeted
from ...randomness import SampleStreams, Streams
from ...threat import NormBall, ThreatModel, norm_ball
from .half import HalfTape
from .score import CleverScore, smallest_score

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]

# Points drawn together, so that `points_at_once` changes only the memory and not the points.
_BLOCK = 512
# Half precision is used for an example only if no gradient norm at this many points is off by more than this. Ours.
_CHECKED = 32
_OFF = 0.02


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
    - `half`: backward passes of the exact gradient in bfloat16 (see `HalfTape`), for processors and GPUs that
      multiply in it. The maxima then carry its rounding (`docs/bounds.md`). In full precision are done a network with
      an operation that the tape does not know, and an example of which a norm is off by more than 2 % at one of its
      first 32 points.

    **Cost**: `batches * samples` points per example (`pool_factor * samples` with a pool), one estimate each
    per target; with the exact gradient one forward, and one backward per target. One more forward per example; `half`:
    32 points more.
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
        threat, streams = norm_ball(threat, "CLEVER"), Streams.of(generator, len(x))
        with torch.no_grad():
            logits = classifier(x, generator=streams).logits
        classes = torch.arange(logits.shape[1], device=x.device)
        if threat.goal == "targeted":
            source, targets = logits.argmax(1), y[:, None]
        else:
            source, targets = y, classes.expand(len(y), -1)[classes != y[:, None]].reshape(len(y), -1)
        margins = (logits.gather(1, source[:, None]) - logits.gather(1, targets)).double()
        maxima, zeros = self._maxima(classifier, x, source, targets, threat, streams)
        rows = zip(margins.tolist(), targets.tolist(), maxima, zeros.tolist(), strict=True)
        return [
            smallest_score(*row, radius=threat.epsilon, pooled=self.pool_factor is not None) for row in rows
        ]

    def _maxima(
        self,
        classifier: Classifier,
        x: Images,
        source: Labels,
        targets: Int[Tensor, "batch targets"],
        threat: NormBall,
        streams: Streams,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maxima `[batch, targets, batches]` and the share of zero gradients `[batch]`."""
        drawn = self.samples * (self.batches if self.pool_factor is None else self.pool_factor)
        norms = x.new_zeros(*targets.shape, drawn, dtype=torch.float64)
        own = [streams[i : i + 1] for i in range(len(x))]
        tape = HalfTape() if self.half and isinstance(self.gradient, Exact) else None
        for i in range(len(x)):
            done, half = 0, tape
            for points, noise in self._points(x[i], threat, own[i], drawn):
                part = slice(done, done := done + len(points))
                label = source[i].expand(len(points))
                work = (classifier, points, label, targets[i], noise, threat)
                found = [*self._norms(*work, half)]
                first = done == len(points)
                if not found:
                    tape = None  # it does not know this network: no use in asking for the next example
                if half is not None and (not found or (first and not self._half_suffices(found, *work))):
                    half = None
                    found = [*self._norms(*work, half)]
                norms[i, :, part] = torch.stack(found)
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
        self, x: Float[Tensor, " *dims"], threat: NormBall, stream: Streams, count: int
    ) -> Iterator[tuple[Images, Streams]]:
        """Random points of one example's ball and box, `points_at_once` at most, and a stream for each."""
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            own = SampleStreams(stream.fork(f"points {start}"), size)
            block = threat.random_start(x.expand(size, *x.shape), generator=own)
            for first in range(0, size, self.points_at_once):
                part = slice(first, first + self.points_at_once)
                yield block[part], own[part]

    def _half_suffices(
        self,
        rounded: list[Float[Tensor, " batch"]],
        classifier: Classifier,
        points: Images,
        label: Labels,
        targets: Labels,
        streams: Streams,
        threat: NormBall,
    ) -> bool:
        """Whether bfloat16 leaves the first norms as they are; it does not where large terms cancel."""
        few = slice(_CHECKED)
        exact = self._norms(classifier, points[few], label[few], targets, streams[few], threat, None)
        pairs = zip(rounded, exact, strict=True)
        return all(bool(((r[few] - e).abs() <= _OFF * e).all()) for r, e in pairs)

    def _norms(
        self,
        classifier: Classifier,
        points: Images,
        label: Labels,
        targets: Labels,
        streams: Streams,
        threat: NormBall,
        tape: HalfTape | None,
    ) -> Iterator[Float[Tensor, " batch"]]:
        """Dual norms of the gradients of each target's logit minus the label's, from one forward pass if exact.

        From the tape where there is one; none at all where the network has an operation that it does not know.
        """

        def norm(grad: Images) -> Tensor:
            dims, grad = tuple(range(1, grad.ndim)), threat.from_units(grad)
            if threat.dual_p == math.inf:  # the same as the line below, in an eighth of the time
                return grad.abs().amax(dims).double()
            # In float64 no norm of a float32 gradient underflows to a false zero.
            return torch.linalg.vector_norm(grad, threat.dual_p, dim=dims, dtype=torch.float64)

        if tape is not None:
            with torch.no_grad(), tape:
                logits = classifier(tape.start(points), generator=streams).logits
            for target in targets if tape.knows(logits) else ():
                classifier.meter.backwards += len(points)
                classes = logits.shape[1]
                yield norm(tape.gradient(logits, F.one_hot(target, classes) - F.one_hot(label, classes)))
            return
        objectives = [Targeted(target.expand(len(points))) for target in targets]
        if not isinstance(self.gradient, Exact):
            for objective in objectives:
                yield norm(
                    self.gradient.estimate(classifier, objective, points, label, generator=streams).grad
                )
            return
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            outputs = classifier(points, generator=streams)
            for objective in objectives:
                more = objective is not objectives[-1]
                yield norm(classifier.gradient(objective(outputs, label), points, retain_graph=more))
