"""What is recorded is what runs: the same logits, draws, weights and buffers, whatever the forward pass does."""

import pytest
import torch
from tests.tracing.idioms import DRAWN, HONEST, SEEN, Network, energy, spare
from tests.tracing.named import named
from tests.tracing.networks import linear
from tests.tracing.test_analyse import images, suspects
from torch import nn

from unmask.classifier import Classifier, seeded
from unmask.tracing.intercept.draws import generator_states
from unmask.tracing.record.fidelity import checked, plain_pass
from unmask.tracing.record.keeping import Recording
from unmask.tracing.record.passes import record
from unmask.tracing.squashing import soft_max_at_the_end

BUILDERS = {
    **{name: lambda step=step: Network(step) for name, (step, *_) in SEEN.items()},
    **HONEST,
    **{name: spare(step) for name, (step, _) in DRAWN.items()},
}


def lines_with(text):
    with open(Network.__init__.__code__.co_filename) as file:
        # The table quotes the text; what is meant is the code.
        found = [n for n, line in enumerate(file, 1) if line.count(text) > line.count(f'"{text}')]
    assert found, text
    return found


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", BUILDERS)
def test_the_recorded_pass_is_the_plain_one(name):
    torch.manual_seed(1)
    plain, traced = BUILDERS[name](), BUILDERS[name]()
    traced.load_state_dict(plain.state_dict())
    x = images()
    with seeded(3, x.device), torch.enable_grad():
        logits = plain(x.clone().requires_grad_())
        drawn = generator_states()
    trace = record(Classifier(traced), x, seed=3)
    assert torch.equal(trace.logits, logits)
    assert torch.equal(trace.states[0], drawn[0])
    after = traced.state_dict()
    assert all(
        torch.equal(value.to_dense(), after[key].to_dense()) for key, value in plain.state_dict().items()
    )
    assert trace.x.grad is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", HONEST)
def test_ordinary_code_is_not_accused(name):
    analysis = suspects(HONEST[name]())
    assert analysis.warning == ""
    assert not analysis.suspects, [(s.symptom.name, s.operation, str(s.site)) for s in analysis.suspects]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SEEN)
def test_the_cut_is_named_at_its_line(name):
    step, symptoms, text = SEEN[name]
    analysis = suspects(Network(step))
    assert analysis.warning == ""
    named = [s for s in analysis.suspects if s.symptom.name in symptoms]
    assert any(s.site.line in lines_with(text) for s in named), [
        (s.symptom.name, s.operation, s.site.line) for s in analysis.suspects
    ]


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawn_weight_is_random_at_its_line(name):
    step, text = DRAWN[name]
    analysis = suspects(spare(step)())
    assert analysis.warning == ""
    assert not analysis.deterministic
    assert any(s.site.line in lines_with(text) for s in analysis.where(*named("random"))), [
        (s.symptom.name, s.operation, s.site.line) for s in analysis.suspects
    ]


class Watched(nn.Module):
    """Rounds, and asks from where it is called: another function while somebody watches."""

    def __init__(self, harm):
        super().__init__()
        self.last = linear()
        self.harm = harm

    def forward(self, x):
        watched = type(self).__call__ is not CALL
        return self.last(torch.round(x.flatten(1) * 4) / 4 + (self.harm(x) if watched else 0))


CALL = nn.Module.__call__


def raise_an_error(x):
    raise ValueError("somebody is watching")


@pytest.mark.parametrize("harm", [lambda x: 0.5, lambda x: torch.rand(()), raise_an_error])
def test_what_cannot_be_recorded_is_said_and_nobody_is_accused(harm):
    analysis = suspects(Watched(harm))
    assert not analysis.suspects
    assert "no operation of the network could be examined" in analysis.warning


def test_a_soft_max_behind_code_that_cannot_be_recorded_has_no_place():
    assert soft_max_at_the_end(Classifier(Watched(raise_an_error)), images()) is None


class OnlyAsWritten(nn.Module):
    """An operation that counts how often it is called, behind a cut: it must not be run a second time."""

    def __init__(self):
        super().__init__()
        self.last = linear()

    def forward(self, x):
        calls = []

        class Counting(torch.autograd.Function):
            @staticmethod
            def forward(ctx, z):
                calls.append(1)
                return z * 2

            @staticmethod
            def backward(ctx, grad):
                return 2 * grad

        y = Counting.apply(torch.round(x.flatten(1) * 4).detach() / 4)
        return self.last(y) * len(calls)


def test_cuts_stay_cuts_where_a_pass_without_them_is_another_one():
    analysis = suspects(OnlyAsWritten())
    assert "could not look behind" in analysis.warning
    assert analysis.where(*named("cut", "zero"))


def test_a_difference_is_told_in_words():
    network = Network(lambda net, x: x)
    classifier, x = Classifier(network), images()
    plain = plain_pass(classifier, x, seed=0)
    assert checked(Recording(classifier), x, plain)[1] == ""
    with torch.no_grad():
        network.last.weight.mul_(2)
    # The plain pass has changed, too: nothing is recorded otherwise than it runs.
    assert checked(Recording(classifier), x, plain)[1] == ""


def test_weights_overwritten_in_each_pass_keep_the_graph_of_earlier_ones():
    network = spare(DRAWN["weights drawn by copy_"][0])()
    classifier, x = Classifier(network), images()
    written = plain_pass(classifier, x, seed=0).memory
    trace = record(classifier, x, seed=0, written=written)
    (alone,) = torch.autograd.grad(trace.logits.sum(), trace.x, retain_graph=True)
    record(classifier, x, seed=1, written=written)
    (later,) = torch.autograd.grad(trace.logits.sum(), trace.x)
    assert torch.equal(alone, later)


def test_energy_has_a_gradient():
    z = torch.rand(2, 16, requires_grad=True)
    energy(z).backward()
    assert z.grad is not None
