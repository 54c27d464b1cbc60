import pytest
import torch
from torch import nn

from unmask.attacks import APGD, PGD, Attack
from unmask.classifier import Classifier
from unmask.diagnostics import Planted, RandomPoints
from unmask.diagnostics.readout import Inside, ReadOut, Replanted, last_linear, separate
from unmask.gradients import EOT
from unmask.objectives import dlr, margin_loss
from unmask.randomness import Streams
from unmask.threat import L1, L2, Linf
from unmask.types import Outputs

from .conftest import Noisy, Quantised, Scaled


class Wrapped:
    """A network behind a plain callable: no module to be found."""

    def __init__(self, base: nn.Module):
        self.base = base

    def __call__(self, x):
        return self.base(x)


class Convolutional(nn.Module):
    """No linear layer at all: a convolution and an average make the logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 3))

    def forward(self, x):
        return 10 * self.body(x).mean((2, 3))


@pytest.mark.parametrize(
    "threat", [Linf(epsilon=0.1), Linf(epsilon=0.03), L2(epsilon=0.5)], ids=lambda t: f"{t.norm}-{t.epsilon}"
)
def test_a_sound_attack_finds_what_was_planted(threat, honest, examine):
    reading = examine(Planted(), honest, threat=threat)
    assert reading.passed, reading
    assert reading.decisive
    assert reading.statistics["planted"] >= 10 or reading.statistics["attack_success"] == 1
    assert reading.statistics["random_success"] <= 0.5


@pytest.mark.parametrize("attack", [APGD(steps=20), PGD(objective=dlr), PGD(objective=margin_loss, steps=20)])
def test_any_attack_can_be_put_to_the_test(attack, base, examine):
    assert examine(Planted(attack=attack, examples=8), base).passed


@pytest.mark.parametrize("defence", [Quantised, Scaled])
def test_a_masked_gradient_misses_it(defence, base, examine):
    reading = examine(Planted(), defence(base))
    assert reading.passed is False
    assert reading.value < 0.2
    assert "certainly there" in reading.explanation


def test_the_right_objective_finds_it_behind_saturated_logits(base, examine):
    assert examine(Planted(attack=PGD(objective=margin_loss, steps=20)), Scaled(base)).passed


def test_random_guessing_does_not_pass(base, examine):
    reading = examine(Planted(attack=RandomPoints(tries=20)), base)
    assert not reading.passed
    assert reading.value < 0.3


def test_an_attack_that_does_nothing_scores_zero_or_less(base, examine):
    class Nothing(Attack):
        def run(self, classifier, x, y, threat, *, generator):
            return x.clone()

    assert examine(Planted(attack=Nothing()), base).value <= 0


def test_expectation_over_noise_finds_it_in_a_random_network(base, examine):
    attack = PGD(steps=20, early_stop=False, gradient=EOT(draws=8))
    reading = examine(Planted(attack=attack, examples=8), Noisy(base, 0.05), deterministic=False)
    assert reading.passed, reading


@pytest.mark.parametrize("hidden", [Convolutional()], ids=["convolutional"])
def test_networks_without_a_last_linear_layer_are_read_at_their_logits(hidden, examine):
    reading = examine(Planted(), hidden)
    assert reading.statistics["planted"] > 0
    assert reading.passed in (True, None)


def test_a_callable_that_is_no_module_is_read_at_its_logits(base, digits, streams, threat):
    classifier = Classifier(Wrapped(base), deterministic=True)
    reading = Planted().examine(classifier, *digits, threat, generator=streams)
    assert reading.statistics["planted"] > 0
    assert reading.value is None or reading.value > 0.5


def test_epsilon_zero_and_constant_networks_say_nothing(base, examine):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.arange(10.0).expand(len(x), 10) + 0 * x.sum()

    for network, threat in (
        (base, Linf(epsilon=0.0)),
        (Constant(), Linf(epsilon=0.1)),
        (Constant(), L1(epsilon=1.0)),
    ):
        reading = examine(Planted(examples=2), network, threat=threat)
        assert reading.passed is None
        assert reading.statistics["planted"] == 0


def test_a_detector_is_left_out(base, examine):
    class RejectsEverything(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = base

        def forward(self, x):
            return Outputs(self.base(x), torch.ones(len(x)))

    assert examine(Planted(examples=8), RejectsEverything()).passed


def test_the_last_linear_layer_is_the_one_that_runs_last(digits):
    class OutOfOrder(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(20, 10)
            self.body = nn.Linear(64, 20)

        def forward(self, x):
            return torch.log_softmax(self.read(self.body(x.flatten(1)).relu()), 1)

    network = OutOfOrder()
    x, streams = digits[0][:3], Streams.seeded(0, torch.arange(3))
    classifier = Classifier(network)
    assert last_linear(classifier, x, generator=streams) is network.read
    assert last_linear(Classifier(network.body.forward), x.flatten(1), generator=streams) is None
    inside = Inside(network, network.read)(x)
    hidden = network.body(x.flatten(1)).relu()
    assert torch.allclose(inside, torch.cat([hidden, network.read(hidden)], 1))

    readout = ReadOut(torch.ones(20), torch.zeros(20), 1.0, 2.0, 10)
    expected = torch.log_softmax(readout(hidden), 1)
    assert torch.allclose(Replanted(network, network.read, readout)(x), expected)


def test_a_layer_that_runs_twice_is_averaged(digits):
    read = nn.Linear(64, 10)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = read

        def forward(self, x):
            return (self.read(x.flatten(1)) + self.read(x.flip(3).flatten(1))) / 2

    x = digits[0][:3]
    inside = Inside(Twice(), read)(x)
    assert torch.allclose(inside[:, :64], (x + x.flip(3)).flatten(1) / 2)


def test_separation_agrees_with_the_inverse_covariance():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    point = torch.randn(5, generator=generator, dtype=torch.float64)
    spread = cloud - cloud.mean(0)
    ridge = 1e-3 * spread.square().mean()
    covariance = spread.T @ spread / 50 + ridge * torch.eye(5, dtype=torch.float64)
    expected = torch.linalg.inv(covariance) @ (point - cloud.mean(0))
    assert torch.allclose(separate(cloud, point), expected)
