"""Logits that answer for themselves: what counts is what they hold."""

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.errors import ModelFailed
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


class Wrapping(torch.Tensor):
    """Holds nothing; answers for the tensor that it wraps, and lies."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, requires_grad=False)

    def __init__(self, inner):
        self.inner = inner

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return Wrapping(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        plain = [a.inner if isinstance(a, Wrapping) else a for a in args]
        if func is torch.ops.aten.argmax.default:
            return torch.zeros(len(plain[0]), dtype=torch.int64)
        made = func(*plain, **(kwargs or {}))
        return Wrapping(made) if func is torch.ops.aten.clone.default else made


def test_what_only_wraps_is_refused_with_the_way_out():
    class Wrapped(nn.Module):
        def forward(self, x):
            return Wrapping(Liar()(x).as_subclass(torch.Tensor).detach())

    x = torch.rand(3, 1, 2, 2)
    assert int(Wrapped()(x).argmax(1).sum()) == 0
    with pytest.raises(ModelFailed, match=r"returned a Wrapping, .* return a plain tensor"):
        Classifier(Wrapped(), deterministic=True)(x, generator=torch.Generator())


@pytest.mark.parametrize(
    ("owner", "name"),
    [(torch.Tensor, "argmax"), (torch.Tensor, "__eq__"), (torch, "argmax"), (torch.Tensor, "max")],
)
def test_what_a_pass_makes_of_torchs_functions_is_undone(owner, name):
    """In the class that answers, one pass after the other."""

    class Patching(nn.Module):
        def forward(self, x):
            setattr(owner, name, lambda *_, **__: torch.zeros(len(x), dtype=torch.int64))
            return Liar()(x).as_subclass(torch.Tensor)

    before = vars(owner).get(name)
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    judged = judge(
        Classifier(Patching(), deterministic=True), x, x, y, Linf(epsilon=0.1), generator=torch.Generator()
    )
    assert bool((judged.failure_rate == 1).all())
    assert vars(owner).get(name) is before
