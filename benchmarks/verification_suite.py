"""Certificates and PGD against 114 verification instances with known verdicts (VNN-COMP 2021).

    UNMASK_DATA=<data folder> python benchmarks/verification_suite.py [--networks NAME ...] [--steps 50]

A row per network: how many instances that are safe, unsafe and open by the competition's verdicts are certified, and
how many PGD breaks. The run fails if anything certified is unsafe or anything safe is broken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import numpy as np
import torch
from other_networks import data_folder, load_network
from torch import Tensor, nn

from unmask.attacks import PGD
from unmask.bounds import certify_box
from unmask.classifier import Classifier
from unmask.judge import fooled
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf

NETWORKS = ("mnist_fc_256x2", "mnist_sigmoid_6x200", "cifar10_resnet2b")


def attacked(network: nn.Module, lower: Tensor, upper: Tensor, y: Tensor, steps: int) -> Tensor:
    """Whether PGD finds a misclassified point of each box. Each box becomes the unit cube of an affine network."""
    broken = torch.zeros(len(y), dtype=torch.bool)
    for i in range(len(y)):
        low, high = lower[i : i + 1], upper[i : i + 1]
        classifier = Classifier(
            lambda p, low=low, high=high: network(torch.minimum(low + p * (high - low), high)),
            deterministic=True,
        )
        attack = PGD(steps=steps, rel_step_size=0.1, restarts=2, objective=margin_loss)
        threat = Linf(epsilon=0.5)
        streams = Streams.seeded(0, torch.tensor([i]))
        points = attack.run(classifier, torch.full_like(low, 0.5), y[i : i + 1], threat, generator=streams)
        broken[i] = fooled(classifier(points, generator=streams), y[i : i + 1], threat)[0]
    return broken


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    print("| network | safe | certified | by | unsafe | broken | open | certified / broken | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    wrong = 0
    for name in options.networks:
        stored = np.load(data_folder() / "verification" / f"{name}.npz")
        lower, upper, y, verdict = (
            torch.from_numpy(stored[k]) for k in ("lower", "upper", "label", "verdict")
        )
        network = load_network(name)
        start = time.perf_counter()
        found = certify_box(network, lower, upper, y, methods=("interval", "crown", "alpha_crown"))
        seconds = time.perf_counter() - start
        broken = attacked(network, lower, upper, y, options.steps)
        proved = found.certified
        by = Counter(m for m, p in zip(found.method, proved.tolist(), strict=True) if p)
        wrong += int(
            (proved & (verdict == 1)).sum() + (broken & (verdict == 0)).sum() + (proved & broken).sum()
        )
        print(
            f"| {name} | {int((verdict == 0).sum())} | {int(proved[verdict == 0].sum())} | "
            f"{', '.join(f'{m} {n}' for m, n in by.items())} | {int((verdict == 1).sum())} | "
            f"{int(broken[verdict == 1].sum())} | {int((verdict == -1).sum())} | "
            f"{int(proved[verdict == -1].sum())} / {int(broken[verdict == -1].sum())} | {seconds:.0f} |",
            flush=True,
        )
    if wrong:
        sys.exit(f"{wrong} contradictions between certificates, attacks and verdicts")
    print(
        "No contradiction: nothing unsafe is certified, nothing safe is broken, nothing certified is broken."
    )


if __name__ == "__main__":
    main()
