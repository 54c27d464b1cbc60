"""How far attacks' distances lie above the exact Linf radius of small ReLU networks.

    UNMASK_DATA=<data folder> python benchmarks/exact_gap.py [--network mnist_fc_20] [--examples 20] [--first 0]

Ratio of each attack's nearest adversarial example to the *proved lower bound* of the mixed-integer program, over the
examples that it solved, so the ratio includes its tolerance of 0.1 %. Three attacks, each going on from the one before:
FAB on every class; the walk through linear regions from there; the same walk from FAB aimed at each of the five
likeliest classes on its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unmask.attacks import FAB
from unmask.bounds import exact_radius, walk_regions
from unmask.classifier import Classifier
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


def main() -> None:
    """Prints one line per attack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mnist_fc_20", choices=("mnist_fc_20", "mnist_fc_50x2"))
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of the program, per example")
    parser.add_argument(
        "--within",
        type=float,
        default=1.0,
        help="prove only that nothing is nearer than the attacks' best by more than this factor: far faster",
    )
    options = parser.parse_args()
    if not os.environ.get("UNMASK_DATA"):
        sys.exit("UNMASK_DATA is not set; point it at the data folder beside models/networks.py")
    folder = Path(os.environ["UNMASK_DATA"])
    spec = importlib.util.spec_from_file_location("networks", folder.parent / "models" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = getattr(module, options.network)()

    import datasets

    rows = datasets.load_dataset(str(folder / "mnist"), split="test")
    rows = rows.select(range(options.first, options.first + options.examples))
    x = torch.from_numpy(
        np.stack([np.asarray(row["image"], dtype=np.float32) for row in rows])[:, None] / 255
    )
    y = torch.tensor(rows["label"])
    right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    door = Classifier(network, deterministic=True)
    streams = Streams.seeded(0, torch.arange(len(x)))

    whole = Linf(epsilon=1.0)
    fab = FAB(restarts=3, one_by_one=True, early_stop=False)
    began = time.perf_counter()
    point = fab.run(door, x, y, whole, generator=streams)
    points, seconds = {"FAB": point}, {"FAB": time.perf_counter() - began}
    for name, better in (
        ("walk from FAB", lambda p: walk_regions(network, x, y, p, whole)),
        ("walks from aimed FAB", lambda p: aimed(network, door, x, y, p)),
    ):
        began = time.perf_counter()
        point = better(point)
        points[name], seconds[name] = point, time.perf_counter() - began
    distances = {
        name: whole.distance(p, x).masked_fill(network(p).argmax(1) == y, 1.0) for name, p in points.items()
    }
    best = torch.stack(list(distances.values())).amin(0)
    exact = []
    for i in range(len(x)):
        part = slice(i, i + 1)
        exact += exact_radius(
            network, x[part], y[part], whole, upper=best[part] / options.within, time_limit=options.seconds
        )
        print(
            f"example {i}: {exact[-1].lower_bound:.5f} of {best[i]:.5f}, {exact[-1].seconds:.0f} s",
            flush=True,
        )
    proved = torch.tensor([e.lower_bound for e in exact], dtype=torch.float64)
    # Where nothing nearer than the attacks' best was found, the program's own radius is infinite and its gap 0 or 1.
    radii = torch.tensor([e.radius for e in exact], dtype=torch.float64)
    solved = proved >= 0.998 * torch.minimum(best / options.within, radii)
    near = int((proved >= 0.998 / options.within * best).sum())
    print(
        f"{options.network}: {len(x)} examples, program {sum(e.seconds for e in exact):.0f} s, {int(solved.sum())} "
        f"solved to 0.2 % in {options.seconds:.0f} s each; {near} of the attacks' best distances proved to lie within "
        f"a factor {options.within:g} of the optimum (to 0.2 %)"
    )
    for name, distance in distances.items():
        ratio = (distance / proved)[solved]
        print(
            f"{name} / exact on the solved: median {ratio.median():.4f}, 90 % {ratio.quantile(0.9):.4f}, "
            f"worst {ratio.max():.4f}; {seconds[name]:.0f} s"
        )


if __name__ == "__main__":
    main()
