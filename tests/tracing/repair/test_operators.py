"""Operators of `torch.library`: what they compute, in the place of a backward that was registered or lies inside."""

import pytest
import torch
from tests.tracing.networks import Wrapped
from tests.tracing.repair.test_own_forward import repairs_of
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.rewrite import Rewritten

LIBRARY = torch.library.Library("unmask_operators", "FRAGMENT")


class Negated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return -grad


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0.5).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return -grad


def spikes(x: torch.Tensor) -> torch.Tensor:
    return Spike.forward(None, x)


def squares(x: torch.Tensor) -> torch.Tensor:
    return x**2


def minus(ctx, grad):
    return -grad


def composite(name, function, kernel):
    LIBRARY.define(f"{name}(Tensor x) -> Tensor")
    LIBRARY.impl(name, function.apply, "CompositeImplicitAutograd")


def for_autograd(name, function, kernel):
    LIBRARY.define(f"{name}(Tensor x) -> Tensor")
    LIBRARY.impl(name, kernel, "CPU")
    LIBRARY.impl(name, function.apply, "AutogradCPU")


def registered(name, function, kernel):
    LIBRARY.define(f"{name}(Tensor x) -> Tensor")
    LIBRARY.impl(name, kernel, "CPU")
    torch.library.register_autograd(f"unmask_operators::{name}", minus, lib=LIBRARY)


def custom(name, function, kernel):
    torch.library.custom_op(f"unmask_operators::{name}", kernel, mutates_args=()).register_autograd(minus)


WAYS = [composite, for_autograd, registered, custom]
for way in WAYS:
    way(f"squares_{way.__name__}", Negated, squares)
    way(f"spikes_{way.__name__}", Spike, spikes)


def operator(kind, way):
    return getattr(torch.ops.unmask_operators, f"{kind}_{way.__name__}")


@pytest.mark.parametrize("way", WAYS)
def test_what_it_computes_is_differentiated(way):
    network, repairs = repairs_of(operator("squares", way))
    x = images().requires_grad_()
    made = Rewritten(network, repairs[0].rewrite)(x)
    assert torch.equal(made, network(x))
    (found,) = torch.autograd.grad(made[:, 0].sum(), x)
    (truth,) = torch.autograd.grad(Wrapped(squares)(x)[:, 0].sum(), x)
    assert torch.cosine_similarity(found.flatten(1), truth.flatten(1)).min() > 0.9999


@pytest.mark.parametrize("way", WAYS)
def test_its_steps_are_softened_by_as_much_as_an_entrant_says(way):
    network, repairs = repairs_of(operator("spikes", way))
    slopes = {}
    for repair in repairs:
        x = images().requires_grad_()
        made = Rewritten(network, repair.rewrite)(x)
        (slopes[repair.name],) = torch.autograd.grad(made[:, 0].sum(), x)
    ways = slopes["smooth, wide"], slopes["smooth"], slopes["smooth, narrow"]
    assert float(ways[0].norm()) < float(ways[1].norm()) < float(ways[2].norm())


@pytest.mark.parametrize("way", WAYS)
def test_the_function_inside_is_the_suspect_and_not_the_operator_around_it(way):
    assert [s.kind for s in suspects(Wrapped(operator("spikes", way))).suspects] == ["function"]


@pytest.mark.parametrize("way", [registered, custom])
def test_it_is_called_by_its_own_name(way):
    (found,) = suspects(Wrapped(operator("spikes", way))).suspects
    assert found.operation == f"unmask_operators_spikes_{way.__name__}_default (operator of torch.library)"
