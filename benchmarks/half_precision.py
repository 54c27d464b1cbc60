"""How far gradient norms from backward passes in bfloat16 lie from the exact ones, on other people's networks.

    UNMASK_DATA=<data folder> python benchmarks/half_precision.py [--examples 10] [--points 256] [--radius 1]

Per network, over `--examples` test images and `--points` points of the L2 ball about each, of the gradient of the
runner-up's logit minus the likeliest's: the largest relative error of a single norm, and of the largest norm of a ball.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch

from unmask.bounds.half import HalfBackward
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


def images(folder: Path, name: str, count: int) -> torch.Tensor:
    """The first test images, `[count, channels, height, width]` in [0, 1]."""
    import datasets

    rows = datasets.load_dataset(str(folder / name), split="test").select(range(count))
    column = "image" if "image" in rows.column_names else "img"
    pixels = torch.from_numpy(np.stack([np.asarray(row[column], dtype=np.float32) for row in rows]) / 255)
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def main() -> None:
    """Prints one line per network."""
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--radius", type=float, default=1.0)
    options = parser.parse_args()
    if not os.environ.get("UNMASK_DATA"):
        sys.exit("UNMASK_DATA is not set; point it at the data folder beside models/networks.py")
    folder = Path(os.environ["UNMASK_DATA"])
    spec = importlib.util.spec_from_file_location("networks", folder.parent / "models" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ball = L2(epsilon=options.radius)
    for name in options.networks:
        network = getattr(module, name)()
        single, largest = dict.fromkeys((1.0, 2.0, math.inf), 0.0), dict.fromkeys((1.0, 2.0, math.inf), 0.0)
        for i, center in enumerate(images(folder, name.split("_")[0], options.examples)):
            start = center.expand(options.points, *center.shape)
            x = ball.random_start(start, generator=torch.Generator().manual_seed(i)).requires_grad_()
            first, second = network(center[None])[0].topk(2).indices
            logits = network(x)
            value = (logits[:, second] - logits[:, first]).sum()
            (exact,) = torch.autograd.grad(value, x, retain_graph=True)
            with HalfBackward():
                (half,) = torch.autograd.grad(value, x)
            for p in single:
                a, b = (torch.linalg.vector_norm(g.flatten(1).double(), p, dim=1) for g in (exact, half))
                if (a > 0).any():
                    single[p] = max(single[p], float(((a - b).abs() / a)[a > 0].max()))
                    largest[p] = max(largest[p], abs(float(b.max() / a.max()) - 1))
        norms = ", ".join(f"L{p:g} {single[p]:.4f} and {largest[p]:.4f}" for p in single)
        print(f"{name}: single norms and the largest off by at most: {norms}", flush=True)


if __name__ == "__main__":
    main()
