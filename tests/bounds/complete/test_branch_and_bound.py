"""Branch and bound against the mixed-integer program, brute force, and its own answers at neighbouring radii."""

import pytest
import torch
from tests.bounds.networks import planar_networks, random_network

from unmask.bounds import decide, exact_radius
from unmask.errors import Unsupported
from unmask.threat import L2, Linf


def images(count, seed=0):
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def answers(network, x, y, radius):
    found = decide(network, x, y, Linf(epsilon=1.0), radius=radius)
    for i, verdict in enumerate(found):
        assert (verdict.x_adv is not None) == (verdict.answer == "unsafe")
        if verdict.x_adv is not None:
            point = verdict.x_adv[None]
            assert Linf(epsilon=1.0).distance(point, x[i : i + 1]) <= radius[i] * (1 + 1e-9)
            logits = network.double()(point)[0]
            network.float()
            assert logits.index_fill(0, y[i : i + 1], -torch.inf).max() >= logits[y[i]] - 1e-9
            assert point.min() >= 0
            assert point.max() <= 1
    return [verdict.answer for verdict in found]


@pytest.mark.parametrize(
    ("kind", "gain", "seeds"),
    [("mlp_relu", 1.5, (1, 2)), ("residual_relu", 1.0, (1,))],
)
def test_agrees_with_the_mixed_integer_program(kind, gain, seeds):
    solved = 0
    for seed in seeds:
        network = random_network(kind, seed, gain)
        x = images(3, seed)
        y = network(x).argmax(1)
        exact = exact_radius(network, x, y, Linf(epsilon=0.25))
        known = torch.tensor([e.radius for e in exact], dtype=torch.float64)
        some = known.isfinite()
        solved += int(some.sum())
        assert answers(network, x[some], y[some], known[some] * 0.997) == ["safe"] * int(some.sum())
        assert answers(network, x[some], y[some], known[some] * 1.002) == ["unsafe"] * int(some.sum())
    assert solved >= 1


def test_brute_force_in_two_dimensions():
    tried = 0
    for network, x, y, wrong in planar_networks():
        if not len(wrong):
            continue
        tried += 1
        brute = (wrong - x).abs().flatten(1).amax(1).min()
        assert answers(network, x, y, brute[None] + 1e-6) == ["unsafe"]
        assert answers(network, x, y, brute[None] - 0.005) == ["safe"]
    assert tried >= 4


@pytest.mark.parametrize("together", [3, pytest.param(256, marks=pytest.mark.slow)])
def test_where_every_sign_is_fixed_a_linear_program_decides(monkeypatch, together):
    """Without ascent the relaxations decide little, so that the tree is walked down to its leaves.

    Taking three branches at a time leaves others on the stack, none of which may be lost.
    """
    from unmask.bounds.complete import branch_and_bound, branch_bounds

    monkeypatch.setattr(branch_bounds, "_STEPS", 0)
    monkeypatch.setattr(branch_and_bound, "_TOGETHER", together)
    network = random_network("mlp_relu", 4, gain=1.5)
    x = images(2, 4)
    y = network(x).argmax(1)
    known = torch.tensor([e.radius for e in exact_radius(network, x, y, Linf(epsilon=0.25))]).double()
    assert known.isfinite().any()
    x, y, known = (v[known.isfinite()] for v in (x, y, known))
    assert answers(network, x, y, known * 0.997) == ["safe"] * len(x)
    assert answers(network, x, y, known * 1.002) == ["unsafe"] * len(x)


def test_what_it_refuses_and_when_it_gives_up():
    network = random_network("mlp_relu", 4)
    x = images(1)
    y = network(x).argmax(1)
    with pytest.raises(Unsupported, match="linf, untargeted"):
        decide(network, x, y, L2(epsilon=1.0))
    with pytest.raises(Unsupported, match="ReLU only"):
        decide(random_network("mlp_tanh", 4), x, y, Linf(epsilon=0.1))
    hard = random_network("cnn_relu_avg", 0, gain=1.0)
    found = decide(hard, x, hard(x).argmax(1), Linf(epsilon=0.45), time_limit=0.0)[0]
    assert (found.answer, found.x_adv) == ("open", None)
