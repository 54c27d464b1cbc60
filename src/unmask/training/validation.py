"""Clean and robust accuracy while training: a short attack, for steering; `unmask audit` is for reporting."""

from __future__ import annotations

import torch
from torch import nn

from ..attacks import Attack
from ..classifier import Classifier
from ..data import Data
from ..judge import judge
from ..randomness import Streams
from ..threat import ThreatModel
from .processes import Processes


def accuracies(
    network: nn.Module,
    data: Data,
    threat: ThreatModel | None,
    attack: Attack,
    batch_size: int,
    seed: int,
    processes: Processes = Processes(),  # noqa: B008 (a frozen record)
) -> tuple[float, float | None]:
    """Share of examples that a network in eval mode gets right, as they are and under `attack`.

    Only what is right as it is gets attacked. The second is None without a threat. An example's random start is the
    same in every epoch: differences come from the weights.
    """
    device = next(network.parameters()).device
    classifier = Classifier(network, deterministic=True)
    clean = robust = 0
    for number, part in enumerate(torch.arange(len(data)).split(batch_size)):
        if number % processes.size != processes.rank:
            continue
        x, y = data.x[part].to(device), data.y[part].to(device)
        streams = Streams.seeded(seed, data.index[part].to(device), "validation")
        right = classifier.predict(x, generator=streams).logits.argmax(1) == y
        clean += int(right.sum())
        if threat is not None and right.any():
            x, y, streams = x[right], y[right], streams[right]
            x_adv = attack.run(classifier, x, y, threat, generator=streams)
            verdict = judge(classifier, x_adv, x, y, threat, generator=streams)
            robust += int((verdict.failure_rate == 0).sum())
    share = len(data) / processes.size
    clean, robust = processes.mean([clean / share, robust / share])
    return clean, None if threat is None else robust
