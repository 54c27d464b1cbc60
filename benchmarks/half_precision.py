"""How far gradient norms from backward passes in bfloat16 lie from the exact ones, on other people's networks.

    UNMASK_DATA=<data folder> python benchmarks/half_precision.py [--examples 10] [--points 256] [--radius 1]

Per network, over `--examples` test images and `--points` points of the L2 ball about each, of the gradient of the
runner-up's logit minus the likeliest's: the largest relative error of a single norm, and of the largest norm of a ball.
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F
from other_networks import load_network

from unmask.bounds.clever.half import HalfTape
from unmask.data import load
from unmask.threat import L2

NETWORKS = (
    "mnist_fast_pgd",
    "mnist_wong_kolter",
    "mnist_lenet5",
    "mnist_fc_256x2",
    "mnist_fc_50x2",
    "mnist_sigmoid_6x200",
    "cifar10_wong_kolter_8px",
    "cifar10_resnet2b",
    "cifar10_sdp_mix4",
)


def main() -> None:
    """Prints one line per network."""
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--radius", type=float, default=1.0)
    options = parser.parse_args()
    ball = L2(epsilon=options.radius)
    for name in options.networks:
        network = load_network(name)
        single, largest = dict.fromkeys((1.0, 2.0, math.inf), 0.0), dict.fromkeys((1.0, 2.0, math.inf), 0.0)
        for i, center in enumerate(load(name.split("_")[0], split="test", examples=options.examples).x):
            start = center.expand(options.points, *center.shape)
            x = ball.random_start(start, generator=torch.Generator().manual_seed(i)).requires_grad_()
            first, second = network(center[None])[0].topk(2).indices
            logits = network(x)
            value = (logits[:, second] - logits[:, first]).sum()
            (exact,) = torch.autograd.grad(value, x)
            tape = HalfTape()
            with torch.no_grad(), tape:
                logits = network(tape.start(x.detach()))
            half = tape.gradient(
                logits, F.one_hot(second, logits.shape[1]) - F.one_hot(first, logits.shape[1])
            )
            for p in single:
                a, b = (torch.linalg.vector_norm(g.double().flatten(1), p, dim=1) for g in (exact, half))
                if (a > 0).any():
                    single[p] = max(single[p], float(((a - b).abs() / a)[a > 0].max()))
                    largest[p] = max(largest[p], abs(float(b.max() / a.max()) - 1))
        norms = ", ".join(f"L{p:g} {single[p]:.4f} and {largest[p]:.4f}" for p in single)
        print(f"{name}: single norms and the largest off by at most: {norms}", flush=True)


if __name__ == "__main__":
    main()
