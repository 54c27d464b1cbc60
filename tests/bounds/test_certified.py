"""Certificates: exact where a closed form exists, and never above what a point of the region shows."""

import copy

import pytest
import torch
from tests.bounds.networks import BUILDERS, random_network
from torch import nn

from unmask.attacks import PGD
from unmask.bounds import certified_radius, certify, certify_box
from unmask.bounds.relaxation.graph import read_graph
from unmask.classifier import Classifier
from unmask.errors import Unsupported, UnusableInput
from unmask.judge import fooled
from unmask.objectives import margin_loss
from unmask.threat import L1, L2, Linf

ALL = ("interval", "crown", "alpha_crown")


def images(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def linear() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).requires_grad_(False)


def margins_at(network, x, y):
    logits = network(x).double()
    return logits.gather(1, y[:, None]) - logits


def assert_sound(network, x, y, threat, certificate, seed):
    """No sampled or attacked point lies below the bound, and nothing certified is fooled."""
    generator = torch.Generator().manual_seed(seed)
    classifier = Classifier(network, deterministic=True)
    attack = PGD(steps=8, rel_step_size=0.3, objective=margin_loss, early_stop=False)
    points = [threat.random_start(x, generator=generator) for _ in range(8)]
    points.append(attack.run(classifier, x, y, threat, generator=generator))
    for point in points:
        found = margins_at(network, point, y)
        assert (certificate.margins.masked_fill(certificate.margins.isinf(), 0) <= found + 1e-4).all()
        assert not (fooled(classifier(point, generator=generator), y, threat) & certificate.certified).any()


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_never_certifies_what_a_point_refutes(kind, threat):
    certified = 0
    for seed in range(1):
        network = random_network(kind, seed)
        x = images(8, seed)
        y = network(x).argmax(1)
        for scale in (0.005, 0.1):
            model = threat(epsilon=scale * {"linf": 1, "l2": 4, "l1": 16}[threat.norm])
            found = certify(network, x, y, model, methods=ALL)
            certified += int(found.certified.sum())
            assert_sound(network, x, y, model, found, seed)
    assert certified > 1  # a bound of minus infinity would be sound too


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDERS)
def test_thousands_of_networks(kind):
    for seed in range(1000, 1400):
        network = random_network(kind, seed, gain=1.0 + seed % 4)
        x = images(4, seed)
        y = network(x).argmax(1)
        model = (Linf, L2, L1)[seed % 3](epsilon=(0.01, 0.05, 0.2)[seed // 3 % 3])
        assert_sound(network, x, y, model, certify(network, x, y, model, methods=ALL), seed)


@pytest.mark.parametrize(("threat", "dual"), [(Linf, 1.0), (L2, 2.0), (L1, torch.inf)])
@pytest.mark.parametrize("method", ["crown", "alpha_crown"])
def test_exact_on_a_linear_model(threat, dual, method):
    network = linear()
    x = 0.4 + 0.2 * images(5, 0)
    y = network(x).argmax(1)
    epsilon = 0.05
    got = certify(network, x, y, threat(epsilon=epsilon), methods=(method,)).margins
    weight = network[1].weight.double()
    slope = torch.linalg.vector_norm(weight[y][:, None] - weight, dual, dim=2)
    expected = margins_at(network.double(), x.double(), y) - epsilon * slope
    others = got.isfinite()
    torch.testing.assert_close(got[others], expected[others], rtol=1e-6, atol=1e-6)


def test_interval_is_exact_on_a_linear_model_with_its_box():
    network = linear().double()
    x = images(3, 1).double()
    y = network(x).argmax(1)
    got = certify(network, x, y, Linf(epsilon=0.3), methods=("interval",)).margins
    weight = network[1].weight
    rows = (weight[y][:, None] - weight).reshape(3, 3, 2, 6, 6)
    lower, upper = (x - 0.3).clamp_min(0)[:, None], (x + 0.3).clamp_max(1)[:, None]
    bias = network[1].bias[y][:, None] - network[1].bias
    expected = (torch.where(rows > 0, lower, upper) * rows).flatten(2).sum(2) + bias
    others = got.isfinite()
    torch.testing.assert_close(got[others], expected[others], rtol=1e-6, atol=1e-6)


def test_one_relu_by_hand():
    """Logits (2, max(z, 0)) with z = x - 0.5 on [0, 1]: the margin is at least 1.5, and CROWN finds that."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).requires_grad_(False)
    network[1].weight.copy_(torch.tensor([[1.0]]))
    network[1].bias.copy_(torch.tensor([-0.5]))
    network[3].weight.copy_(torch.tensor([[0.0], [1.0]]))
    network[3].bias.copy_(torch.tensor([2.0, 0.0]))
    x = torch.full((1, 1, 1, 1), 0.5)
    for method in ALL:
        found = certify(network, x, torch.tensor([0]), Linf(epsilon=0.5), methods=(method,))
        assert found.margin.item() == pytest.approx(1.5, abs=1e-6)
        assert found.method == (method,)


@pytest.mark.parametrize("kind", BUILDERS)
def test_tight_as_epsilon_shrinks(kind):
    network = random_network(kind, 3)
    x = images(4, 3)
    y = network(x).argmax(1)
    found = certify(network, x, y, Linf(epsilon=1e-6), methods=("crown",))
    expected = margins_at(network, x, y)
    others = found.margins.isfinite()
    torch.testing.assert_close(found.margins[others], expected[others], rtol=1e-3, atol=2e-3)


def test_better_methods_are_better():
    network = random_network("mlp_relu", 0)
    x = images(16, 0)
    y = network(x).argmax(1)
    by_method = [certify(network, x, y, Linf(epsilon=0.1), methods=(m,)).margins for m in ALL]
    others = by_method[0].isfinite()
    interval, crown, alpha = (m[others] for m in by_method)
    assert (alpha >= crown - 1e-9).all()
    assert (alpha > crown + 1e-3).any()
    assert crown.mean() > interval.mean()


def test_targeted_certificate():
    network = random_network("mlp_relu", 5)
    x = images(16, 5)
    logits = network(x)
    targets = logits.argmin(1)
    threat = Linf(epsilon=0.01, goal="targeted")
    found = certify(network, x, targets, threat)
    assert found.certified.any()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        point = threat.random_start(x, generator=generator)
        assert not ((network(point).argmax(1) == targets) & found.certified).any()
    assert not certify(network, x, logits.argmax(1), threat).certified.any()


@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_radius_of_a_linear_model(threat):
    network = linear()
    x = 0.4 + 0.2 * images(5, 0)
    y = network(x).argmax(1)
    weight = network[1].weight.double()
    slope = torch.linalg.vector_norm(weight[y][:, None] - weight, threat.dual_p, dim=2)
    ratio = margins_at(network.double(), x.double(), y) / slope
    exact = ratio.masked_fill(ratio.isnan(), torch.inf).amin(1)
    network.float()
    got = certified_radius(network, x, y, threat(epsilon=float(exact.median())), halvings=14)
    torch.testing.assert_close(got, exact.clamp_max(exact.median()), rtol=1e-3, atol=0.0)


def test_a_wrong_prediction_has_radius_zero_and_no_certificate():
    network = random_network("mlp_relu", 0)
    x = images(4, 0)
    wrong = network(x).argmin(1)
    assert not certify(network, x, wrong, Linf(epsilon=0.0)).certified.any()
    assert (certified_radius(network, x, wrong, Linf(epsilon=0.1), halvings=3) == 0).all()


def test_batch_does_not_matter():
    network = random_network("cnn_relu_max", 1)
    x = images(9, 1)
    y = network(x).argmax(1)
    whole = certify(network, x, y, Linf(epsilon=0.02), methods=("crown",)).margins
    single = torch.cat(
        [
            certify(network, x[i : i + 1], y[i : i + 1], Linf(epsilon=0.02), methods=("crown",)).margins
            for i in range(9)
        ]
    )
    torch.testing.assert_close(whole, single)


def test_the_network_is_left_alone():
    network = random_network("residual_relu", 0)
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(Unsupported, match="eval"):
        certify(network, images(2, 0), torch.zeros(2, dtype=torch.long), Linf(epsilon=0.1))
    assert network.training
    assert all((v == before[k]).all() for k, v in network.state_dict().items())


class Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Noisy(nn.Module):
    def forward(self, x):
        return x.flatten(1) + torch.rand(1)


class Product(nn.Module):
    def forward(self, x):
        return (x * x).flatten(1)


class Copying(nn.Module):
    def forward(self, x):
        return copy.deepcopy(x.detach()).flatten(1)  # of a proxy, the copy takes the whole trace along


class Centered(nn.Module):
    def forward(self, x):
        return (x - x.mean(0, keepdim=True)).flatten(1)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), "Softmax"),
        (nn.Sequential(nn.Flatten(), nn.Dropout()), r"network\.eval"),
        (Branching(), "takes numbers out of its tensors"),
        (Noisy(), "reproduce"),
        (Product(), "product"),
        (Copying(), "tracing it raised"),
        (Centered(), "batch"),
        (lambda x: x, "nn.Module"),
        (nn.Identity(), "logits"),
    ],
)
def test_unsupported_in_one_line(network, reason):
    with pytest.raises(Unsupported, match=reason) as caught:
        certify(network, images(2, 0), torch.zeros(2, dtype=torch.long), Linf(epsilon=0.1))
    assert "\n" not in str(caught.value)


def test_unknown_method():
    with pytest.raises(UnusableInput, match="'magic'"):
        certify(
            random_network("mlp_relu", 0),
            images(1, 0),
            torch.tensor([0]),
            Linf(epsilon=0.1),
            methods=("magic",),
        )


def test_empty_batch_and_boxes():
    network = random_network("mlp_relu", 0)
    x = images(3, 0)
    y = network(x).argmax(1)
    ball = certify(network, x, y, Linf(epsilon=0.1)).margins
    box = certify_box(network, (x.double() - 0.1).clamp_min(0), (x.double() + 0.1).clamp_max(1), y).margins
    torch.testing.assert_close(ball, box)


def test_graph_reproduces_the_network():
    for kind in BUILDERS:
        network = random_network(kind, 7)
        x = images(5, 7)
        torch.testing.assert_close(read_graph(network, x)(x), network.double()(x.double()))
