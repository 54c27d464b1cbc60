"""What the cascades leave and what they cost, beside standard AutoAttack.

With UNMASK_DATA set to the data folder (networks beside it): an adversarially trained MNIST network at Linf
0.3 and an undefended ResNet-20 at Linf 0.4/255, on the rows that the stages were tuned on and on held-out
ones. Without it, a small network trained on scikit-learn's digits, for which no AutoAttack figure exists.

Cost counts a backward pass as 3.5 forwards. AutoAttack's is the published count of its passes on an example
that survives, times the survivors: 7,864 forwards and 1,910 backwards (it spends less on what it breaks).

    python benchmarks/cascade_cost.py --budgets quick standard --seeds 3
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from other_networks import load_network
from torch import Tensor, nn

from unmask.attacks import budgets
from unmask.attacks.cascade import Progress, run_stages
from unmask.classifier import Classifier
from unmask.data import load
from unmask.randomness import Streams
from unmask.threat import Linf

BACKWARD = 3.5
AUTOATTACK = 7_864 + BACKWARD * 1_910  # forwards per surviving example


@dataclass
class Problem:
    """A network, examples and a radius. `autoattack`: how many of the examples standard AutoAttack leaves."""

    name: str
    network: nn.Module
    x: Tensor
    y: Tensor
    epsilon: float
    autoattack: int | None


def real_problems() -> Iterator[Problem]:
    """Other people's networks on the first rows, where the stages were tuned, and on the next, held out."""
    data = load("mnist", split="test", examples=512)
    x, y = data.x, data.y
    yield Problem("mnist_pgd 0..255", load_network("mnist_pgd"), x[:256], y[:256], 0.3, 232)
    yield Problem("mnist_pgd 256..511 held out", load_network("mnist_pgd"), x[256:], y[256:], 0.3, None)
    data = load("cifar10", split="test", examples=192)
    x, y = data.x, data.y
    yield Problem("cifar10_resnet20 0..95", load_network("cifar10_resnet20"), x[:96], y[:96], 0.4 / 255, 41)
    yield Problem(
        "cifar10_resnet20 96..191 held out", load_network("cifar10_resnet20"), x[96:], y[96:], 0.4 / 255, None
    )


def digits_problem() -> Problem:
    """A convolutional network trained for some seconds on noisy digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(data.target)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(15):
        for part in torch.randperm(1500).split(100):
            optimiser.zero_grad()
            noisy = x[part] + 0.2 * torch.randn_like(x[part])
            nn.functional.cross_entropy(network(noisy), y[part]).backward()
            optimiser.step()
    return Problem("digits", network.eval().requires_grad_(False), x[1500:], y[1500:], 0.1, None)


def measure(problem: Problem, budget: str, seed: int) -> tuple[Progress, Classifier]:
    """One run of one budget."""
    classifier = Classifier(problem.network, deterministic=True)
    streams = Streams.seeded(seed, torch.arange(len(problem.x)))
    stages = getattr(budgets, budget)()
    end = run_stages(
        classifier, problem.x, problem.y, Linf(epsilon=problem.epsilon), stages, generator=streams
    )
    return end, classifier


HEAD = "problem                            budget    seed  left    AA  forwards backwards  AA/cost      s"


def main() -> None:
    """Prints one line per run, and one per stage where asked."""
    names = ["quick", "standard", "thorough"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budgets", nargs="+", default=names[:2], choices=names)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each budget")
    parser.add_argument("--stages", action="store_true", help="print what each stage did")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    options = parser.parse_args()

    problems = real_problems() if os.environ.get("UNMASK_DATA") else iter([digits_problem()])
    print(HEAD)
    for problem in problems:
        if options.only not in problem.name:
            continue
        for budget in options.budgets:
            for seed in range(options.seeds):
                end, classifier = measure(problem, budget, seed)
                left, meter = int((~end.broken).sum()), classifier.meter
                ratio = AUTOATTACK * left / (meter.forwards + BACKWARD * meter.backwards)
                seconds = sum(record.seconds for record in end.records)
                theirs = "-" if problem.autoattack is None else problem.autoattack
                print(
                    f"{problem.name:34} {budget:9} {seed:4} {left:5} {theirs:>5} {meter.forwards:9} "
                    f"{meter.backwards:9} {ratio:8.1f} {seconds:6.1f}",
                    flush=True,
                )
                for record in end.records if options.stages else ():
                    print(
                        f"    {record.name:22} on {record.attacked:4}: broke {record.newly_broken:3}, "
                        f"{record.forwards:7} forwards, {record.backwards:6} backwards, "
                        f"{record.seconds:5.1f} s"
                    )


if __name__ == "__main__":
    main()
