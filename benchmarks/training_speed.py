"""PGD-10 adversarial training beside a bare loop of the same passes, and beside ART's trainer where it is installed.

`python benchmarks/training_speed.py`: processor time of six minibatches, the median of interleaved rounds.
"""

import copy
import importlib.util
import statistics
import time
import warnings

import numpy as np
import torch
from torch import nn

from unmask.data import Data
from unmask.threat import Linf
from unmask.training import AdversarialTraining
from unmask.zoo import CNN

BATCH, BATCHES, EPSILON, STEPS, STEP, RATE, ROUNDS = 128, 6, 0.3, 10, 0.25, 0.05, 7


def optimizer(network):
    return torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)


def ours(network, data):
    recipe = AdversarialTraining(epochs=1, batch_size=BATCH, learning_rate=RATE, pad=0, mirror=False)
    recipe.fit(network, data, Linf(epsilon=EPSILON), generator=torch.Generator().manual_seed(0))


def bare(network, data):
    steps = optimizer(network)
    for part in torch.randperm(len(data)).split(BATCH):
        x, y = data.x[part], data.y[part]
        x_adv = (x + (2 * torch.rand_like(x) - 1) * EPSILON).clamp(0, 1)
        for _ in range(STEPS):
            x_adv.requires_grad_()
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(network(x_adv), y), x_adv)
            x_adv = x_adv.detach() + STEP * EPSILON * grad.sign()
            x_adv = (x + (x_adv - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)
        steps.zero_grad()
        nn.functional.cross_entropy(network(x_adv), y).backward()
        steps.step()


def art(network, data):
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        (1, 28, 28),
        10,
        optimizer=optimizer(network),
        clip_values=(0, 1),
        device_type="cpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=BATCH,
        eps=EPSILON,
        eps_step=STEP * EPSILON,
        max_iter=STEPS,
        num_random_init=1,
    )
    trainer.fit(data.x.numpy(), np.eye(10, dtype=np.float32)[data.y.numpy()])


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # ART's own
    generator = torch.Generator().manual_seed(0)
    count = BATCH * BATCHES
    x = torch.rand(count, 1, 28, 28, generator=generator)
    y = torch.randint(10, (count,), generator=generator)
    data = Data(x, y, "noise", "train", torch.arange(count))
    network = CNN(28)
    trainers = [bare, ours] + ([art] if importlib.util.find_spec("art") else [])
    seconds = {trainer.__name__: [] for trainer in trainers}
    for _ in range(ROUNDS + 1):
        for trainer in trainers:
            fresh = copy.deepcopy(network)
            began = time.process_time()
            trainer(fresh, data)
            seconds[trainer.__name__].append(time.process_time() - began)
    for name, spent in seconds.items():
        ratio = statistics.median(s / b for s, b in zip(spent[1:], seconds["bare"][1:], strict=True))
        print(f"{name:5s} {statistics.median(spent[1:]):.2f} s, {ratio:.2f} of the bare loop")


if __name__ == "__main__":
    main()
