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
from .comparison import Points, asked

EARLY = "before the first attack"
# Images that are attacked, spread over all that there are, and for how many steps: what breaks anything that hides
# nothing, in few calls, against those that it is not tried on. Ours.
ATTACKED, STEPS = 16, 6


@dataclass(frozen=True)
class Early:
    """What the network said, and what a short attack made of a few images.

    **Fields**
    - `answers`: in the order in which they were given.
    - `rows`: `[k]`, places of the images that were attacked. `x_adv`: `[k, *dims]`, what came of it.
    """

    answers: tuple[Answer, ...] = ()
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    x_adv: Tensor | None = None


def early(
    classifier: Classifier, x: Images, y: Labels, points: Points, threat: ThreatModel | None, streams: Streams
) -> Early:
    """Asks about `points`, and lets PGD run on a few of the images; every answer is written down.

    Where a call that is counted, a clock or a memory decides what a network says, it has not gone far yet.

    **Cost**: a forward of the points, eight and seven backwards of 16 images.
    """
    network = Recorded(classifier.network, EARLY)
    watched = classifier.replace(network=network)
    asked(watched, points, EARLY)
    if threat is None or threat.epsilon == 0:
        return Early(tuple(network.answers))
    rows = torch.linspace(0, len(x) - 1, min(ATTACKED, len(points), len(x)), device=x.device).long().unique()
    own = streams[rows].fork(EARLY)
    attack = PGD(steps=STEPS, rel_step_size=0.25, early_stop=False)
    try:
        found = attack.run(watched, x[rows], y[rows], threat.around(x.shape[1:]), generator=own)
    except torch.OutOfMemoryError:
        raise
    except (ModelFailed, RuntimeError):  # its gradient is looked at later, and what is wrong with it said
        return Early(tuple(network.answers))
    found = threat.settle(found, x[rows])
    asked(watched, Points(found, own), EARLY)
    return Early(tuple(network.answers), rows, found)
