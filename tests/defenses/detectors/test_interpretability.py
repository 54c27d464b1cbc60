"""Detectors that explain the prediction: maps of linear networks are known, and so are witnesses that were planted."""

import numpy as np
import pytest
import torch
from torch import nn

from unmask.attacks import PGD, JointPGD
from unmask.classifier import Classifier
from unmask.defenses.detectors import AttributeSteering, AttributionMap, Detection, suspicion
from unmask.defenses.detectors.attribute_steering import quarters
from unmask.defenses.detectors.attribution import ATTRIBUTIONS, leave_one_out
from unmask.errors import UnusableInput
from unmask.judge import judge
from unmask.threat import Linf


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_the_map_of_a_linear_network_is_weight_times_pixel(name):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, labels = torch.rand(5, 1, 4, 4, generator=rng()), torch.tensor([0, 1, 2, 1, 0])
    found = ATTRIBUTIONS[name](network, x, labels)
    torch.testing.assert_close(found, network[1].weight[labels] * x.flatten(1))


def test_a_pixel_leaves_with_all_its_channels():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x, labels = torch.rand(3, 3, 2, 2, generator=rng()), torch.tensor([0, 1, 1])
    each = (network[1].weight[labels] * x.flatten(1)).unflatten(1, (3, 4)).sum(1)
    torch.testing.assert_close(leave_one_out(network, x, labels), each)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_the_distance_is_mahalanobis_to_the_predicted_class(name):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).requires_grad_(False)
    x = torch.rand(300, 1, 3, 3, generator=rng())
    labels = network(x).argmax(1)
    assert 0 < int(labels.sum()) < 300
    maps = (network[1].weight[labels] * x.flatten(1)).double().numpy()
    means = np.stack([maps[labels == c].mean(0) for c in (0, 1)])
    around = maps - means[labels]
    covariance = around.T @ around / 300
    covariance += 1e-3 * np.diag(covariance).mean() * np.eye(9)
    expected = np.einsum("bi,ij,bj->b", around, np.linalg.inv(covariance), around)
    got = AttributionMap(network, x, attribution=name)(x)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_asked_with_and_without_a_gradient_it_says_the_same(name, small):
    detector = AttributionMap(small.network, small.x, attribution=name)
    x = small.test_x[:5]
    with torch.no_grad():
        plain = detector(x)
    with torch.inference_mode():
        torch.testing.assert_close(detector(x), plain)
    with_graph = detector(x.clone().requires_grad_())
    assert with_graph.requires_grad
    torch.testing.assert_close(with_graph.detach(), plain)


def test_maps_are_refused(small):
    with pytest.raises(UnusableInput, match="'saliency'; choose one of leave one out, gradient"):
        AttributionMap(small.network, small.x, attribution="saliency")
    some = small.x[small.network(small.x).argmax(1) > 0]
    with pytest.raises(UnusableInput, match=f"none of {len(some)} images is predicted to be of class 0"):
        AttributionMap(small.network, some)


def test_quarters_cover_an_image_once():
    for height, width in ((8, 8), (5, 7)):
        masks = quarters(torch.zeros(1, 3, height, width))
        assert masks.shape == (4, 1, height, width)
        assert torch.equal(masks.sum(0), torch.ones(1, height, width, dtype=torch.long))


class Planted(nn.Module):
    """Of the hidden neurons, 0 sees the first quarter alone, 1 to 5 sum up everything."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 6, bias=False), nn.Linear(6, 2, bias=False)
        with torch.no_grad():
            self.first.weight.fill_(0.1)
            self.first.weight[0] = quarters(torch.zeros(1, 1, 4, 4))[0].flatten().float()
            self.second.weight.copy_(torch.tensor([[2.0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]]))

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))))


def test_a_planted_witness_is_found_and_strengthened():
    network, x = Planted(), torch.rand(60, 1, 4, 4, generator=rng())
    detector = AttributeSteering(network, x, attributes=quarters(x)[:1], weakening=3.0, strengthening=2.0)
    (witnesses,) = detector.witnesses
    assert witnesses.tolist() == [True, False, False, False, False, False]
    hidden = torch.relu(network.first(x[:4].flatten(1))).detach()
    spread = 1e-6  # of one witness
    expected = hidden.numpy().copy()
    for row in expected:
        own = row[0]
        row[0] *= 1.15 + 1 - np.exp(-(own - own) / (2.0 * spread))
        for n in range(1, 6):
            row[n] *= np.exp(-max(row[n] - own, 0) / (3.0 * spread))
    np.testing.assert_allclose(detector.steered(hidden, witnesses).numpy(), expected, rtol=1e-4)
    logits = torch.from_numpy(expected).float() @ network.second.weight.T
    predicted = network(x[:4]).argmax(1)
    lead = logits.gather(1, 1 - predicted[:, None])[:, 0] - logits.gather(1, predicted[:, None])[:, 0]
    torch.testing.assert_close(detector(x[:4]), lead.detach(), rtol=1e-4, atol=1e-4)


def test_steering_by_the_papers_formulas():
    """Two witnesses of three neurons, with numbers."""
    detector = AttributeSteering(
        Planted(), torch.rand(60, 1, 4, 4, generator=rng()), weakening=3.0, strengthening=2.0
    )
    steered = detector.steered(torch.tensor([[1.0, 5.0, 6.0]]), torch.tensor([True, True, False]))
    mean, spread, least = 3.0, 2.0, 1.0
    expected = [
        1.15,
        5 * (1.15 + 1 - np.exp(-(5 - least) / (2 * spread))),
        6 * np.exp(-(6 - mean) / (3 * spread)),
    ]
    np.testing.assert_allclose(steered.numpy(), [expected], rtol=1e-4)


def test_steering_is_refused():
    network, x = Planted(), torch.rand(60, 1, 4, 4, generator=rng())
    with pytest.raises(UnusableInput, match=r"weakening is 0\.0 and strengthening 4\.0"):
        AttributeSteering(network, x, weakening=0.0)
    with pytest.raises(UnusableInput, match="no neuron in front of 'second' sees an attribute"):
        AttributeSteering(network, x, attributes=torch.zeros(1, 1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_maps_tell_plain_pgd_and_no_adversary_who_knows_them(name, small):
    threat, plain = Linf(epsilon=0.2), Classifier(small.network, deterministic=True)
    x, y = small.test_x[:30], small.test_y[:30]
    detector = AttributionMap(small.network, small.x, attribution=name)
    defence = Detection.at(0.05, detector, small.held_out, generator=rng())
    naive = PGD(steps=20, early_stop=False).run(plain, x, y, threat, generator=rng())
    caught = suspicion(detector, naive, generator=rng()) > defence.threshold
    assert caught.float().mean() > 0.6
    guarded = defence.wrap(plain)
    x_adv = JointPGD(rule="orthogonal", steps=40).run(guarded, x, y, threat, generator=rng())
    assert judge(guarded, x_adv, x, y, threat, generator=rng()).failure_rate.mean() > 0.9
