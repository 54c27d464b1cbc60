"""The deployed prediction as a stranger asks for it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unmask.audit.verifying.deployed import deployed, module_of
from unmask.errors import ModelFailed
from unmask.types import Outputs

X = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))


def asked(network, x=X, *, passes=1, batch_size=2, **options):
    return deployed(network, passes=passes, batch_size=batch_size, device="cpu", **options)(x)


def test_logits_in_their_order_by_batches():
    sizes = []

    def network(x):
        sizes.append(len(x))
        return x * 2

    logits, answered = asked(network)
    assert torch.equal(logits, X * 2)
    assert answered.tolist() == [True] * 5
    assert sizes == [2, 2, 1]
    logits, answered = asked(network, X[:0])
    assert (logits.shape, answered.shape, answered.dtype) == ((0, 1), (0,), torch.bool)
    assert sizes == [2, 2, 1]  # about no image it is not asked: `view(len(x), -1)` would raise


def test_a_network_that_writes_into_its_input_writes_into_a_copy():
    before = X.clone()
    asked(lambda x: x.mul_(0))
    assert torch.equal(X, before)


def count(values):
    """A network whose every call adds the next of these to its logits; one batch."""
    left = iter(values)
    return lambda x: torch.zeros(len(x), 2) + next(left)


def test_as_many_passes_as_are_claimed_are_added_up():
    given = torch.tensor([[1.0, 0.0], [0.0, 4.0], [2.0, 2.0]])
    logits, _ = asked(count(given), passes=3, batch_size=5)
    assert torch.equal(logits, given.sum(0).expand(5, 2))


@pytest.mark.parametrize("passes", [1, 2])
def test_what_is_averaged(passes):
    given = torch.tensor([[2.0, 0.0], [0.0, 1.0]])[:passes]

    def told(average, values=given):
        return asked(count(values), passes=passes, batch_size=5, average=average)[0][0]

    assert torch.equal(told(None), given.sum(0))
    expected = given.softmax(1).sum(0) if passes > 1 else given[0]  # of one pass nothing is averaged
    torch.testing.assert_close(told("probabilities"), expected)
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0]])[:passes]
    logs = shares.clamp_min(1e-35).log().sum(0) if passes > 1 else shares[0]
    torch.testing.assert_close(told("logits", shares), logs)


@pytest.mark.parametrize("passes", [1, 3])
def test_a_score_above_zero_rejects(passes):
    scores = torch.tensor([-1.0, 0.0, 1e-6, 5.0, -5.0])
    network = lambda x: Outputs(x, scores[: len(x)] if len(x) == 5 else scores)  # noqa: E731
    assert asked(network, passes=passes, batch_size=5)[1].tolist() == [True, True, False, False, True]


def test_scores_are_added_over_the_passes():
    scores = iter([torch.tensor([1.0, -3.0]), torch.tensor([-2.0, 4.0])])
    network = lambda x: Outputs(x, next(scores))  # noqa: E731
    assert asked(network, X[:2], passes=2)[1].tolist() == [True, False]


def test_what_is_no_number_is_no_answer_and_minus_infinity_beside_one_is():
    inf = math.inf
    rows = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [inf, 1.0], [-inf, 1.0], [-inf, -inf]])
    assert asked(lambda x: rows, batch_size=5)[1].tolist() == [True, False, False, True, False]


def test_state_that_is_named_is_put_back_before_every_pass():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            return x + self.seen

    assert torch.equal(asked(Counts(), passes=2, state=["seen"])[0], 2 * (X + 1))
    assert not torch.equal(asked(Counts(), passes=2)[0], 2 * (X + 1))


def test_what_a_record_calls_its_network_is_asked_and_a_module_itself():
    inner = nn.Linear(3, 2)
    assert module_of(SimpleNamespace(network=inner)) is inner
    outer = nn.Sequential(inner)
    outer.network = nn.Identity()
    assert module_of(outer) is outer
    assert module_of(torch.sin) is torch.sin


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: "logits", "something else than logits"),
        (lambda x: x[0], "something else than logits"),
        (lambda x: x[:-1], "something else than logits"),
        (lambda x: x[:, :, None], "something else than logits"),
        (lambda x: Outputs(x, torch.zeros(len(x) + 1)), r"scores of shape \[6\]"),
        (lambda x: 1 / 0, r"the network raised ZeroDivisionError.*make it run by itself first"),
    ],
)
def test_what_is_no_answer_at_all_is_one_line(answer, says):
    with pytest.raises(ModelFailed, match=says) as caught:
        asked(answer, batch_size=5)
    assert "\n" not in str(caught.value)


def test_who_stops_it_stops_it():
    def stop(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(stop)
