"""What is written down of a place beside its symptom: where it is, what was measured there, and on which operations."""

import pytest
import torch
from tests.tracing.networks import Wrapped, linear

from unmask.classifier import Classifier
from unmask.threat import Linf
from unmask.tracing.analyse import analyse

N = 20


def images():
    return 0.4 + 0.2 * torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def dark(some=5):
    x = images()
    x[:some] = 0.1
    return x


def bright(some=8):
    x = torch.full((N, 1, 4, 4), 0.01)
    x[:some] = 0.9
    return x


def the_one(step, x, name, epsilon=0.01, kind="torch"):
    network = Wrapped(step)
    with torch.no_grad():
        y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    found = analyse(Classifier(network), x, y, Linf(epsilon=epsilon), seed=0, generator=generator)
    (one,) = [s for s in found.suspects if s.symptom.name == name]
    assert one.group[:2] == (one.records[0].name, one.site.file)
    assert one.kind == kind
    return one


def test_where_the_gradient_dies():
    one = the_one(lambda x: torch.relu(x - 0.3), dark(), "vanished")
    assert (one.operation, one.site.file, one.share) == ("torch.relu", __file__, 1.0)
    assert one.statistics == {"killed": 0.25, "spoiled": 0.0, "attenuation": 1.0}
    assert [r.name for r in one.records] == ["relu"]


def test_where_it_becomes_infinite():
    one = the_one(lambda x: (x - x.clamp(0.45, 1)).abs().sqrt(), images(), "non_finite")
    assert (one.operation, one.site.file, one.share) == ("torch.sqrt", __file__, 1.0)
    assert one.statistics["spoiled"] == 1.0
    assert [r.name for r in one.records] == ["sqrt"]


def test_a_softmax_that_is_saturated_by_the_logits():
    one = the_one(lambda x: 300 * x, bright(), "underflow", epsilon=1e-4)
    largest = 300 * linear()(bright().flatten(1)).abs().max()
    assert one.operation == "torch.linear"
    assert one.site.module == "read_out"
    assert one.statistics["dead_at_logits"] == pytest.approx(0.4)
    assert one.statistics["largest_logit"] == pytest.approx(float(largest), rel=1e-5)
    assert [r.name for r in one.records] == ["linear"]


def test_a_line_that_runs_twice_is_one_place_with_two_operations():
    def halves(x):
        return torch.cat([torch.relu(half - 0.3) for half in x.chunk(2, 1)], 1)

    one = the_one(halves, dark(), "vanished")
    assert [r.name for r in one.records] == ["relu", "relu"]
    assert one.statistics["killed"] == 0.25


def test_how_far_a_slope_points_from_what_happens():
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return -grad

    one = the_one(lambda x: Backwards.apply(x), images(), "wrong", epsilon=0.1, kind="function")
    assert one.site.file == __file__
    assert one.statistics["cosine"] == pytest.approx(-1)
    assert [r.name for r in one.records] == ["Backwards"]


def test_how_much_of_a_change_a_saturated_slope_denies():
    one = the_one(lambda x: torch.tanh(1e3 * (x - 0.45)), images(), "saturated", epsilon=0.1)
    assert (one.operation, one.site.file) == ("torch.tanh", __file__)
    assert one.statistics["cosine"] < 0.5
    assert [r.name for r in one.records] == ["tanh"]


def test_the_line_that_decided_stands_beside_the_one_where_it_takes_effect():
    def late(x):
        high = x > 0.5
        level = 2.0
        return torch.where(high, level, 1.0)

    one = the_one(late, images(), "effect")
    assert one.operation == "torch.where"
    assert one.statistics["decided_at_line"] == one.site.line - 2
