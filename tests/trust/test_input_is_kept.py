"""Whatever a network does to the tensor that it is handed, the caller's tensors, points and answers stay the same."""

import warnings

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn

from unmask.attacks import APGD, FAB, PGD, MomentumPGD, Square
from unmask.audit.context import subject_of
from unmask.audit.run import audit
from unmask.bounds import certify
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.diagnostics import preflight
from unmask.gradients import (
    BPDA,
    EOT,
    Exact,
    FiniteDifference,
    Float64,
    LogitScale,
    ReducedGain,
    Smoothing,
)
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.types import Outputs

THREAT = Linf(epsilon=0.1)


def fill(x: torch.Tensor) -> torch.Tensor:
    return x.fill_(0.25)


with warnings.catch_warnings():  # torch.jit is deprecated, and people's networks use it
    warnings.simplefilter("ignore", DeprecationWarning)
    scripted_fill = torch.jit.script(fill)


def levels(x):
    with torch.no_grad():
        x.mul_(16).round_().div_(16)  # the pixels of clean digits are such levels: they do not move


def by_data(x):
    x.data.add_(0.5)


def by_a_view(x):
    x.detach().flatten(1)[:, ::2] = 1.0


def by_numpy(x):
    x.detach().numpy()[...] = 0


def by_script(x):
    with torch.no_grad():
        scripted_fill(x)


def by_storage(x):
    x.untyped_storage().fill_(0)


def by_another_storage(x):
    x.data.set_(torch.ones_like(x))


def by_size(x):
    x.data.resize_(1).fill_(3.0)


def by_out(x):
    with torch.no_grad():
        torch.add(x, 1.0, out=x.data)


def by_exchange(x):
    x.data = torch.zeros_like(x)


def by_the_graph(x):
    """Up the graph to the leaf that the caller differentiates."""
    for node, _ in x.grad_fn.next_functions if x.grad_fn is not None else ():
        node.variable.data.zero_()


def by_a_hook(x):
    if x.requires_grad:
        x.register_hook(lambda grad: x.data.zero_())


WRITERS = (
    levels,
    by_data,
    by_a_view,
    by_numpy,
    by_script,
    by_storage,
    by_another_storage,
    by_size,
    by_out,
    by_exchange,
    by_the_graph,
    by_a_hook,
)


class Writes(nn.Module):
    """Answers as the network inside it does, then writes into what it is handed, and was handed before."""

    def __init__(self, *writers):
        super().__init__()
        self.inside, self.writers, self.kept = trained("plain_cnn"), writers, []

    def forward(self, x):
        logits = self.inside(x.clone())
        for earlier in self.kept:
            earlier.data.zero_()
        self.kept = [x, logits]
        for write in self.writers:
            write(x)
        return logits.clone()


class Levels(nn.Module):
    """Sixteen grey levels, in place or not: one function of clean digits and of all others."""

    def __init__(self, in_place):
        super().__init__()
        self.inside, self.in_place = trained("plain_cnn"), in_place

    def forward(self, x):
        if self.in_place:
            levels(x)
            return self.inside(x)
        with torch.no_grad():
            x = (x * 16).round() / 16
        return self.inside(x)


def digits_of(n):
    data = load("digits", examples=n)
    return data.x, data.y


@pytest.fixture
def digits():
    return digits_of(12)


def streams(x, tag="trust"):
    return Streams.seeded(0, torch.arange(len(x)), tag)


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
@pytest.mark.parametrize("way", ["predict", "forward", "gradient"])
def test_no_way_of_writing_reaches_the_caller(write, way, digits):
    x, y = digits
    before = x.clone()
    classifier = Classifier(Writes(write))
    expected = trained("plain_cnn")(before).detach()
    for _ in range(2):
        if way == "predict":
            outputs = classifier.predict(x, generator=streams(x))
        elif way == "forward":
            outputs = classifier(x, generator=streams(x))
        else:
            outputs = Exact().estimate(classifier, margin_loss, x, y, generator=streams(x)).outputs
        assert torch.equal(x, before)
        torch.testing.assert_close(outputs.logits.detach(), expected)


ESTIMATORS = (
    Exact(),
    BPDA(surrogate=trained("plain_cnn")),
    EOT(draws=2),
    FiniteDifference(samples=4),
    Float64(),
    LogitScale(),
    ReducedGain(gain=0.5),
    Smoothing(draws=2),
)
ATTACKS = (PGD(steps=3), APGD(steps=4), Square(queries=5), FAB(steps=3), MomentumPGD(steps=3))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_estimators_neither_lose_their_point_nor_their_answer(estimator, digits):
    x, y = digits
    before = x.clone()
    found = [
        estimator.estimate(Classifier(network), margin_loss, x, y, generator=streams(x))
        for network in (trained("plain_cnn"), Writes(by_data, by_the_graph))
    ]
    assert torch.equal(x, before)
    torch.testing.assert_close(found[0].value, found[1].value)
    torch.testing.assert_close(found[0].outputs.logits, found[1].outputs.logits)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_attacks_find_the_same_points(attack, digits):
    x, y = digits
    before = x.clone()
    honest, writes = (
        attack.run(Classifier(network, deterministic=True), x, y, THREAT, generator=streams(x))
        for network in (trained("plain_cnn"), Writes(by_data, by_numpy))
    )
    assert torch.equal(x, before)
    torch.testing.assert_close(honest, writes)


