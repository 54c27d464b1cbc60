"""How near the points that were found lie, once each is drawn back towards its clean input as far as it still fools."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..judge import fooled
from ..threat import NormBall
from ..types import per_example
from .context import Subject
from .optional.optional import tried

HALVINGS = 8  # of the way to the clean input


def distances(subject: Subject, x_adv: Tensor, rate: Tensor | None, clean: Tensor) -> Tensor | None:
    """The smallest distance `[n]` at which each example is known to fail, float64; infinite where none is known.

    So a share of examples above a distance bounds robust accuracy at that radius from above. None where no distance is
    fixed or none is measured: a random network, few pixels, an adversary who is told answers only.

    **Arguments**
    - `x_adv`: points of ball and box; `rate`, `clean`: failure rates `[n]` there and at the clean inputs.

    **Cost**: `HALVINGS` judging passes for each example that fails there and not at the clean input.
    """
    if rate is None or subject.random or subject.outside or not isinstance(subject.threat, NormBall):
        return None
    drawn_back = partial(_drawn_back, subject, subject.threat, x_adv, rate, clean)
    return tried(subject, "distances of known failures", drawn_back, None)


def _drawn_back(subject: Subject, threat: NormBall, x_adv: Tensor, rate: Tensor, clean: Tensor) -> Tensor:
    found = torch.full((len(subject),), torch.inf, dtype=torch.float64)
    found[(clean > 0).cpu()] = 0.0
    streams = subject.streams("distances")
    fallen = ((rate > 0) & (clean == 0)).nonzero()[:, 0]
    for some in fallen.split(subject.batch_size) if len(fallen) else ():  # of nothing, torch makes one part
        x, y, worst = subject.x[some], subject.aim[some], x_adv[some]
        near, far = torch.zeros(len(some), device=x.device), torch.ones(len(some), device=x.device)
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            point = torch.lerp(x, worst, per_example(middle, x).to(x.dtype))
            won = fooled(subject.classifier.predict(point, generator=streams[some]), y, threat)
            near, far = torch.where(won, near, middle), torch.where(won, middle, far)
        nearest = torch.lerp(x, worst, per_example(far, x).to(x.dtype))
        found[some.cpu()] = threat.distance(nearest, x).cpu()
    return found
