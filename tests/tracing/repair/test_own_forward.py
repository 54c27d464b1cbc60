"""A custom function's own forward in the place of whatever backward it declares."""

import numpy as np
import pytest
import torch
from tests.tracing.networks import Wrapped
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import Redifferentiate


class Doubled(torch.autograd.Function):
    """Its subclasses declare this or that; all compute `x ** 2`."""

    @staticmethod
    def forward(ctx, x):
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return grad


class Zeros(Doubled):
    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


class Negated(Doubled):
    @staticmethod
    def backward(ctx, grad):
        return -grad


class Tiny(Doubled):
    @staticmethod
    def backward(ctx, grad):
        return 1e-30 * grad


class Random(Doubled):
    @staticmethod
    def backward(ctx, grad):
        return torch.randn_like(grad)


class Clipped(Doubled):
    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-1e-6, 1e-6)


class ThroughNumPy(Doubled):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.square(x.detach().numpy()))


class NewStyle(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return -grad


class TwoResults(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.mark_non_differentiable(x.argmax(1))
        return x**2, x.mean(1)

    @staticmethod
    def backward(ctx, grad, other):
        return torch.zeros_like(grad)


class Opaque(torch.autograd.Function):
    """Python numbers, one by one: nothing can be followed, only measured."""

    @staticmethod
    def forward(ctx, x):
        return torch.tensor([[v * v for v in row] for row in x.tolist()])

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


class LowRank(torch.autograd.Function):
    """The nearest matrix of rank one, behind an identity backward."""

    @staticmethod
    def forward(ctx, x):
        u, s, v = torch.linalg.svd(x.reshape(-1, 4, 4), full_matrices=False)
        return (u[..., :1] * s[..., None, :1] @ v[..., :1, :]).reshape(x.shape)

    @staticmethod
    def backward(ctx, grad):
        return grad


class WritesIntoWhatItMade(LowRank):
    """As autograd lets a forward do, which runs without gradient."""

    @staticmethod
    def forward(ctx, x):
        u, s, v = torch.linalg.svd(x.reshape(-1, 4, 4), full_matrices=False)
        s[..., 1:] = 0
        made = u.mul_(s[..., None, :]) @ v
        return made.reshape(x.shape)


FUNCTIONS = [Doubled, Zeros, Negated, Tiny, Random, Clipped, ThroughNumPy, NewStyle, TwoResults, Opaque]


def first(made):
    return made[0] if isinstance(made, tuple) else made


def repairs_of(step):
    network = Wrapped(step)
    found = propose(suspects(network))
    return network, [
        r for r in found if any(isinstance(rule, Redifferentiate) for rule in r.rewrite.rules.values())
    ]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_its_slope_whatever_it_declares(function):
    network, repairs = repairs_of(lambda x: first(function.apply(x)))
    assert repairs, "its own forward does not enter the race"
    x = images().requires_grad_()
    made = Rewritten(network, repairs[0].rewrite)(x)
    assert torch.equal(made, network(x))
    (found,) = torch.autograd.grad(made[:, 0].sum(), x)
    (truth,) = torch.autograd.grad(Wrapped(lambda x: x**2)(x)[:, 0].sum(), x)
    cosine = torch.cosine_similarity(found.flatten(1), truth.flatten(1)).min()
    assert cosine > (0.95 if function is Opaque else 0.9999)


@pytest.mark.parametrize("function", [LowRank, WritesIntoWhatItMade], ids=lambda f: f.__name__)
def test_low_rank(function):
    network, repairs = repairs_of(function.apply)
    x = images().requires_grad_()

    def honest(x):
        return LowRank.forward(None, x)

    (found,) = torch.autograd.grad(Rewritten(network, repairs[0].rewrite)(x)[:, 0].sum(), x)
    (truth,) = torch.autograd.grad(Wrapped(honest)(x)[:, 0].sum(), x)
    assert torch.cosine_similarity(found.flatten(1), truth.flatten(1)).min() > 0.999


def test_an_honest_function_enters_the_race_and_is_no_suspect_of_another_kind():
    class Honest(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 3

        @staticmethod
        def backward(ctx, grad):
            return grad * 3

    found = suspects(Wrapped(Honest.apply)).suspects
    assert [s.symptom.name for s in found] == ["declared"]
