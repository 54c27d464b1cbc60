"""Which custom functions are suspects for the backward that they declare: those the logits pass through, each once."""

import torch
from tests.tracing.networks import Wrapped, linear
from torch import nn

from unmask.classifier import Classifier
from unmask.threat import Linf
from unmask.tracing.analyse import analyse


class Through(torch.autograd.Function):
    """Rounds, and declares that it does nothing."""

    @staticmethod
    def forward(ctx, x):
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx, grad):
        return grad


class Fixed(torch.autograd.Function):
    """The same whatever it is given."""

    @staticmethod
    def forward(ctx, x):
        return torch.ones_like(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


def declared(network):
    x = 0.4 + 0.2 * torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    found = analyse(Classifier(network), x, y, Linf(epsilon=0.1), seed=0, generator=generator)
    return [s for s in found.suspects if s.symptom.name == "declared"], found


def test_one_function_on_the_way_is_one_suspect_at_its_line():
    (one,), found = declared(Wrapped(lambda x: Through.apply(x) + Through.apply(1 - x)))
    assert one.operation.startswith("Through")
    assert one.site.file == __file__
    assert one.kind == "function"
    (record,) = one.records
    assert record.group == one.group
    assert record.name == "Through"
    assert found.suspects.count(one) == 1


def test_functions_at_two_lines_are_two_suspects():
    def both(x):
        x = Through.apply(x)
        return Through.apply(1 - x)

    found, _ = declared(Wrapped(both))
    assert len({s.site.line for s in found}) == len(found) == 2


def test_a_function_of_parameters_alone_is_none():
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(linear().weight.clone())

        def forward(self, x):
            return x.flatten(1) @ Through.apply(self.weight).T

    assert declared(Quantised().eval())[0] == []


def test_a_function_whose_result_never_changes_is_none():
    assert declared(Wrapped(lambda x: x * Fixed.apply(x)))[0] == []


def test_a_function_that_is_named_for_something_else_already_is_not_named_again():
    class Dead(Through):
        @staticmethod
        def backward(ctx, grad):
            return torch.zeros_like(grad)

    def both(x):
        x = Dead.apply(x)
        return Through.apply(1 - x)

    (one,), found = declared(Wrapped(both))
    assert "Through" in one.operation
    assert len(found.suspects) == 2
