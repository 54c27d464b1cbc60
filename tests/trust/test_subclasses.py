"""Logits that answer for themselves: what counts is what they hold."""

import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.judge import judge
from unmask.threat import Linf


class Lying(torch.Tensor):
    """Says the class that it is told to say, whatever it holds."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("argmax", "max", "topk", "sort"):
            return torch.zeros(len(args[0]), dtype=torch.int64)
        return super().__torch_function__(func, types, args, kwargs or {})


class Liar(nn.Module):
    """The second class, in its values; the first, in what its tensor says."""

    def forward(self, x):
        flat = x.flatten(1).sum(1, keepdim=True)
        return torch.cat([flat, flat + 1], 1).as_subclass(Lying)


def test_logits_are_read_as_what_they_hold():
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    assert int(Liar()(x).argmax(1).sum()) == 0
    outputs = Classifier(Liar(), deterministic=True)(x, generator=torch.Generator())
    assert type(outputs.logits) is torch.Tensor
    assert outputs.logits.argmax(1).tolist() == [1, 1, 1]
    judged = judge(
        Classifier(Liar(), deterministic=True), x, x, y, Linf(epsilon=0.1), generator=torch.Generator()
    )
    assert bool((judged.failure_rate == 1).all())


def test_the_gradient_passes_through():
    x = torch.rand(3, 1, 2, 2, requires_grad=True)
    logits = Classifier(Liar(), deterministic=True)(x, generator=torch.Generator()).logits
    (grad,) = torch.autograd.grad(logits.sum(), x)
    assert torch.equal(grad, torch.full_like(x, 2.0))


def test_a_parameter_stays_what_it_is():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.eye(2))

        def forward(self, x):
            return self.logits

    logits = Classifier(Constant(), deterministic=True)(
        torch.rand(2, 1, 2, 2), generator=torch.Generator()
    ).logits
    assert torch.equal(logits.detach(), torch.eye(2))
