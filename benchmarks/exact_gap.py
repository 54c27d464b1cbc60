"""How far attacks' distances lie above the exact Linf radius of small ReLU networks.

    UNMASK_DATA=<data folder> python benchmarks/exact_gap.py [--network mnist_fc_20] [--examples 20] [--first 0]

Ratio of each attack's nearest adversarial example to the *proved lower bound* of the mixed-integer program, so the
ratio includes what the program left open. FAB gives a distance; TargetedAPGD gives one by bisection on epsilon.
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
from torch import Tensor

from unmask.attacks import FAB, PGD, Attack, TargetedAPGD
from unmask.bounds import exact_radius
from unmask.classifier import Classifier
from unmask.objectives import Targeted, margin
from unmask.randomness import Streams
from unmask.threat import Linf


def by_bisection(
    attack: Attack, door: Classifier, x: Tensor, y: Tensor, start: Tensor, halvings: int
) -> Tensor:
    """Nearest distance `[batch]` at which the attack still succeeds, from `start` downwards."""
    best = start.clone()
    for i in range(len(x)):
        low = 0.0
        for halving in range(halvings):
            epsilon = (low + float(best[i])) / 2 if halving > 2 else float(best[i]) * (0.99 - 0.02 * halving)
            threat = Linf(epsilon=epsilon)
            streams = Streams.seeded(halving, torch.tensor([i]))
            point = attack.run(door, x[i : i + 1], y[i : i + 1], threat, generator=streams)
            if door.predict(point, generator=streams).logits.argmax(1) != y[i]:
                best[i] = threat.distance(point, x[i : i + 1])[0]
            else:
                low = max(low, epsilon)
            if low > 0.999 * float(best[i]):
                break
    return best


def main() -> None:
    """Prints one line per attack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mnist_fc_20", choices=("mnist_fc_20", "mnist_fc_50x2"))
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of the program, per example")
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

    fab = FAB(restarts=3, one_by_one=True, early_stop=False)
    whole = Linf(epsilon=1.0)
    point = fab.run(door, x, y, whole, generator=streams)
    distances = {"FAB": whole.distance(point, x).masked_fill(network(point).argmax(1) == y, 1.0)}
    pgd = PGD(steps=40, rel_step_size=0.1, objective=margin)
    distances["PGD from FAB"] = by_bisection(pgd, door, x, y, distances["FAB"], 14)
    apgd = TargetedAPGD(steps=100, objective=Targeted())
    distances["TargetedAPGD from these"] = by_bisection(apgd, door, x, y, distances["PGD from FAB"], 14)
    best = torch.stack(list(distances.values())).amin(0)
    start = time.perf_counter()
    exact = exact_radius(network, x, y, whole, upper=best, time_limit=options.seconds)
    seconds = time.perf_counter() - start
    proved = torch.tensor([e.lower_bound for e in exact], dtype=torch.float64)
    closed = proved >= 0.998 * best
    gaps = torch.tensor([e.gap for e in exact])
    print(
        f"{options.network}: {len(x)} examples, program {seconds:.0f} s, {int((gaps < 2e-3).sum())} solved to 0.2 %, "
        f"{int(closed.sum())} of the attacks' best distances proved optimal to 0.2 %"
    )
    solved = gaps < 2e-3
    for name, distance in distances.items():
        ratio = (distance / proved)[solved]
        print(
            f"{name} / exact on the solved: median {ratio.median():.4f}, 90 % {ratio.quantile(0.9):.4f}, "
            f"worst {ratio.max():.4f}"
        )


if __name__ == "__main__":
    main()
