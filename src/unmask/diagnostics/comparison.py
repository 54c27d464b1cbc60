"""Asks the same questions in different ways, and says whether the answers differ by more than numerics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Images

# Changes of logits by at most this share of their size, and of no label, are a matter of numerics: the scale of int8
# activations, which is set by the largest of the batch. Ours.
SLIGHT = 0.05
# What changes the logits by more than this share of their size is another answer. Ours; kernels for other batch sizes
# add in another order, which changes them by 1e-6 to 1e-4.
CHANGED = 1e-3
# Elements of an image from which on points are made around two images, not six: one of 112 by 112 in three colours is
# larger. Ours: a network on larger ones takes a second a pass, and what depends on its batch does so at any point.
LARGE = 2**15
# Points at which an answer has to be another before it counts: rounding inside a network can turn float noise into a
# jump at one. Ours.
FEW = 2


@dataclass(frozen=True)
class Points:
    """What is asked: images, points inside the ball, noisier ones and points between two images, in turns.

    A switch in the network need not be reached by clean images; noise behind a vote shows only where votes are split.
    """

    x: Images
    streams: Streams

    def __getitem__(self, rows: Tensor) -> Points:
        return Points(self.x[rows], self.streams[rows])

    def __len__(self) -> int:
        return len(self.x)

    def and_(self, others: Points) -> Points:
        """These and then those."""
        seeds = torch.cat([self.streams.seeds, others.streams.seeds])
        return Points(torch.cat([self.x, others.x]), Streams(seeds))


def points_around(
    x: Images, threat: ThreatModel | None, box: tuple[float, float], streams: Streams
) -> Points:
    """Four kinds of points of the first six of these images; of the first two, where these are large."""
    few = 6 if x[0].numel() < LARGE else 2
    x, streams = x[:few], streams[:few]
    draws = streams.fork("points")
    noise = draws.uniform(*x.shape[1:], device=x.device).to(x.dtype).mul(box[1] - box[0]).add(box[0])
    inside = x.lerp(noise, 0.02)
    if threat is not None and threat.epsilon > 0:
        inside = threat.random_start(x, generator=draws)
        corner = x + threat.epsilon * draws.signs(*x.shape[1:], device=x.device).to(x.dtype)
        inside[::2] = threat.settle(corner, x)[::2]
    kinds = (x, inside, x.lerp(noise, 0.1), x.lerp(x.roll(1, 0), 0.5))
    seeds = torch.stack([streams.fork(f"kind {n}").seeds for n in range(len(kinds))], 1).flatten()
    return Points(torch.stack(kinds, 1).flatten(0, 1), Streams(seeds))


def asked(classifier: Classifier, points: Points, tag: str = "one function") -> Tensor:
    """Logits, without gradient; equal tags are equal seeds."""
    with torch.no_grad():
        return classifier(points.x, generator=points.streams.fork(tag)).logits


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Per example, the largest change of a logit as a share of the largest logit; infinite where one is not finite."""
    size = torch.maximum(first.abs().amax(1), second.abs().amax(1)).double()
    change = (first.double() - second.double()).abs().amax(1)
    share = torch.where(change == 0, torch.zeros_like(change), change / size)
    return share.nan_to_num(nan=torch.inf).masked_fill((first == second).all(1), 0.0)


@dataclass(frozen=True)
class Difference:
    """How two sets of answers to the same questions differ.

    **Fields**
    - `largest`: change of a logit.
    - `labels`: answers whose class is another; `of` answers.
    - `slight`: a matter of numerics.
    """

    largest: float
    labels: int
    of: int
    slight: bool

    def __str__(self) -> str:
        return f"logits differ by up to {self.largest:.3g}, {self.labels} of {self.of} labels"


class Comparison:
    """Compares answers with those that the classifier gave to `points` in one batch.

    A point at which tiny noise on the input already moves the answer is allowed four times as much.
    """

    def __init__(self, classifier: Classifier, points: Points):
        self.classifier, self.points = classifier, points
        self.answers = asked(classifier, points)
        self._jitter: Tensor | None = None

    def _allowed(self) -> Tensor:
        if self._jitter is None:
            self._jitter = torch.zeros(len(self.points), dtype=torch.float64, device=self.points.x.device)
            for n, size in enumerate((1e-7, 1e-6, 1e-5)):
                signs = self.points.streams.fork(f"jitter {n}").signs(*self.points.x.shape[1:])
                moved = self.points.x + size * signs.to(self.points.x)
                found = distances(self.answers, asked(self.classifier, Points(moved, self.points.streams)))
                self._jitter = torch.maximum(self._jitter, found)
        return (4 * self._jitter).clamp_min(CHANGED)

    def with_(self, answers: list[tuple[Tensor, Tensor]]) -> Difference | None:
        """The difference to answers `(rows, logits)` about some of the points; None where there is none."""
        rows = torch.cat([rows for rows, _ in answers])
        found, usual = torch.cat([logits for _, logits in answers]), self.answers[rows]
        share = distances(usual, found)
        if not (share > CHANGED).any():
            return None
        other = share > self._allowed()[rows]
        if len(rows[other].unique()) < FEW:
            return None
        labels = usual.argmax(1) != found.argmax(1)
        return Difference(
            float((usual - found)[other].abs().max()),
            int((labels & other).sum()),
            len(rows),
            bool((share[other] <= SLIGHT).all()) and not (labels & other).any(),
        )
