"""How far attacks' distances lie above the exact Linf radius of small ReLU networks.

    UNMASK_DATA=<data folder> python benchmarks/exact_gap.py [--network mnist_fc_20] [--examples 20] [--first 0]

For each example: three attacks, each going on from the one before (FAB on every class; the walk through linear regions
from there; the same walk from FAB aimed at each of the five likeliest classes on its own). Then branch and bound asks
whether anything is nearer than the best of them by the factor 1.2, 1.1, 1.05, 1.02, 1.01, 1.002, one after the other:
`safe` raises the proved lower bound, `unsafe` gives a nearer example, from which the question is asked again. Printed
are the ratios of each attack's distance to the *proved lower bound*, so that they include what was left unproved.
"""

from __future__ import annotations

import argparse
import time

import torch
from other_networks import load_network
from torch import Tensor, nn

from unmask.attacks import FAB
from unmask.bounds import decide, walk_regions
from unmask.classifier import Classifier
from unmask.data import load
from unmask.randomness import Streams
from unmask.threat import Linf


def aimed(
    network: nn.Module, door: Classifier, x: Tensor, y: Tensor, best: Tensor, classes: int = 5
) -> Tensor:
    """The walk from targeted FAB's points that are not much farther than the best so far, for each class."""
    threat, best = Linf(epsilon=1.0), best.clone()
    ranked = network(x).argsort(1, descending=True)
    for rank in range(1, classes + 1):
        fab = FAB(steps=60, early_stop=False)
        streams = Streams.seeded(rank, torch.arange(len(x)))
        point = fab.run(door, x, ranked[:, rank], Linf(epsilon=1.0, goal="targeted"), generator=streams)
        near = threat.distance(point, x) < 1.3 * threat.distance(best, x)
        near = (near & (network(point).argmax(1) != y)).nonzero()[:, 0]
        point = walk_regions(network, x[near], y[near], point[near], threat)
        closer = threat.distance(point, x[near]) < threat.distance(best[near], x[near])
        best[near[closer]] = point[closer]
    return best


def proved_below(
    network: nn.Module, x: Tensor, y: Tensor, nearest: float, seconds: float, factors: tuple[float, ...]
) -> tuple[float, float, int]:
    """The proved lower bound of one example's radius, the nearest distance known, and the branches that it took."""
    lower, branches, rung = 0.0, 0, 0
    end = time.perf_counter() + seconds
    while rung < len(factors):
        radius = torch.tensor([nearest / factors[rung]], dtype=torch.float64)
        if radius.item() <= lower:
            rung += 1
            continue
        left = end - time.perf_counter()
        proof = decide(network, x, y, Linf(epsilon=1.0), radius=radius, time_limit=max(left, 0.0))[0]
        branches += proof.branches
        if proof.answer == "safe":
            lower, rung = radius.item(), rung + 1
        elif proof.x_adv is not None:
            nearest = float(Linf(epsilon=1.0).distance(proof.x_adv[None], x)[0])
        else:
            break
    return lower, nearest, branches


def main() -> None:
    """Prints one line per example and one per attack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mnist_fc_20", choices=("mnist_fc_20", "mnist_fc_50x2"))
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="time limit of branch and bound, per example"
    )
    parser.add_argument("--factors", type=float, nargs="+", default=(1.2, 1.1, 1.05, 1.02, 1.01, 1.002))
    options = parser.parse_args()
    network = load_network(options.network)
    data = load("mnist", split="test", examples=options.first + options.examples)[options.first :]
    x, y = data.x, data.y
    right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    door = Classifier(network, deterministic=True)
    whole = Linf(epsilon=1.0)
    fab = FAB(restarts=3, one_by_one=True, early_stop=False)
    steps = {
        "FAB": lambda p, part: fab.run(door, x[part], y[part], whole, generator=streams[part]),
        "walk from FAB": lambda p, part: walk_regions(network, x[part], y[part], p, whole),
        "walks from aimed FAB": lambda p, part: aimed(network, door, x[part], y[part], p),
    }
    streams = Streams.seeded(0, torch.arange(len(x)))
    distances: dict[str, list[float]] = {name: [] for name in steps}
    seconds = dict.fromkeys(steps, 0.0)
    proved = []
    for i in range(len(x)):
        part, point = slice(i, i + 1), x[i : i + 1]
        for name, step in steps.items():
            began = time.perf_counter()
            point = step(point, part)
            seconds[name] += time.perf_counter() - began
            broken = bool(network(point).argmax(1) != y[part])
            distances[name].append(float(whole.distance(point, x[part])) if broken else 1.0)
        best = min(found[i] for found in distances.values())
        began = time.perf_counter()
        lower, nearest, branches = proved_below(
            network, x[part], y[part], best, options.seconds, options.factors
        )
        proved.append(lower)
        print(
            f"example {i}: attacks {best:.5f}, nearest {nearest:.5f}, proved {lower:.5f}; {branches} branches, "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )
    bound = torch.tensor(proved, dtype=torch.float64)
    some = bound > 0
    print(f"{options.network}: {len(x)} examples, {int(some.sum())} with a proved lower bound")
    for name, found in distances.items():
        ratio = torch.tensor(found, dtype=torch.float64)[some] / bound[some]
        print(
            f"{name} / proved: median {ratio.median():.4f}, 90 % {ratio.quantile(0.9):.4f}, worst {ratio.max():.4f}; "
            f"{seconds[name]:.0f} s"
        )


if __name__ == "__main__":
    main()
