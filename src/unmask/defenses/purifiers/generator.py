"""A small generator of images from latent vectors, and how an adversary of its own, the critic, teaches it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..transforms.base import Images

Latents = Float[Tensor, "batch latent"]


class Generator(nn.Module):
    """Two hidden layers of ReLUs from a latent vector, standard normal, to an image in [0, 1].

    **Arguments**
    - `latent`: length of the vector.
    - `shape`: of one image, `(channels, height, width)`.
    - `width`: of the hidden layers.

    >>> Generator(4, (1, 8, 8))(torch.zeros(2, 4)).shape
    torch.Size([2, 1, 8, 8])
    """

    shape: Tensor

    def __init__(self, latent: int, shape: Sequence[int], *, width: int = 128):
        super().__init__()
        self.latent = latent
        self.register_buffer("shape", torch.tensor(list(shape)))  # stored with the weights
        self.layers = nn.Sequential(
            nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, math.prod(shape)), nn.Sigmoid(), nn.Unflatten(1, tuple(shape)),
        )  # fmt: skip

    def forward(self, z: Latents) -> Images:
        """The images of latent vectors."""
        return self.layers(z)

    @classmethod
    def of(cls, weights: dict[str, Tensor]) -> Generator:
        """The generator that a state dict belongs to; its sizes are read off it."""
        width, latent = weights["layers.0.weight"].shape
        network = cls(latent, weights["shape"].tolist(), width=width)
        network.load_state_dict(weights)
        return network


def train_generator(
    network: Generator,
    x: Images,
    *,
    generator: torch.Generator,
    steps: int = 4000,
    critic_steps: int = 5,
    penalty: float = 10.0,
    critic_width: int = 256,
    batch_size: int = 64,
    rate: float = 1e-3,
) -> float:
    """Teaches a generator the distribution of some images against a critic, in place (Wasserstein GAN).

    Returns the last estimate of the Wasserstein distance between images and generated ones, in units of the critic's.

    **Arguments**
    - `steps`: of the generator; `critic_steps`: of the critic before each, 5 in the paper.
    - `penalty`: weight of (|gradient of the critic| - 1)^2 between real and generated images, 10 in the paper.
    - `critic_width`, `batch_size`, `rate`: of a critic of two hidden layers, and of Adam, whose rate falls by a cosine;
      ours, chosen on digits.

    **Source**: Arjovsky et al. 2017, arXiv:1701.07875, as Defense-GAN trains its own; the penalty: Gulrajani et al.
    2017, arXiv:1704.00028, algorithm 1.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        critic = nn.Sequential(
            nn.Flatten(), nn.Linear(x[0].numel(), critic_width), nn.LeakyReLU(0.2),
            nn.Linear(critic_width, critic_width), nn.LeakyReLU(0.2), nn.Linear(critic_width, 1),
        ).to(x.device)  # fmt: skip
    network.train().requires_grad_(True)
    makers, judges = (torch.optim.Adam(n.parameters(), rate, betas=(0.5, 0.9)) for n in (network, critic))
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, steps) for o in (makers, judges)]
    batches = shuffled(x, batch_size, generator)
    distance = torch.tensor(torch.nan)

    def made(count: int) -> Images:
        return network(torch.randn(count, network.latent, generator=generator).to(x.device))

    with torch.enable_grad():
        for _ in range(steps):
            for real in islice(batches, critic_steps):
                fake = made(len(real)).detach()
                distance = critic(real).mean() - critic(fake).mean()
                judges.zero_grad()
                (penalty * _steepness(critic, real, fake, generator) - distance).backward()
                judges.step()
            makers.zero_grad()
            (-critic(made(batch_size)).mean()).backward()
            makers.step()
            for schedule in schedules:
                schedule.step()
    network.eval().requires_grad_(False)
    return float(distance.detach())


def shuffled(x: Images, size: int, generator: torch.Generator) -> Iterator[Images]:
    """Batches of images, epoch after epoch, each in an order of its own."""
    while True:
        yield from (x[chosen] for chosen in torch.randperm(len(x), generator=generator).split(size))


def _steepness(critic: nn.Module, real: Images, fake: Images, generator: torch.Generator) -> Tensor:
    """Mean of (|gradient| - 1)^2 at random points between each real image and a generated one."""
    share = torch.rand(len(real), generator=generator).to(real).view(-1, *[1] * (real.ndim - 1))
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
