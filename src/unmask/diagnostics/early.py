"""What a network says before anybody has attacked it, to compare with what it says afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attacks import PGD
from ..classifier import Classifier
from ..errors import ModelFailed
from ..randomness import Streams
from ..threat import ThreatModel
from .answers import Answer, Recorded
from .base import Images, Labels
from .comparison import LARGE, Points, asked

EARLY = "before the first attack"
# Images that are attacked, spread over all that there are, and for how many steps: what breaks anything that hides
# nothing, in few calls, against those that it is not tried on. Ours.
ATTACKED, STEPS = 16, 6
# Of these, so many are attacked alone as well; fewer where images are large, for a batch of one costs a whole call.
ALONE, ALONE_LARGE = 8, 2


@dataclass(frozen=True)
class Early:
    """What the network said, and what a short attack made of a few images.

    **Fields**
    - `answers`: in the order in which they were given.
    - `rows`: `[k]`, places of the images that were attacked. `x_adv`: `[k, *dims]`, what came of it.
    - `broken`: `[k]`, whether the network, asked about all of these at once, was wrong there.
    - `found`: points that the attacks in the batch and alone came to: where a network that knows one from the other
      answers otherwise, which it need not do at clean images nor at random points.
    - `origins`: `[len(found)]`, places of the images that these were made of.
    """

    answers: tuple[Answer, ...] = ()
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    x_adv: Tensor | None = None
    broken: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    found: Points | None = None
    origins: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def beside(self, points: Points, batch_size: int) -> Points:
        """The points and those that were found, no more than go into one batch."""
        if self.found is None or batch_size < 2:
            return points
        mine = torch.arange(min(len(self.found), batch_size // 2), device=points.x.device)
        others = torch.arange(min(len(points), batch_size - len(mine)), device=points.x.device)
        return points[others].and_(self.found[mine])

    def on_the_way(self, x: Images) -> tuple[Images, Tensor]:
        """Points half way from the images to those that were found, and these; and places of the images; both `[k]`."""
        if self.found is None:
            return x[:0], self.origins
        places, found = self.origins.to(x.device), self.found.x.to(x.device)
        return torch.cat([x[places].lerp(found, 0.5), found]), places.repeat(2)


def early(
    classifier: Classifier, x: Images, y: Labels, points: Points, threat: ThreatModel | None, streams: Streams
) -> Early:
    """Asks about `points`, and lets PGD run on a few of the images; every answer is written down.

    Where a call that is counted, a clock or a memory decides what a network says, it has not gone far yet.

    **Cost**: a forward of the points, eight and seven backwards of 16 images, and of eight of these in batches of one
    (two where images are large).
    """
    network = Recorded(classifier.network, EARLY)
    watched = classifier.replace(network=network)
    asked(watched, points, EARLY)
    if threat is None or threat.epsilon == 0:
        return Early(tuple(network.answers))
    rows = torch.linspace(0, len(x) - 1, min(ATTACKED, len(points), len(x)), device=x.device).long().unique()
    found = _attacked(watched, x[rows], y[rows], threat, streams[rows].fork(EARLY))
    if found is None:  # its gradient is looked at later, and what is wrong with it said
        return Early(tuple(network.answers))
    broken = asked(watched, found, EARLY).argmax(1) != y[rows]
    step = max(1, len(rows) // (ALONE if x[0].numel() < LARGE else ALONE_LARGE))
    some = torch.arange(0, len(rows), step, device=rows.device)
    few = rows[some]
    alone = _attacked(watched.replace(alone=True), x[few], y[few], threat, streams[few].fork("alone"))
    beside, origins = (found[some], few) if alone is None else (found[some].and_(alone), few.repeat(2))
    return Early(tuple(network.answers), rows, found.x, broken, beside, origins)


def _attacked(
    classifier: Classifier, x: Images, y: Labels, threat: ThreatModel, streams: Streams
) -> Points | None:
    """The points that a short attack comes to; None where the network or its gradient raises."""
    attack = PGD(steps=STEPS, rel_step_size=0.25, early_stop=False)
    try:
        found = attack.run(classifier, x, y, threat.around(x.shape[1:]), generator=streams)
    except torch.OutOfMemoryError:
        raise
    except (ModelFailed, RuntimeError):
        return None
    return Points(threat.settle(found, x), streams)
