"""The door to the network: counted, seeded, side by side with nobody's state."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.errors import ModelFailed, UnmaskError
from unmask.randomness import Streams
from unmask.types import Outputs


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_passes_are_counted_in_examples():
    classifier = Classifier(nn.Linear(3, 2))
    x = torch.rand(5, 3, requires_grad=True)
    before = classifier.meter.snapshot()
    outputs = classifier(x, generator=rng())
    classifier.gradient(outputs.logits.sum(1), x)
    spent = classifier.meter.since(before)
    assert (spent.forwards, spent.backwards, spent.judge_forwards) == (5, 5, 0)


def test_a_replaced_classifier_shares_the_meter():
    classifier = Classifier(nn.Linear(3, 2))
    classifier.with_surrogate(nn.Linear(3, 2))(torch.rand(4, 3), generator=rng())
    assert classifier.meter.forwards == 4


def test_gradient_is_per_example_and_leaves_no_grad():
    network = nn.Linear(3, 2)
    x = torch.rand(4, 3, requires_grad=True)
    classifier = Classifier(network)
    grad = classifier.gradient(classifier(x, generator=rng()).logits[:, 1], x)
    torch.testing.assert_close(grad, network.weight[1].detach().expand(4, 3))
    assert x.grad is None
    assert network.weight.grad is None


def test_gradient_is_zero_where_the_input_is_not_reached():
    classifier = Classifier(nn.Linear(3, 2))
    x = torch.rand(4, 3, requires_grad=True)
    for network in (lambda x: nn.Linear(3, 2)(x.detach()), lambda x: torch.zeros(len(x), 2)):
        values = classifier.replace(network=network)(x, generator=rng()).logits.sum(1)
        assert not classifier.gradient(values, x).any()


def test_foreign_randomness_follows_the_generator_and_leaves_no_trace():
    def network(x):
        noise = random.random() + np.random.rand() + torch.rand(())
        return x + noise.to(x.dtype)

    classifier, x = Classifier(network), torch.zeros(2, 3)
    state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    generator = rng()
    first, second = (classifier(x, generator=generator).logits for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(classifier(x, generator=rng()).logits, first)
    streams = (Streams.seeded(0, torch.arange(2)) for _ in range(2))
    assert len({classifier(x, generator=s).logits.sum().item() for s in streams}) == 1
    assert random.getstate() == state[0]
    assert (np.random.get_state()[1] == state[1]).all()
    assert torch.equal(torch.get_rng_state(), state[2])


def test_a_prediction_is_the_mean_over_the_passes():
    calls = []

    def network(x):
        calls.append(len(x))
        return Outputs(torch.full((len(x), 2), float(len(calls))), torch.full((len(x),), 2.0 * len(calls)))

    outputs = Classifier(network, passes=3).predict(torch.rand(2, 1), generator=rng())
    assert outputs.logits.tolist() == [[2.0, 2.0]] * 2
    assert outputs.detector_score is not None
    assert outputs.detector_score.tolist() == [4.0, 4.0]


def test_a_network_that_writes_into_its_input_is_given_a_copy():
    x = torch.rand(2, 3)
    kept = x.clone()
    Classifier(lambda x: x.mul_(2))(x, generator=rng())
    assert torch.equal(x, kept)


def test_an_exception_becomes_one_line_with_a_way_out():
    with pytest.raises(ModelFailed, match=r"RuntimeError.*\[2, 5\].*traceback") as caught:
        Classifier(nn.Linear(3, 2))(torch.rand(2, 5), generator=rng())
    assert "\n" not in str(caught.value)


def test_anything_but_logits_is_refused():
    with pytest.raises(ModelFailed, match=r"dict.*Outputs"):
        Classifier(lambda x: {"scores": x})(torch.rand(2, 5), generator=rng())  # type: ignore[arg-type]


def test_logits_by_name_from_numpy_and_in_sixteen_bits():
    x = torch.rand(2, 5)
    for network in (lambda x: {"logits": x}, lambda x: SimpleNamespace(logits=x), lambda x: x.numpy()):
        assert torch.equal(Classifier(network)(x, generator=rng()).logits, x)  # type: ignore[arg-type]
    outputs = Classifier(lambda x: {"logits": x, "detector_score": x[:, 0]})(x, generator=rng())  # type: ignore[arg-type]
    assert torch.equal(outputs.detector_score, x[:, 0])
    assert Classifier(lambda x: x.half())(x, generator=rng()).logits.dtype == torch.float32


def test_an_impossible_class_gets_a_finite_logit():
    logits = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])
    found = Classifier(lambda x: logits)(torch.rand(2, 5), generator=rng()).logits
    assert torch.isfinite(found[0]).all()
    assert torch.isneginf(found[1]).all()


def test_probabilities_are_averaged_before_the_log():
    draws = iter(torch.tensor([[[0.9, 0.1]], [[0.0, 1.0]]]))
    classifier = Classifier(lambda x: next(draws), passes=2, probabilities=True)
    found = classifier.predict(torch.rand(1, 5), generator=rng()).logits
    assert torch.allclose(found.exp(), torch.tensor([[0.45, 0.55]]))


def test_out_of_memory_passes_through():
    def network(x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(torch.OutOfMemoryError):
        Classifier(network)(torch.rand(2, 5), generator=rng())


def test_no_passes_are_no_classifier():
    with pytest.raises(UnmaskError, match="passes is 0"):
        Classifier(nn.Linear(1, 1), passes=0)
