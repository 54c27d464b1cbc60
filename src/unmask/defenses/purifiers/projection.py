"""The nearest image that a generator can make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import UnusableInput
from ..base import RandomDefense
from ..transforms.base import Images, Preprocessing, Surrogate
from .generator import Generator
from .weights import stored


def project(
    generator: Generator,
    x: Images,
    z: Float[Tensor, "restarts batch latent"],
    *,
    iterations: int,
    rate: float,
    momentum: float,
    differentiable: bool = False,
) -> Images:
    """G(z*), where gradient descent from each of several z has minimised the mean of (G(z) - x)^2 over the pixels.

    Of the restarts the one with the smallest error counts, example by example. Where `differentiable`, the descent
    itself is: the result has a gradient to `x` through every step.
    """
    restarts, batch = z.shape[:2]
    target = x.expand(restarts, *x.shape).flatten(0, 1)
    z = z.flatten(0, 1).requires_grad_()
    velocity = torch.zeros_like(z)
    for _ in range(iterations):
        (slope,) = torch.autograd.grad(_error(generator(z), target).sum(), z, create_graph=differentiable)
        velocity = momentum * velocity - rate * slope
        z = z + velocity
        if not differentiable:
            z = z.detach().requires_grad_()
    made = generator(z)
    best = _error(made, target).view(restarts, batch).argmin(0)
    return made.unflatten(0, (restarts, batch))[best, torch.arange(batch, device=x.device)]


def _error(made: Images, target: Images) -> Float[Tensor, " batch"]:
    return (made - target).square().flatten(1).mean(1)


class _Projection(nn.Module):
    def __init__(self, defense: DefenseGAN, *, differentiable: bool = False):
        super().__init__()
        self.generator, self.restarts = stored(defense.generator, Generator), defense.restarts
        self.differentiable = differentiable
        self.how = {
            "iterations": defense.iterations,
            "rate": defense.rate,
            "momentum": defense.momentum,
            "differentiable": differentiable,
        }

    def forward(self, x: Images) -> Images:
        z = torch.randn(self.restarts, len(x), self.generator.latent, device=x.device)
        with torch.inference_mode(False), torch.enable_grad():  # the descent needs gradients of its own
            start = z.clone().to(x.dtype)
            if self.differentiable:
                return project(self.generator, x, start, **self.how)
            return project(self.generator, x.detach().clone(), start, **self.how).detach()


@dataclass(frozen=True, kw_only=True)
class DefenseGAN(Preprocessing, RandomDefense):
    """Replaces an image by the nearest one that a generator can make, found by descent from random latent vectors.

    As published, nothing of the descent has a gradient to the image. The surrogate differentiates all of its steps,
    from the same vectors.

    **Fields**
    - `generator`: a trained `Generator`; or the path of a `.safetensors` file with its weights.
    - `restarts`, `iterations`: R = 10 and L = 200 in the paper; ours are smaller, as the generator is.
    - `rate`, `momentum`: of the descent on the mean squared error over the pixels; 10 and 0.7 in the published
      code. Ours is faster, as there are fewer steps.
    - `passes`, `average`: as `RandomDefense` has them; the paper predicts from one projection.

    **Cost**: `restarts * iterations` passes of the generator forth and back, counted as one forward.
    **Source**: Samangouei, Kabkab & Chellappa 2018, arXiv:1805.06605; broken in part by Athalye, Carlini & Wagner 2018,
    arXiv:1802.00420, section 5.4. **Differs**: the generator is a small perceptron and not
    convolutional; the rate stays as it is; the network was not trained on projections.
    """

    generator: nn.Module | str
    restarts: int = 2
    iterations: int = 15
    rate: float = 30.0
    momentum: float = 0.7
    passes: int = 1

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("iterations", 1), ("passes", 1)):
            if getattr(self, name) < least:
                raise UnusableInput(f"`DefenseGAN` has {name}={getattr(self, name)}; give at least {least}")
        if not self.rate > 0 or not 0 <= self.momentum < 1:
            raise UnusableInput(
                f"`DefenseGAN` has rate={self.rate} and momentum={self.momentum}; give a positive rate and a "
                "momentum in [0, 1)"
            )

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Projection(self)

    @property
    def surrogate(self) -> Surrogate:
        """The same descent, differentiated step by step."""
        return _Projection(self, differentiable=True)

    @property
    def draws(self) -> int:
        """As `Preprocessing.draws`."""
        return self.passes
