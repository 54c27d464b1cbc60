"""CLEVER here and in ART on one network, with the same settings, interleaved.

    UNMASK_DATA=<data folder> python benchmarks/clever_speed.py [--batches 500] [--samples 1024] [--pool-factor 10]

Prints each round's processor seconds and scores, and the medians; and the floor: how long the passes alone take, one
forward and a backward per target for each point, without drawing points, norms or fits. Both draw a pool of points
(`pool_factor * samples`) and take each maximum over a random part of it, which is all that ART offers. Targeted: one
class. Untargeted: all others.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import torch
from other_networks import data_folder, load_network
from torch import nn

from unmask.bounds import Clever
from unmask.classifier import Classifier
from unmask.threat import NORMS


def bare_passes(network: nn.Module, x: torch.Tensor, y: int, targets: list[int], points: int) -> float:
    """Processor seconds of the forward and backward passes alone, 512 points at a time."""
    start = time.process_time()
    for _ in range(points // 512):
        leaf = x.repeat(512, 1, 1, 1).requires_grad_()
        logits = network(leaf)
        for target in targets:
            torch.autograd.grad((logits[:, target] - logits[:, y]).sum(), leaf, retain_graph=True)
    return (time.process_time() - start) * points / (points // 512 * 512)


def main() -> None:
    """Prints the rounds and their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mnist_fast_pgd")
    parser.add_argument("--norm", default="l2", choices=list(NORMS))
    parser.add_argument("--radius", type=float, default=2.0)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--pool-factor", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--untargeted", action="store_true")
    parser.add_argument("--half", action="store_true", help="our backward passes in bfloat16")
    parser.add_argument("--points-at-once", type=int, default=512, help="ours")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    data_folder()
    torch.set_num_threads(options.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.estimators.classification import PyTorchClassifier
        from art.metrics import clever_t, clever_u

    network = load_network(options.network)
    shape = (3, 32, 32) if options.network.startswith("cifar10") else (1, 28, 28)
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    target = (y + 1) % 10
    norm = NORMS[options.norm]
    goal = "untargeted" if options.untargeted else "targeted"
    threat = norm(epsilon=options.radius, goal=goal)
    ours = Clever(
        batches=options.batches,
        samples=options.samples,
        pool_factor=options.pool_factor,
        half=options.half,
        points_at_once=options.points_at_once,
    )
    door = Classifier(network, deterministic=True)
    theirs = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type="cpu"
    )
    settings = (options.batches, options.samples, options.radius, norm.p)
    seconds: dict[str, list[float]] = {"unmask": [], "art": [], "bare": []}
    for round_ in range(options.rounds):
        start = time.process_time()
        labels = y if options.untargeted else target
        mine = ours.run(door, x, labels, threat, generator=torch.Generator().manual_seed(round_))[0].score
        seconds["unmask"].append(time.process_time() - start)
        np.random.seed(round_)
        start = time.process_time()
        if options.untargeted:
            other = clever_u(theirs, x[0].numpy(), *settings, pool_factor=options.pool_factor, verbose=False)
        else:
            other = clever_t(theirs, x[0].numpy(), int(target), *settings, pool_factor=options.pool_factor)
        seconds["art"].append(time.process_time() - start)
        others = [k for k in range(10) if k != int(y)] if options.untargeted else [int(target)]
        seconds["bare"].append(bare_passes(network, x, int(y), others, options.pool_factor * options.samples))
        print(
            f"round {round_}: unmask {mine:.5f} in {seconds['unmask'][-1]:.2f} s, "
            f"art {float(other):.5f} in {seconds['art'][-1]:.2f} s",
            flush=True,
        )
    mine, other, bare = (statistics.median(s) for s in seconds.values())
    print(
        f"{options.network}, {options.norm}, {goal}, {options.batches} x {options.samples}: "
        f"unmask {mine:.2f} s, art {other:.2f} s, {other / mine:.1f} x; "
        f"bare passes {bare:.2f} s, {other / bare:.1f} x"
    )


if __name__ == "__main__":
    main()
