"""Examples without a slope: a dead zone of known width around every value, and a step of a table."""

import pytest
import torch

from unmask.bounds.flat import by_search, by_walks
from unmask.bounds.found import Found
from unmask.classifier import Classifier
from unmask.gradients import Exact
from unmask.randomness import Streams
from unmask.threat import threat_model

DEAD = 0.03


def dead_zone(x):
    """Class 1 where eight features have a mean above 0.55; what is within `DEAD` of a multiple of 1/4 is put there."""
    grid = (4 * x).round() / 4
    z = torch.where((x - grid).abs() < DEAD, grid, x).flatten(1).mean(1) - 0.55
    return torch.stack([-z, z], 1)


def found(network, x, norm="linf"):
    y = network(x).argmax(1)
    threat, streams = threat_model(norm, 0.1), Streams.seeded(0, torch.arange(len(x)))
    box = threat_model(norm, threat.widest(x.shape[1:]))
    return Found(Classifier(network, deterministic=True), x, y, box, streams), threat


@pytest.fixture
def zone():
    """Four examples on the grid, two of either class."""
    x = torch.full((4, 1, 2, 4), 0.5)
    x[2:] = 0.75
    return found(dead_zone, x)


EVERYONE = torch.ones(4, dtype=torch.bool)


def test_searches_come_near_to_what_a_dead_zone_hides(zone):
    some, threat = zone
    by_search(some, EVERYONE, threat, queries=300)
    # From 1/2 to 0.55; from 3/4 down to 0.55. Nothing nearer is wrong.
    nearest = torch.tensor([0.05, 0.05, 0.2, 0.2]).double()
    assert (some.distance >= nearest - 1e-3).all()
    assert (some.distance <= 1.4 * nearest).all()


def test_walks_begin_at_the_other_images(zone):
    some, threat = zone
    by_walks(some, EVERYONE, threat, [Exact()], steps=20)
    assert (some.distance[:2] <= 0.09).all()
    assert some.distance.isfinite().all()


def test_only_the_flat_ones_are_searched(zone):
    some, threat = zone
    by_search(some, torch.tensor([True, False, False, True]), threat, queries=100)
    assert some.distance.isfinite().tolist() == [True, False, False, True]


def test_vectors_are_searched_feature_by_feature():
    """Only a band inside one feature's range is wrong: random search sits on the edge of the ball and jumps over it."""

    def band(x):
        z = ((x[:, 0] - 0.55).abs() < 0.01).double() - 0.5
        return torch.stack([-z, z], 1)

    some, threat = found(band, torch.full((4, 3), 0.5))
    by_search(some, EVERYONE, threat, queries=200)
    assert some.distance.tolist() == pytest.approx([0.04] * 4, abs=1e-3)


def test_a_search_that_knows_no_such_shape_is_left_out():
    some, threat = found(lambda x: dead_zone(x), torch.full((4, 1, 1, 1, 1, 2), 0.5))
    by_search(some, EVERYONE, threat, queries=50)
    assert some.distance.isinf().all()
