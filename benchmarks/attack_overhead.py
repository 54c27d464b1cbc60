"""What an attack costs beyond its forward and backward passes.

Times PGD and APGD beside a bare loop of the same number of passes on the same batch, and other people's
PGD where their packages are installed (`pip install unmask[peers]`). Rounds are interleaved, so that a busy
machine slows every row alike; the table shows medians and their ratio to the bare loop.

    UNMASK_DATA=../shared/data python benchmarks/attack_overhead.py --batch-sizes 64 256 --rounds 7

With `UNMASK_DATA` set it uses the networks in `models` beside that folder, else a small random one.

Freed memory stays in the process, for all rows alike, as `unmask` on the command line has it. With
`--freed-memory returned` it is glibc's own affair: then which attack's buffers happen to lie above the freed
activations decides how many pages are given back and faulted in again, and the rows differ by that.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
import warnings
from collections.abc import Callable

import other_networks
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks import APGD, PGD
from unmask.classifier import Classifier
from unmask.cli.allocator import keep_freed_memory
from unmask.threat import Linf

Attack = Callable[[Tensor, Tensor], object]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHAPES = {"mnist_pgd": (1, 28, 28), "cifar10_resnet20": (3, 32, 32), "small": (1, 8, 8)}


def bare_loop(network: nn.Module, epsilon: float, passes: int, step_size: float) -> Attack:
    """The floor: `passes` forwards and backwards, the sign step, the ball and the box, and nothing else."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        x_adv = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(passes):
            x_adv.requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(network(x_adv), y, reduction="sum"), x_adv)
            x_adv = (x_adv.detach() + step_size * grad.sign()).clamp(x - epsilon, x + epsilon).clamp(0, 1)
        return x_adv

    return run


def ours(attack: PGD | APGD, network: nn.Module, epsilon: float) -> Attack:
    """One of our attacks, with the randomness of a user who passes a generator."""
    classifier = Classifier(network, deterministic=True)
    generator = torch.Generator().manual_seed(0)
    return lambda x, y: attack.run(classifier, x, y, Linf(epsilon=epsilon), generator=generator)


def peers(network: nn.Module, epsilon: float, steps: int, shape: tuple[int, ...]) -> dict[str, Attack]:
    """Other people's PGD with the same number of backwards."""
    found: dict[str, Attack] = {}
    rel_step_size = 0.0625
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        alpha = rel_step_size * epsilon
        found["torchattacks PGD"] = torchattacks.PGD(network, eps=epsilon, alpha=alpha, steps=steps)
    if importlib.util.find_spec("foolbox"):
        import foolbox

        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.LinfPGD(rel_stepsize=rel_step_size, steps=steps)
        found["Foolbox PGD"] = lambda x, y: attack(model, x, y, epsilons=epsilon)
    if importlib.util.find_spec("art"):
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        estimator = PyTorchClassifier(
            network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type="cpu"
        )
        projected = ProjectedGradientDescent(
            estimator, eps=epsilon, eps_step=rel_step_size * epsilon, max_iter=steps, num_random_init=1,
            batch_size=4096, verbose=False,
        )  # fmt: skip
        found["ART PGD"] = lambda x, y: projected.generate(x.numpy(), y.numpy())
    return found


def load_network(name: str) -> nn.Module:
    """A network with parameters that require gradients, as a user's own have."""
    if name == "small":
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        ).eval()  # fmt: skip
    return other_networks.load_network(name).requires_grad_(True)


def measure(attacks: dict[str, Attack], x: Tensor, y: Tensor, rounds: int, clock: str) -> dict[str, float]:
    """Median seconds of each attack over interleaved rounds, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in attacks}
    for round_ in range(rounds + 1):
        for name, attack in attacks.items():
            start = CLOCKS[clock]()
            attack(x, y)
            if round_:
                seconds[name].append(CLOCKS[clock]() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Prints one table for each network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    available = ["mnist_pgd", "cifar10_resnet20"] if "UNMASK_DATA" in os.environ else ["small"]
    parser.add_argument("--networks", nargs="+", default=available, choices=list(SHAPES))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--passes", type=int, default=40, help="forwards and backwards per example")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu on a machine that is busy")
    parser.add_argument("--freed-memory", choices=["kept", "returned"], default="kept")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    if options.freed_memory == "kept":
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # other people's
    steps, epsilon = options.passes - 1, options.epsilon
    print(f"{'network':18s} {'batch':>5s} {'attack':22s} {'seconds':>9s} {'/ bare':>7s}")
    for name in options.networks:
        network = load_network(name)
        for size in options.batch_sizes:
            torch.manual_seed(0)
            x = torch.rand(size, *SHAPES[name])
            y = network(x).argmax(1).detach()
            # Every other label is wrong from the start: half of the batch leaves at once where it may.
            half = torch.where(torch.arange(size) % 2 == 0, y, (y + 1) % 10)
            attacks = {
                "bare loop": bare_loop(network, epsilon, options.passes, 0.0625 * epsilon),
                "PGD": ours(PGD(steps=steps, early_stop=False), network, epsilon),
                "APGD": ours(APGD(steps=steps, early_stop=False), network, epsilon),
                "PGD, early stop": ours(PGD(steps=steps), network, epsilon),
                "APGD, early stop": ours(APGD(steps=steps), network, epsilon),
            }
            if not options.no_peers:
                attacks |= peers(network, epsilon, options.passes, SHAPES[name])
            medians = measure(attacks, x, half, options.rounds, options.clock)
            for attack, seconds in medians.items():
                ratio = seconds / medians["bare loop"]
                print(f"{name:18s} {size:5d} {attack:22s} {seconds:9.4f} {ratio:7.3f}", flush=True)


if __name__ == "__main__":
    main()
