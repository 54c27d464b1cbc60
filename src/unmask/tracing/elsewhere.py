"""What an analysis of clean images cannot see: operations that run, or questions that are answered, elsewhere only.

A branch that is taken for inputs of low confidence alone is no part of any run on images that the network knows well;
an attack comes to it at once.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .analyse import analyse
from .suspect import Analysis
from .ways import ways

# At most so many points are analysed. Ours: as many as there are images in an analysis.
ANALYSED = 8


def with_other_ways(
    analysis: Analysis,
    classifier: Classifier,
    seen: Tensor,
    points: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int,
    seed: int,
    generator: torch.Generator | Streams,
) -> Analysis:
    """The analysis, and beside it what is suspected only where the network's code goes another way.

    **Arguments**
    - `seen`: `[batch, …]`, the images of the analysis.
    - `batch_size`: at most so many are asked about at once, and analysed: one where a batch is another question.
    - `points`: `[k, …]`, others, such as an attack comes to; `y`: `[k]`, their labels.

    **Cost**: one plain forward each; where the code goes another way at the points, one more of each alone, and another
    `analyse` of at most eight.
    """
    usual = ways(classifier, seen, batch_size, seed=seed)
    if ways(classifier, points, batch_size, seed=seed) <= usual:
        return analysis
    other = [n for n in range(len(points)) if not ways(classifier, points[n : n + 1], 1, seed=seed) <= usual]
    # Where none goes there by itself, their company decides.
    some = torch.tensor(other or range(len(points)), device=points.device)
    count = min(ANALYSED, batch_size, len(some))
    some = some[torch.linspace(0, len(some) - 1, count, device=some.device).long()]
    streams = Streams.of(generator, len(points))
    more = analyse(classifier, points[some], y[some], threat, seed=seed, generator=streams[some])
    known = {(s.symptom, s.group) for s in analysis.suspects}
    new = tuple(s for s in more.suspects if (s.symptom, s.group) not in known)
    return replace(analysis, elsewhere=replace(more, suspects=new)) if new else analysis
