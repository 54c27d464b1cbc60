"""The walk from an image of another class: where it starts, and what it finds that an ascent in the ball does not."""

import pytest
import torch
from torch import nn

from unmask.attacks import APGD, BoundaryWalk, Others, Setting
from unmask.attacks.batch import Batch
from unmask.classifier import Classifier
from unmask.judge import fooled
from unmask.objectives import Undetected, margin_loss
from unmask.randomness import Streams
from unmask.threat import L1, L2, Linf


class Threshold(nn.Module):
    """Class 1 where a pixel is above 0.4, as Linf training at 0.3 leaves it: below 0.35 all slopes are zero."""

    def forward(self, x):
        flat = x.flatten(1)
        seen = torch.relu(flat - 0.35).amax(1)
        return torch.stack([torch.full_like(seen, 0.05), seen], 1)


def problem(examples=6):
    x = 0.02 * torch.rand(examples, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    others = torch.zeros(2, 1, 4, 4)
    others[0, 0, 1, 1], others[1, 0, 2, 3] = 1.0, 0.9
    y = torch.zeros(examples, dtype=torch.int64)
    return Classifier(Threshold(), deterministic=True), x, y, Others(others, torch.ones(2, dtype=torch.int64))


def streams(n):
    return Streams.seeded(0, torch.arange(n))


def test_finds_what_a_threshold_hides_from_an_ascent_in_the_ball():
    classifier, x, y, others = problem()
    walk = BoundaryWalk(others=others)
    for attack, threat, found in (
        (APGD(steps=50, objective=margin_loss), L2(epsilon=0.45), False),
        (walk, L2(epsilon=0.45), True),
        (walk, L1(epsilon=0.5), True),
        (walk, Linf(epsilon=0.45), True),
    ):
        x_adv = attack.run(classifier, x, y, threat, generator=streams(len(x)))
        assert threat.contains(x_adv, x).all()
        assert (fooled(classifier.predict(x_adv, generator=streams(len(x))), y, threat) == found).all()


def test_finds_nothing_where_there_is_nothing():
    classifier, x, y, others = problem()
    threat = Linf(epsilon=0.3)
    x_adv = BoundaryWalk(others=others).run(classifier, x, y, threat, generator=streams(len(x)))
    assert not fooled(classifier.predict(x_adv, generator=streams(len(x))), y, threat).any()


def test_starts_at_the_nearest_image_of_another_class_then_at_the_next_class():
    x, y = torch.zeros(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    places = torch.tensor([[0.1, 0.0], [0.5, 0.0], [0.3, 0.0], [0.0, 0.4], [0.9, 0.9]]).view(5, 1, 1, 2)
    walk = BoundaryWalk(others=Others(places, torch.tensor([0, 1, 1, 2, 2])))
    threat = L2(epsilon=0.1)
    batch, gaps = Batch.whole(x, y, streams(1), margin_loss), walk._gaps(x, y, threat)
    seen = []
    for _ in range(3):
        start, there = walk._image(batch, gaps, threat)
        seen.append(start.flatten().tolist() if there else None)
        gaps = walk._without(gaps, threat)
    assert seen == [pytest.approx([0.3, 0.0]), pytest.approx([0.0, 0.4]), None]


def test_under_a_targeted_goal_it_starts_at_images_of_that_class_alone():
    x, y = torch.zeros(1, 1, 1, 2), torch.ones(1, dtype=torch.int64)
    places = torch.tensor([[0.1, 0.0], [0.5, 0.0], [0.3, 0.0]]).view(3, 1, 1, 2)
    walk = BoundaryWalk(others=Others(places, torch.tensor([0, 1, 1])))
    threat = L2(epsilon=0.1, goal="targeted")
    gaps = walk._gaps(x, y, threat)
    assert gaps.isfinite().tolist() == [[False, True, True]]
    assert walk._without(gaps, threat).isfinite().tolist() == [[False, True, False]]


def test_images_that_an_earlier_walk_has_used_are_left_out():
    classifier, x, y, others = problem(1)
    moved = others.x.clone()
    with_first = BoundaryWalk(others=Others(moved, torch.tensor([1, 2])), first=1, starts=1)
    alone = BoundaryWalk(others=Others(moved[:1], torch.tensor([2])), starts=1)
    seen = []

    class Watched(Threshold):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    watched = classifier.replace(network=Watched())
    for walk in (with_first, alone):
        seen.append(torch.zeros(0))
        walk.run(watched, x, y, L2(epsilon=0.1), generator=streams(1))
    first, second = [k for k, v in enumerate(seen) if not len(v)]
    torch.testing.assert_close(seen[first + 1], torch.lerp(x, moved[:1], 0.5))  # `x` is nearer to the second
    torch.testing.assert_close(seen[second + 1], torch.lerp(x, moved[:1], 0.5))


def test_fits_itself_to_the_network_that_it_meets():
    _, _, _, others = problem()
    fitted = BoundaryWalk().fit(Setting(random=True, detector=True, others=others))
    assert isinstance(fitted, BoundaryWalk)
    assert fitted.others is others
    assert not fitted.early_stop
    assert fitted.objective == Undetected(margin_loss)
    assert "3 images" in fitted.describe()
