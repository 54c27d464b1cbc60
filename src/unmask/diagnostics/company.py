"""Whether an answer depends on the other images of its batch, on their number, or on the place among them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..randomness import Streams
from .base import Images, Labels
from .comparison import CHANGED, SLIGHT, Comparison, Difference, Points, asked, distances

# Images by which it is judged whether the network is of any use alone, and the accuracy that it may lose there. Ours.
ALONE, LOST = 64, 0.15


def company(compare: Comparison, x: Images, batch_size: int) -> Difference | None:
    """Whether an answer depends on the other images, their number, or the place among them.

    Every point is asked alone, in pairs, in another order, and in batches of all sizes up to `batch_size`: one of every
    octave, of a size that the seed chooses, and the largest.

    **Cost**: three forwards of the points, and of three batches.
    """
    classifier, points, n = compare.classifier, compare.points, len(compare.points)
    every = torch.arange(n, device=points.x.device)
    chance = torch.Generator().manual_seed(points.streams.fork("company").batch_seed())
    answers = [(rows, asked(classifier, points[rows])) for rows in every.split(1)]
    answers += [(rows, asked(classifier, points[rows])) for rows in torch.roll(every, 1).split(2)]
    # Moved by an odd number of places, so that who stood at even ones stands at odd ones.
    answers += [(rows, asked(classifier, points[rows])) for rows in [torch.roll(every, 5)]]
    for size in _sizes(min(batch_size, max(len(x), n)), chance):
        chosen = torch.randperm(n, generator=chance)[: min(n, size)].to(every.device)
        places = torch.randperm(size, generator=chance)[: len(chosen)].to(every.device)
        others = torch.arange(size, device=x.device) % len(x)
        batch = Points(x[others].clone(), points.streams[others % n])
        batch.x[places] = points.x[chosen]
        answers.append((chosen, asked(classifier, batch)[places]))
    return compare.with_(answers)


def _sizes(largest: int, chance: torch.Generator) -> list[int]:
    """The largest, and one of every octave below it that has more than two images."""
    sizes, high = [largest], largest - 1
    while high > 2:
        low = high // 2 + 1
        sizes.append(int(torch.randint(low, high + 1, (), generator=chance)))
        high = low - 1
    return sizes


def mixed(classifier: Classifier, x: Images, streams: Streams) -> Difference | None:
    """Whether an answer depends on which the other images are.

    Every other example stays in its place while the rest are replaced, first the even ones, then the odd ones, under
    the same seed: noise that belongs to the place in the batch stays the same, so that random networks are not accused,
    and so does the order in which kernels add.

    **Cost**: four forwards, and up to 64 where these differ and the network is random.
    """
    if len(x) < 4:
        return None
    for first in (0, 1):
        kept = torch.arange(len(x), device=x.device) % 2 == first
        changed = torch.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, x.flip(0) * 0.5)
        before, after = (asked(classifier, Points(p, streams), "mixed")[kept] for p in (x, changed))
        share = distances(before, after)
        # Rounding inside a network can turn float noise into a jump of a few examples; a statistic moves them all.
        if (share > CHANGED).double().mean() <= 0.5:
            continue
        if classifier.deterministic or _means_differ(classifier, x, changed, kept, streams):
            labels = int((before.argmax(1) != after.argmax(1)).sum())
            slight = bool((share <= SLIGHT).all()) and not labels
            return Difference(float((before - after).abs().max()), labels, len(before), slight)
    return None


def _means_differ(classifier: Classifier, x: Images, changed: Images, kept: Tensor, streams: Streams) -> bool:
    """Whether most kept examples' mean logits move by more than the noise of the draws explains.

    How many random numbers a layer takes may depend on its values (`torch.poisson` and all rejection sampling):
    then other neighbours mean other noise under the same seed, and only the means can be compared.
    """
    draws = 16
    means, errors = [], []
    for name, points in (("kept", x), ("changed", changed)):
        logits = [asked(classifier, Points(points, streams), f"{name} {n}")[kept] for n in range(draws)]
        stacked = torch.stack(logits).double()
        means.append(stacked.mean(0))
        errors.append(stacked.var(0) / draws)
    noise = (errors[0] + errors[1]).sqrt()
    moved = (means[0] - means[1]).abs() > 6 * noise + CHANGED * means[0].abs()
    return bool(moved.any(1).double().mean() > 0.5)


def random_company(classifier: Classifier, points: Points, batch_size: int) -> Difference | None:
    """As `company`, for a network that draws random numbers: whether mean answers depend on the size of the batch.

    **Cost**: 32 forwards of six points, alone and in batches.
    """
    some = points[torch.arange(0, len(points), 4, device=points.x.device)]
    n, draws = len(some), 16
    copies = max(2, min(batch_size, 8 * n) // n)
    alone, joint = [], []
    for draw in range(draws):
        alone.append(
            torch.cat([asked(classifier, some[r], f"alone {draw}") for r in torch.arange(n).split(1)])
        )
        rows = torch.arange(n).repeat(copies)
        joint.append(asked(classifier, some[rows], f"joint {draw}").reshape(copies, n, -1).mean(0))
    means = [torch.stack(found).double() for found in (alone, joint)]
    noise = sum((m.var(0) / draws for m in means), torch.zeros_like(means[0][0])).sqrt()
    first, second = (m.mean(0) for m in means)
    moved = ((first - second).abs() > 6 * noise + CHANGED * first.abs()).any(1)
    if moved.double().mean() <= 0.5:
        return None
    labels = int((first.argmax(1) != second.argmax(1)).sum())
    return Difference(float((first - second).abs().max()), labels, n, slight=False)


def check_use_alone(
    classifier: Classifier, x: Images, y: Labels, in_batches: Tensor, streams: Streams, found: Difference
) -> None:
    """Refuses a network that depends on its batch and is far less accurate on one image alone.

    `in_batches` are its predictions for `x` in batches. **Cost**: a forward of at most 64 images.
    """
    n = min(ALONE, len(x))
    alone = classifier.replace(alone=True)
    predicted = asked(alone, Points(x[:n], streams[:n]), "use alone").argmax(1)
    before, after = (float((p[:n] == y[:n]).double().mean()) for p in (in_batches, predicted))
    if after < before - LOST:
        raise UnusableInput(
            f"logits change by up to {found.largest:.3g} when the other images of the batch change, and alone only "
            f"{after:.0%} are right, of {before:.0%} in batches; predictions must not depend on the batch: call "
            "network.eval(), or normalise with running statistics"
        )
