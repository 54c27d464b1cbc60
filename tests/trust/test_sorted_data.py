"""What an audit asks of a few examples, it asks of every class, in whatever order they come."""

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn

import unmask
from unmask.data import load
from unmask.data.sample import mixed

DIGITS = load("digits")
SORTED = DIGITS.y.sort(stable=True).indices
ORDERS = {
    "by class": SORTED,
    "backwards": SORTED.flip(0),
    "two halves": torch.cat([SORTED[::2], SORTED[1::2]]),
    "in runs of five": SORTED.view(-1, 5)[
        torch.randperm(100, generator=torch.Generator().manual_seed(1))
    ].flatten(),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_first_examples_are_of_all_classes(order):
    y = DIGITS.y[order]
    taken = mixed(y)
    assert taken.sort().values.equal(torch.arange(500))
    assert len(y[taken[:32]].unique()) >= 9


def test_what_comes_mixed_is_taken_as_it_comes():
    assert mixed(DIGITS.y).equal(torch.arange(500))
    assert mixed(torch.zeros(50, dtype=torch.int64)).equal(torch.arange(50))  # one class has no order


class Late(nn.Module):
    """Stairs in front of an arg max for the later classes alone: the first, of sorted data, have an honest gradient."""

    def __init__(self):
        super().__init__()
        self.net = trained("plain_cnn")

    def forward(self, x):
        plain = self.net(x)
        return torch.where(plain.argmax(1, keepdim=True) >= 5, (plain * 2).round() * 40, plain)


def test_a_network_that_masks_for_later_classes_is_seen_in_sorted_data():
    rows = torch.cat([(DIGITS.y == c).nonzero()[:8, 0] for c in range(10)])
    x, y = DIGITS.x[rows], DIGITS.y[rows]
    report = unmask.audit(Late().eval(), x, y, norm="linf", epsilon=0.15, budget="quick")
    assert any("round" in (finding.code or "") for finding in report.masking)
    assert report.robust_accuracy < report.naive_robust_accuracy - 0.1
    assert report.table is not None
    assert report.table.index == list(range(80))
    assert report.table.label == y.tolist()
