"""The mean of logits and the mean of probabilities: two classifiers made of the same passes."""

import os

import pytest
import torch

from unmask.classifier import Classifier
from unmask.defenses import SAP, CropEnsemble, InputNoise, TotalVariation
from unmask.defenses.names import parse
from unmask.errors import UnmaskError, UnusableInput
from unmask.gradients import EOT
from unmask.objectives import cross_entropy
from unmask.randomness import Streams


def sure_or_doubtful(x):
    """Class 0 by 30 in two passes of ten, else class 1 by 2: the mean logits say 0, the mean probabilities 1."""
    logits = torch.zeros(len(x), 2)
    sure = torch.rand(len(x)) < 0.2
    logits[:, 0], logits[:, 1] = 30.0 * sure, 2.0 * ~sure
    return logits + 0 * x.sum((1, 2, 3))[:, None]


def probabilities(x):
    return sure_or_doubtful(x).softmax(1)


X = torch.rand(16, 1, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(16, dtype=torch.long)


def predicted(classifier):
    return classifier.predict(X, generator=Streams.seeded(0, torch.arange(16))).logits


@pytest.mark.parametrize(
    ("network", "returned"), [(sure_or_doubtful, "logits"), (probabilities, "probabilities")]
)
def test_the_mean_is_of_what_was_said_whatever_the_network_returns(network, returned):
    classes = {"logits": 0, "probabilities": 1}
    for average in (None, "logits", "probabilities"):
        classifier = Classifier(
            network, passes=100, average=average, probabilities=returned == "probabilities"
        )
        assert (predicted(classifier).argmax(1) == classes[average or returned]).all(), average


def test_it_is_the_mean_by_hand():
    passes = Classifier(sure_or_doubtful, passes=1)
    streams = Streams.seeded(0, torch.arange(16))
    each = torch.stack([passes.predict(X, generator=streams).logits for _ in range(7)])
    expected = {"logits": each.mean(0), "probabilities": each.softmax(2).mean(0).log()}
    for average, logits in expected.items():
        classifier = Classifier(sure_or_doubtful, passes=7, average=average)
        torch.testing.assert_close(predicted(classifier), logits)


def test_one_pass_is_no_mean():
    logits = predicted(Classifier(sure_or_doubtful, average="probabilities"))
    assert torch.equal(logits, predicted(Classifier(sure_or_doubtful)))


def test_a_probability_of_zero_in_every_pass_is_finite():
    classifier = Classifier(lambda x: torch.tensor([[500.0, 0.0]]).expand(len(x), 2), passes=2)
    logits = predicted(classifier.replace(average="probabilities"))
    assert torch.isfinite(logits).all()
    assert (logits.argmax(1) == 0).all()


def test_gradients_over_several_draws_see_the_mean_that_is_judged():
    for average, winner in (("logits", 0), ("probabilities", 1)):
        classifier = Classifier(sure_or_doubtful, passes=100, average=average)
        est = EOT(draws=100).estimate(
            classifier, cross_entropy, X, Y, generator=Streams.seeded(0, torch.arange(16))
        )
        assert (est.outputs.logits.argmax(1) == winner).all()


@pytest.mark.parametrize(
    "defense", [SAP, InputNoise, CropEnsemble, lambda **k: TotalVariation(drop=0.5, **k)]
)
def test_every_random_defence_hands_it_on(defense):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2), torch.nn.ReLU())
    plain = Classifier(network, deterministic=True)
    assert defense(average="probabilities").wrap(plain).averaged == "probabilities"
    assert defense().wrap(plain).averaged == "logits"
    assert defense().wrap(plain.replace(average="probabilities")).averaged == "probabilities"


def test_a_defence_by_name_takes_it():
    assert parse('sap(average="probabilities")') == SAP(average="probabilities")
    with pytest.raises(UnusableInput, match="average of sap is 3"):
        parse("sap(average=3)")


@pytest.mark.skipif("UNMASK_SHAPES" in os.environ, reason="the checker of signatures refuses it first")
def test_a_mean_of_something_else_is_refused():
    with pytest.raises(UnmaskError, match="average is 'votes'; choose one of logits, probabilities"):
        Classifier(sure_or_doubtful, average="votes")
    with pytest.raises(UnmaskError, match="average is 'votes'"):
        SAP(average="votes").wrap(Classifier(torch.nn.ReLU()))
