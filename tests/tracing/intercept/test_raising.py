"""A network that raises is one that returns a score: against the same network, written so."""

import pytest
import torch
from torch import nn

from unmask import Classifier, Outputs, Raising, UnmaskError
from unmask.errors import ModelFailed


class Rejected(Exception):
    pass


torch.manual_seed(0)
NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
X = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))
LIMIT = 0.5


def error(x):
    return x.flatten(1).mean(1)


def plain(x):
    if error(x) > LIMIT:
        raise Rejected
    return NETWORK(x)


def any_of_a_batch(x):
    if (error(x) >= LIMIT).any():
        raise Rejected("a batch")
    return NETWORK(x)


def after_the_logits(x):
    logits = NETWORK(x)
    if not bool((error(x) < LIMIT).all()):
        raise Rejected
    return logits


def by_a_number(x):
    if error(x).item() > LIMIT:
        raise Rejected
    return NETWORK(x)


def the_other_way_round(x):
    fine = error(x) <= LIMIT
    if not fine:
        raise Rejected
    return NETWORK(x)


def by_its_truth(x):
    if torch.logical_not(error(x) <= LIMIT).squeeze(0).item():
        raise Rejected
    return NETWORK(x)


def other_questions_first(x):
    if x.sum() < 0 or NETWORK[1].weight.sum().item() > 1e9:
        raise ValueError
    if x.max() > 1:
        x = x / x.max()
    return plain(x)


WAYS = [
    plain,
    any_of_a_batch,
    after_the_logits,
    by_a_number,
    the_other_way_round,
    by_its_truth,
    other_questions_first,
]


@pytest.mark.parametrize("way", WAYS)
def test_logits_score_and_gradient_are_those_of_the_network_that_returns_them(way):
    x = X.clone().requires_grad_()
    outputs = Raising(way, Rejected)(x)
    truth = error(X) - LIMIT
    assert 2 < int((truth > 0).sum()) < 10
    torch.testing.assert_close(outputs.logits, NETWORK(X))
    torch.testing.assert_close(outputs.detector_score, truth)
    (grad,) = torch.autograd.grad(outputs.detector_score.sum(), x)
    torch.testing.assert_close(grad, torch.full_like(X, 1 / 16))


def test_two_detectors_reject_where_either_does():
    def both(x):
        if error(x) > LIMIT:
            raise Rejected
        if (x[:, 0, 0, 0] > 0.7) | (x[:, 0, 0, 1] > 0.9):
            raise Rejected
        return NETWORK(x)

    outputs = Raising(both, Rejected)(X)
    second = torch.maximum(X[:, 0, 0, 0] - 0.7, X[:, 0, 0, 1] - 0.9)
    torch.testing.assert_close(outputs.detector_score, torch.maximum(error(X) - LIMIT, second))


def test_zero_rejects_where_the_network_says_so():
    x = torch.full((1, 1, 4, 4), 0.5)
    assert Raising(any_of_a_batch, Rejected)(x).detector_score > 0
    assert Raising(plain, Rejected)(x).detector_score <= 0


def test_who_never_raises_never_rejects():
    outputs = Raising(NETWORK, Rejected)(X)
    assert outputs.detector_score.tolist() == [-1] * len(X)
    torch.testing.assert_close(outputs.logits, NETWORK(X))


def test_the_same_draws_behind_the_question_as_before_it():
    """A random detector that draws twice is asked for one and the same draw, however often it runs."""

    def random(x):
        noise = torch.randn(1)
        if error(x) + noise > LIMIT:
            raise Rejected
        return NETWORK(x) + noise

    network = Classifier(Raising(random, Rejected))
    outputs = network(X, generator=torch.Generator().manual_seed(0))
    noise = outputs.detector_score - (error(X) - LIMIT)
    torch.testing.assert_close(outputs.logits, NETWORK(X) + noise[:, None])
    assert len(noise.unique()) == len(X)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    Raising(plain, Rejected)(X)
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_followed_is_one_line():
    def by_a_copy(x):
        if x.mean().numpy() > LIMIT:
            raise Rejected
        return NETWORK(x)

    with pytest.raises(
        UnmaskError, match=r"raised Rejected.*return unmask\.Outputs\(logits, score\) instead"
    ):
        Raising(by_a_copy, Rejected)(X)
    with pytest.raises(UnmaskError, match="raised Rejected"):
        Raising(lambda x: (_ for _ in ()).throw(Rejected()), Rejected)(X)


def test_another_exception_is_a_failure():
    with pytest.raises(ModelFailed, match="ZeroDivisionError"):
        Classifier(Raising(lambda x: 1 / 0, Rejected))(X, generator=torch.Generator())


def test_outputs_are_what_the_classifier_takes():
    assert isinstance(Raising(plain, Rejected)(X), Outputs)
