"""An activation is found however it is spelled, once, at the end of what bends the layer's output."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.classifier import Classifier
from unmask.defenses import SAP, TestTimeDropout
from unmask.defenses.activations import ActivationsChanged
from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.zoo import ResNet20


def by_assignment(h):
    h = h.clone()
    h[h < 0] = 0
    return h


def in_place_and_forgotten(h):
    h.clamp_(min=0)
    return h


SPELLINGS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "relu_": lambda h: h.relu_(),
    "returned value unused": in_place_and_forgotten,
    "clamp": lambda h: h.clamp(min=0),
    "clamp_min": lambda h: torch.clamp_min(h, 0),
    "out=": lambda h: torch.clamp(h, min=0, out=torch.empty(0)),
    "maximum": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "max of two": lambda h: torch.max(h, torch.zeros(())),
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "product with a mask": lambda h: h * (h > 0),
    "assignment": by_assignment,
    "masked_fill": lambda h: h.masked_fill(h < 0, 0),
    "half the sum with its size": lambda h: (h + h.abs()) / 2,
    "F.threshold": lambda h: F.threshold(h, 0.0, 0.0),
    "relu, then a ceiling": lambda h: h.relu().clamp(max=6),
    "a floor by subtraction": lambda h: 1 - (1 - h).clamp(max=1),
    "aten": lambda h: torch.ops.aten.relu(h),
    "F.softsign": F.softsign,
    "softsign": lambda h: h / (1 + h.abs()),
    "softplus": lambda h: torch.log(1 + torch.exp(h)),
    "swish": lambda h: h * torch.sigmoid(h),
    "tanh": lambda h: (h.exp() - (-h).exp()) / (h.exp() + (-h).exp()),
    "gelu": lambda h: 0.5 * h * (1 + torch.erf(h / 2**0.5)),
    "logistic": lambda h: 1 / (1 + (-h).exp()),
    "special.expit": torch.special.expit,
    "square": lambda h: h**2,
    "product with itself": lambda h: h * h,
    "sine": torch.sin,
    "nn.PReLU": nn.PReLU(),
    "compiled": torch.compile(lambda h: h.clamp(min=0), backend="eager"),
}


class Network(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 36, 10)
        self.activation = activation

    def forward(self, x):
        h = self.activation(self.norm(self.first(x)))
        h = self.activation(self.second(h) + h)
        return self.last(h.flatten(1))


class Halved(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, h):
        self.seen.append(h.detach().clone())
        return h / 2


@pytest.mark.parametrize("name", SPELLINGS)
@torch.no_grad()
def test_every_spelling_is_changed_once_a_layer_in_the_values_of_the_last_operation(name):
    activation, change = SPELLINGS[name], Halved()
    network = Network(activation).eval()
    changed = ActivationsChanged(network, change)
    x = torch.rand(3, 1, 6, 6)
    made = changed(x)
    first = activation(network.norm(network.first(x)))
    second = activation(network.second(first / 2) + first / 2)
    assert [h.shape for h in change.seen] == [first.shape, second.shape]
    torch.testing.assert_close(change.seen[0], first)
    torch.testing.assert_close(made, network.last((second / 2).flatten(1)))
    changed(torch.rand(5, 1, 6, 6))
    assert len(change.seen) == 4


def test_a_residual_network_has_one_after_each_sum():
    change = Halved()
    ActivationsChanged(ResNet20(), change)(torch.rand(2, 3, 32, 32))
    shapes = [tuple(h.shape) for h in change.seen]
    assert len(shapes) == 19  # the first, and two in each of nine blocks
    assert shapes[0] == (2, 16, 32, 32)
    assert shapes[-1] == (2, 64, 8, 8)


def test_weights_that_are_bent_and_masks_that_are_counted_are_no_activations():
    class Reparametrised(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(10, 36))

        def forward(self, x):
            h = F.linear(x.flatten(1), F.softplus(self.weight))
            assert (h > 0).sum() >= 0
            return F.log_softmax(h.relu(), dim=1)

    change = Halved()
    ActivationsChanged(Reparametrised(), change)(torch.rand(2, 1, 6, 6))
    assert [tuple(h.shape) for h in change.seen] == [(2, 10)]


def test_code_that_the_first_pass_did_not_go_through_is_looked_up_later():
    class Branching(nn.Module):
        def forward(self, x):
            h = x.flatten(1)[:, :10] @ torch.eye(10)
            return (h.clamp(min=0) if x.sum() > 0 else (-h).clamp(min=0.25)) @ torch.eye(10)

    change = Halved()
    changed = ActivationsChanged(Branching(), change)
    changed(torch.ones(2, 1, 6, 6))
    made = changed(-torch.ones(2, 1, 6, 6))
    assert torch.equal(made, torch.full((2, 10), 0.5))


def test_looking_draws_no_random_numbers():
    class Noisy(nn.Module):
        def forward(self, x):
            return (x + torch.randn_like(x)).flatten(1)[:, :10].clamp(min=0) @ torch.eye(10)

    x, network = torch.rand(2, 1, 6, 6), Noisy()
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        plain = network(x)
        torch.manual_seed(1)
        changed = ActivationsChanged(network, Halved())(x)
    torch.testing.assert_close(changed, plain / 2)


class ByModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 10)

    def forward(self, x):
        return self.second(self.act(self.first(x.flatten(1))))


class ByFunctions(ByModules):
    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))))


IN_ORDER = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 10))


@pytest.mark.parametrize(
    "network", [ByModules(), ByFunctions(), IN_ORDER], ids=["modules", "functions", "sequential"]
)
def test_a_traced_pass_is_made_once_and_names_the_line_that_draws(network):
    """Every activation was new to a traced pass, which was made twice, and the line of that was named."""
    classifier = TestTimeDropout(rate=0.3, passes=1).wrap(Classifier(network.eval()))
    x, y = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    streams = Streams.seeded(0, torch.arange(8))
    found = analyse(classifier, x, y, Linf(epsilon=0.1), seed=0, generator=streams).suspects
    assert [(s.operation, Path(s.site.file).name) for s in found] == [("torch.dropout", "dropping.py")]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("defence", [SAP(passes=1), TestTimeDropout(passes=1)])
def test_a_network_without_activations_or_with_scripted_ones_is_refused(defence):
    x, draws = torch.rand(2, 1, 6, 6), torch.Generator().manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(36, 10)).eval()
    with pytest.raises(UnusableInput, match="no activation"):
        defence.wrap(Classifier(linear)).predict(x, generator=draws)

    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.body: nn.Module = torch.jit.trace(  # pyright: ignore
                nn.Sequential(nn.Flatten(), nn.Linear(36, 9), nn.ReLU()), x
            )
            self.last = nn.Linear(9, 10)

        def forward(self, x):
            return self.last(self.body(x)).relu()

    with pytest.raises(UnusableInput, match="'body' of the network is scripted"):
        defence.wrap(Classifier(Partly().eval())).predict(x, generator=draws)


@pytest.mark.parametrize("name", ["clamp", "maximum", "softsign", "where", "assignment", "compiled"])
def test_sap_prunes_what_it_did_not_see(name):
    """Nine of fourteen spellings were left as they were, and the defence was none."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Network(SPELLINGS[name]).eval()
        classifier = SAP(ratio=0.2, passes=1).wrap(Classifier(network, deterministic=True))
        x, draws = torch.rand(2, 1, 6, 6), torch.Generator().manual_seed(0)
        once, twice = (classifier.predict(x, generator=draws).logits for _ in range(2))
    assert not torch.allclose(once, twice, atol=1e-3)
