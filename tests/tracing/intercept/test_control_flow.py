"""Branches and loops that torch offers as functions: seen as the Python that they stand for."""

import importlib
import warnings

import pytest
import torch
from tests.tracing.networks import Wrapped
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.intercept.control_flow import IN_PYTHON, as_python
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


def torchs(name):
    return getattr(importlib.import_module(f"torch._higher_order_ops.{name}"), name)


def coarse(x, levels=5):
    return torch.round(x * levels) / levels


def by_brightness(x):
    return torch.cond(x.mean() > 0.5, lambda v: coarse(v), lambda v: coarse(v, 4), (x,))


def image_by_image(x):
    return torch.stack(
        [torch.cond(i.amax() > 0.7, lambda v: coarse(v), lambda v: coarse(v, 4), (i,)) for i in x]
    )


def three_times(x):
    def more(i, v):
        return i < 3

    def body(i, v):
        return i + 1, 0.9 * coarse(v)

    return torchs("while_loop")(more, body, (torch.tensor(0), x))[1]


def mapped(x):
    return torchs("map")(lambda v, by: coarse(v) * by, x, x.new_tensor(0.5))


def diffused(x):
    def step(carry, v):
        out = coarse(carry + v, 3)
        return carry + v - out, out

    return torchs("scan")(step, torch.zeros(len(x)), x, dim=1, reverse=True)[1]


STEPS = [by_brightness, image_by_image, three_times, mapped, diffused]


@pytest.mark.parametrize("step", STEPS)
def test_what_lies_inside_is_seen_and_softened(step):
    network = Wrapped(step)
    with as_python():  # else the plain pass is compiled, which takes a second
        analysis = suspects(network)
        assert analysis.warning == ""
        assert "torch.round" in {s.operation for s in analysis.suspects}
        x = images().requires_grad_()
        made = Rewritten(network, propose(analysis)[0].rewrite)(x)
        assert torch.equal(made, network(x))
    (slope,) = torch.autograd.grad(made[:, 0].sum(), x)
    assert (slope != 0).float().mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_it_is_what_torch_makes_of_it(step):
    x = images().flatten(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = step(x)
    with as_python():
        assert torch.equal(step(x), theirs)


def test_the_functions_have_their_own_code_afterwards():
    before = {name: torchs(name).__code__ for name in IN_PYTHON}
    with as_python():
        with as_python():
            pass
        assert all(torchs(name).__code__ is not code for name, code in before.items())
    with pytest.raises(RuntimeError, match="user"), as_python():
        raise RuntimeError("user")
    assert {name: torchs(name).__code__ for name in IN_PYTHON} == before
    assert not any(key.startswith("_unmask") for name in IN_PYTHON for key in torchs(name).__globals__)


def test_nothing_to_go_through():
    with as_python():
        assert torchs("scan")(lambda c, v: (c, v), torch.ones(2), ()) == (pytest.approx(torch.ones(2)), [])
