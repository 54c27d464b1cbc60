"""A learned stand-in for a part that autograd cannot see and whose result has another shape than what it was given.

Where an array leaves torch as an image and comes back as coefficients, a crop or patch features, the identity cannot
stand in. What leaves and what comes back is recorded, and a small network learns the one from the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...classifier import Classifier, seeded
from ...randomness import Streams
from ...threat import ThreatModel
from ..record.recorder import record
from ..record.values import Trace
from ..suspect import Analysis
from .bridges import ALIKE, Crossing, dependents, exit_crossing

Rows = Float[Tensor, "points features"]

# Points to learn from, as a multiple of the number of elements that leave, and its bounds. Ours: a linear map is found
# exactly from as many points as it has inputs.
POINTS = (2, 1024, 2048)
# Updates and width of the bent part, ours.
STEPS, WIDTH = 600, 64


def regress(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, steps: int, rate: float
) -> float:
    """Fits a network to pairs (input, target) by Adam on the mean squared error, the rate falling by a cosine.

    Leaves the network in eval mode with frozen parameters; returns the error of the last batch.
    """
    network.train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    error = torch.tensor(torch.nan)
    for _, (x, target) in zip(range(steps), batches, strict=False):
        with torch.enable_grad():
            error = F.mse_loss(network(x), target)
            optimiser.zero_grad()
            error.backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)
    return float(error.detach())


class StandIn(nn.Module):
    """A linear map, fitted in closed form, and a bent correction to it, fitted by gradient descent where that helps.

    **Arguments**
    - `shape_in`, `shape_out`: of one example, without the batch.
    - `weight`, `offset`: the linear map on flattened examples.
    """

    def __init__(
        self,
        shape_in: torch.Size,
        shape_out: torch.Size,
        weight: Float[Tensor, "features results"],
        offset: Float[Tensor, " results"],
    ):
        super().__init__()
        self.shape_in, self.shape_out = shape_in, shape_out
        self.weight, self.offset = weight, offset
        self.bent: nn.Module | None = None
        self.center, self.spread = torch.zeros_like(weight[:, 0]), torch.ones_like(weight[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """One example `shape_in`, or a batch of them, to `shape_out`."""
        single = x.shape == self.shape_in
        flat = x.reshape(1 if single else len(x), -1).to(self.weight.dtype)
        made = flat @ self.weight + self.offset
        if self.bent is not None:
            made = made + self.bent((flat - self.center) / self.spread)
        return made.reshape(self.shape_out if single else (len(x), *self.shape_out))


def learn_stand_in(
    analysis: Analysis,
    classifier: Classifier,
    pool: Float[Tensor, "batch channels height width"],
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int = 32,
    generator: torch.Generator | Streams,
) -> Analysis:
    """The analysis with a learned bridge over its cut, where one is called for and measures up.

    Called for is one where the result of the hidden part has another shape than what it was given. A linear map and a
    bent one are fitted to three quarters of the images and to points around them, up to epsilon away; the one whose
    slopes agree better with the changes seen at the other quarter is kept, if they agree at all.

    **Arguments**
    - `pool`: images to learn from; more than those that were traced.
    - `batch_size`: examples recorded at a time, for a recording keeps all that it saw.

    **Cost**: a recorded forward for each point, metered as every forward of the network is, for nobody can run the
    hidden part alone: twice as many points as elements leave, at least 1024, at most 2048. The stand-in's own passes
    are not the network's and are not counted.
    **Source**: Athalye et al. 2018, arXiv:1802.00420, section 4.1.2, for the idea; the recipe is ours.
    """
    crossing = _called_for(analysis)
    if crossing is None or len(pool) < 4:
        return analysis
    shapes = _examples(crossing, analysis.base)
    assert shapes is not None  # it was looked at when called for
    times, least, most = POINTS
    points = min(max(times * shapes[0][0].numel(), least), most)
    streams = Streams.of(generator, len(pool))
    seen = _observe(classifier, crossing, pool, threat, points, batch_size, seed, streams)
    if seen is None:
        return analysis
    out = torch.arange(len(pool), device=pool.device) % 4 == 0
    inputs, targets = (torch.cat([pair[n][~out] for pair in seen]) for n in (0, 1))
    (x, y), *near = [(s[out], t[out]) for s, t in seen]
    with seeded(seed, pool.device), torch.enable_grad():
        weight, offset = _regression(inputs.flatten(1), targets.flatten(1))
        linear = StandIn(inputs.shape[1:], targets.shape[1:], weight, offset)
        both = linear, _bend(linear, inputs, targets)
    measured = [_agreement(f, x, [(s - x, t - y) for s, t in near]) for f in both]
    best = max(measured)
    if not best > ALIKE:
        return analysis
    return replace(analysis, stand_in=(crossing.bridge(both[measured.index(best)]), best))


def _called_for(analysis: Analysis) -> Crossing | None:
    """The hidden part, if its result has another shape than what it was given."""
    crossings = [exit_crossing(analysis)] if analysis.where("cut") else []
    hidden = [s for s in analysis.where("opaque", "zero") if s.kind in ("opaque", "function")]
    crossings += [Crossing(("", "", 0), s.records[0], "each", alone=True) for s in hidden]
    for crossing in crossings:
        crossing = None if crossing is None else _back_as_numbers(analysis, crossing)
        seen = None if crossing is None else _examples(crossing, analysis.base)
        if seen is not None and seen[0].shape != seen[1].shape:
            return crossing
    return None


def _back_as_numbers(analysis: Analysis, crossing: Crossing) -> Crossing | None:
    """Up to the first result that is no integer: bytes that come back from an image library are converted next."""
    if crossing.argument is not None:
        return crossing
    following = [crossing.first, *dependents(analysis.base.records, crossing.first.index)[:8]]
    end = next((r for r in following if r.outputs and r.outputs[0].data.is_floating_point()), None)
    if end is None:
        return None
    crossing = replace(crossing, last=end)
    left, back = crossing.ends(analysis.base)
    pairing = "each" if len(left) == len(back) else "stack" if len(back) == 1 else "item"
    return replace(crossing, pairing=pairing)


def _examples(crossing: Crossing, trace: Trace) -> tuple[Tensor, Tensor] | None:
    """What left and what came back, `[batch, …]` both; None where they are not one each per example."""
    left, back = crossing.ends(trace)
    batch = len(trace.logits)
    ends = []
    for tensors, one_each in ((left, crossing.pairing == "stack"), (back, crossing.pairing == "item")):
        many = one_each or (len(tensors) == batch and batch > 1)
        if many and (len(tensors) != batch or any(t.shape != tensors[0].shape for t in tensors)):
            return None
        if not many and (len(tensors) != 1 or not tensors[0].ndim or len(tensors[0]) != batch):
            return None
        ends.append(torch.stack(tensors) if many else tensors[0])
    return ends[0].float(), ends[1].float()


def _observe(
    classifier: Classifier,
    crossing: Crossing,
    pool: Tensor,
    threat: ThreatModel,
    points: int,
    batch_size: int,
    seed: int,
    streams: Streams,
) -> list[tuple[Tensor, Tensor]] | None:
    """What left and what came back, for the images and then for random points around them, in pool's order."""
    found = []
    for copy in range(max(2, -(-points // len(pool)))):
        x = pool if copy == 0 else threat.settle(threat.random_start(pool, generator=streams), pool)
        seen = []
        for part in x.split(batch_size):
            # Another seed each time: of a random part, the mean over its draws is learnt.
            pair = _examples(crossing, record(classifier, part, seed=seed + copy))
            if pair is None:
                return None
            seen.append(pair)
        found.append((torch.cat([s for s, _ in seen]), torch.cat([t for _, t in seen])))
    return found


def _regression(x: Rows, y: Rows) -> tuple[Tensor, Tensor]:
    """Ridge regression in closed form; the ridge is a thousandth of a percent of the mean variance."""
    mean_x, mean_y = x.double().mean(0), y.double().mean(0)
    a, b = x.double() - mean_x, y.double() - mean_y
    ridge = 1e-5 * a.square().sum() / min(a.shape)
    if len(a) < a.shape[1]:
        gram = a @ a.T
        weight = a.T @ torch.linalg.solve(gram + ridge * torch.eye(len(a)).to(gram), b)
    else:
        gram = a.T @ a
        weight = torch.linalg.solve(gram + ridge * torch.eye(a.shape[1]).to(gram), a.T @ b)
    return weight.float(), (mean_y - mean_x @ weight).float()


def _bend(linear: StandIn, x: Tensor, y: Tensor) -> StandIn:
    """What the linear map misses, learnt by a network of one hidden layer."""
    bent = StandIn(linear.shape_in, linear.shape_out, linear.weight, linear.offset)
    with torch.no_grad():
        missed = (y - linear(x)).flatten(1)
    bent.center, bent.spread = x.flatten(1).mean(0), x.flatten(1).std(0).clamp_min(1e-3)
    flat, size = (x.flatten(1) - bent.center) / bent.spread, missed.std().clamp_min(1e-12)
    # Smooth, for its slopes are what it is wanted for.
    layers = nn.Sequential(nn.Linear(flat.shape[1], WIDTH), nn.SiLU(), nn.Linear(WIDTH, missed.shape[1]))
    layers.to(x.device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            some = torch.randint(len(flat), (128,), device=x.device)
            yield flat[some], missed[some] / size

    regress(layers, batches(), steps=STEPS, rate=1e-2)
    with torch.no_grad():
        layers[2].weight.mul_(size)  # type: ignore[union-attr]
        layers[2].bias.mul_(size)  # type: ignore[union-attr]
    bent.bent = layers
    return bent


def _agreement(stand_in: StandIn, x: Tensor, near: list[tuple[Tensor, Tensor]]) -> float:
    """Mean cosine between the change that the stand-in's slope predicts and the change seen; `near` holds both."""
    cosines = []
    for step, change in near:
        predicted = torch.autograd.functional.jvp(stand_in, x, step)[1]
        assert isinstance(predicted, Tensor)
        cosines.append(F.cosine_similarity(predicted.flatten(1), change.flatten(1), dim=1))
    return float(torch.cat(cosines).mean())
