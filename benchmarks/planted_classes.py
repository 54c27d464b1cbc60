"""Which targets find a class that was planted among 1,000: the likeliest ones, or the nearest by their slopes.

    UNMASK_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/planted_classes.py --examples 16

A ResNet-18 of random weights, statistics of its normalisation and a read-out (ridge regression) from 1,000 test
images of CIFAR-10 at 64 x 64, each of which is a class. For every further image a ball (Linf) in which APGD-20 finds
nothing, and a network in which one point of that ball, with a random sign for each number, belongs to a random class
of rank 20 to 900: its row of the read-out is tilted along the change of the features between image and point, the
image's own logits stay. Each attack is run on each such network; a line for each image, and the number broken.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
import torch.nn.functional as F
from real_size import CLASSES, resnet18
from torch import Tensor, nn

from unmask.attacks import APGD, Attack, TargetedAPGD
from unmask.data import load
from unmask.objectives import Targeted, margin_loss

ATTACKS: dict[str, Attack] = {
    "APGD-100, 2 restarts": APGD(steps=100, restarts=2, objective=margin_loss),
    "9 likeliest": TargetedAPGD(steps=20, targets=9, objective=Targeted()),
    "the nearest": TargetedAPGD(steps=20, targets=1, order="nearest", objective=Targeted()),
    "9 nearest": TargetedAPGD(steps=20, targets=9, order="nearest", objective=Targeted()),
}
RADII = [r / 255 for r in (0.4, 0.2, 0.1, 0.05, 0.02)]


def network(images: Tensor) -> nn.Sequential:
    """Each of the images `[1000, …]` is a class; read off their features, and those of three noisy copies of each."""
    torch.manual_seed(0)
    layers = list(resnet18())
    body = nn.Sequential(*layers[:-1]).train()
    with torch.no_grad():
        for part in images.split(100):
            body(part)
        body.eval()
        noisy = [(images + 0.1 * torch.randn_like(images)).clamp(0, 1) for _ in range(3)]
        found = torch.cat([body(part) for x in (images, *noisy) for part in x.split(50)])
        mean = found[:CLASSES].mean(0)
        found = found - mean
        ridge = 1e-4 * found.square().mean() * len(found) * torch.eye(found.shape[1])
        wanted = torch.eye(CLASSES).repeat(4, 1) - 1 / CLASSES
        rows = 20 * torch.linalg.solve(found.T @ found + ridge, found.T @ wanted).T
    head = nn.Linear(found.shape[1], CLASSES)
    head.weight.data, head.bias.data = rows.contiguous(), -(rows @ mean)
    return nn.Sequential(body, head).eval()


@torch.no_grad()
def planted(net: nn.Sequential, x: Tensor, epsilon: float, generator: torch.Generator) -> nn.Sequential:
    """The network in which a random corner of the ball around `x` `[1, …]` is another class."""
    corner = x + epsilon * torch.randn(x.shape, generator=generator).sign()
    rank = int(torch.randint(20, 900, (1,), generator=generator))
    chosen = net(x)[0].argsort(descending=True)[rank]
    there = net(corner)[0]
    features = net[0](x)[0]
    change = net[0](corner)[0] - features
    tilt = change / change.dot(change) * (there.max() - there[chosen]) * 1.1
    made = copy.deepcopy(net)
    head = made[1]
    assert isinstance(head, nn.Linear)
    head.weight.data[chosen] += tilt
    head.bias.data[chosen] -= tilt.dot(features)
    return made


def holds(net: nn.Module, point: Tensor, y: Tensor) -> bool:
    """Whether the point keeps its label `[1]`."""
    with torch.no_grad():
        return bool((net(point).argmax(1) == y).all())


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=16)
    examples = parser.parse_args().examples
    pictures = F.interpolate(load("cifar10", split="test").x[:3000], size=(64, 64), mode="bilinear")
    net = network(pictures[2000:])
    generator = torch.Generator().manual_seed(1)
    broken, seconds, done = dict.fromkeys(ATTACKS, 0), dict.fromkeys(ATTACKS, 0.0), 0
    print(f"| image | epsilon x 255 | {' | '.join(ATTACKS)} |\n|{'---|' * (2 + len(ATTACKS))}")
    for n, x in enumerate(pictures[:2000].split(1)):
        y = net(x).argmax(1)
        probe = APGD(steps=20, objective=margin_loss)
        epsilon = next((r for r in RADII if holds(net, probe(net, x, y, epsilon=r), y)), None)
        if epsilon is None:
            continue
        there = planted(net, x, epsilon, generator)
        found = []
        for name, attack in ATTACKS.items():
            began = time.process_time()
            found.append(not holds(there, attack(there, x, y, epsilon=epsilon), y))
            seconds[name] += time.process_time() - began
            broken[name] += found[-1]
        print(
            f"| {n} | {255 * epsilon:g} | {' | '.join('broken' if f else '-' for f in found)} |", flush=True
        )
        done += 1
        if done == examples:
            break
    print(f"| {done} | broken | {' | '.join(str(b) for b in broken.values())} |")
    print(f"| | processor s | {' | '.join(f'{s:.1f}' for s in seconds.values())} |")


if __name__ == "__main__":
    main()