def test_preflight_tracer_and_bounds_give_copies(digits):
    x, y = digits
    before = x.clone()
    classifier = Classifier(Writes(by_data, by_storage))
    preflight(classifier, x, y, generator=streams(x))
    analyse(classifier, x, y, THREAT, seed=0, generator=streams(x))
    in_place = nn.Sequential(nn.ReLU(inplace=True), trained("plain_cnn")).eval()
    proved = [
        certify(n, x, y, THREAT).margin for n in (in_place, nn.Sequential(nn.ReLU(), in_place[1]).eval())
    ]
    assert torch.equal(x, before)
    torch.testing.assert_close(*proved)


@pytest.mark.parametrize(
    "first", [nn.ReLU(inplace=True), nn.Hardtanh(0, 1, inplace=True), nn.Threshold(0.1, 0, True)]
)
def test_a_layer_in_place_may_be_the_first(first, digits):
    x, y = digits
    in_place = Classifier(nn.Sequential(first, trained("plain_cnn")).eval())
    apart = Classifier(lambda x: in_place.network[1](first(x.clone())))
    one, other = (Exact().estimate(c, margin_loss, x, y, generator=streams(x)) for c in (in_place, apart))
    assert one.grad.any()
    assert torch.equal(one.grad, other.grad)


def test_a_network_may_read_the_gradient_of_its_input(digits):
    """A step of its own along `x.grad`: with and without autograd around it."""
    x, y = digits
    inside = trained("plain_cnn")

    def network(x):
        with torch.enable_grad():
            x.requires_grad_(True)
            inside(x).logsumexp(1).sum().backward()
            return inside((x + 0.1 * x.grad.sign()).detach())

    with torch.no_grad():
        alone = Classifier(network)(x, generator=streams(x)).logits
    est = Exact().estimate(Classifier(network), margin_loss, x, y, generator=streams(x))
    torch.testing.assert_close(est.outputs.logits, alone)
    inside.zero_grad()


class ReturnsItsBuffer(nn.Module):
    """One tensor for all answers: torch's own way to save memory, and a way to change what was said before."""

    def __init__(self, how):
        super().__init__()
        self.inside, self.how, self.held = trained("plain_cnn"), how, torch.zeros(12, 10)

    def forward(self, x):
        logits = self.inside(x)
        if self.how == "buffer":
            self.held = self.held.detach()
            self.held[: len(x)] = logits
            return self.held[: len(x)]
        if self.how == "later":
            self.held.data.fill_(7.0)
        self.held = logits
        return Outputs(logits, logits[:, 0]) if self.how == "score" else logits


@pytest.mark.parametrize("how", ["buffer", "later", "score"])
def test_answers_that_are_kept_stay_what_they_were(how, digits):
    x, _ = digits
    classifier = Classifier(ReturnsItsBuffer(how))
    first = classifier.predict(x, generator=streams(x))
    kept = first.logits.clone()
    classifier.predict(x.flip(0) * 0.5, generator=streams(x))
    classifier.network.held.data.zero_()
    assert torch.equal(first.logits, kept)
    torch.testing.assert_close(kept, trained("plain_cnn")(x).detach())
    if how == "score":
        assert torch.equal(first.detector_score, kept[:, 0])


def test_a_network_that_holds_the_callers_tensor_cannot_change_the_audited_images(digits):
    x, y = digits
    data = Data(x, y, "digits", "test", torch.arange(len(x)))
    subject = subject_of(lambda x: x.flatten(1)[:, :10], data, claim_about(THREAT, budget="quick"))
    audited = subject.x.clone(), subject.y.clone()
    x.fill_(0.5), y.zero_()
    assert torch.equal(subject.x, audited[0])
    assert torch.equal(subject.y, audited[1])


@pytest.mark.slow
def test_levels_in_place_are_as_robust_as_out_of_place():
    data = Data(*digits_of(12), "digits", "test", torch.arange(12))
    in_place, apart = (
        audit(Levels(how).eval(), data, claim_about(THREAT, budget="quick")) for how in (True, False)
    )
    assert in_place.clean_accuracy == apart.clean_accuracy
    assert abs(in_place.robust_accuracy - apart.robust_accuracy) <= 1 / 12
