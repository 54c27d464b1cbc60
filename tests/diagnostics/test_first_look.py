"""A control that ends after a first look decides as it would have of all examples, or nearly so."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from unmask.attacks import PGD, Attack
from unmask.classifier import Classifier
from unmask.diagnostics import BlackBox, GradientCheck, Monotone, Planted, RandomNoise, breaks_more
from unmask.diagnostics.first_look import first_look
from unmask.randomness import Streams
from unmask.threat import Linf

from .conftest import Quantised

N = 32


class Switch(nn.Module):
    """Class 1 where the second pixel is on; the first one numbers the image."""

    def forward(self, x: Tensor) -> Tensor:
        on = x.flatten(1)[:, 1]
        return torch.stack([1 - on, on], 1)


@dataclass(frozen=True, eq=False)
class Breaks(Attack):
    """Breaks the examples of a given set, and counts what it was asked about."""

    those: Tensor
    asked: list

    def run(self, classifier, x, y, threat, *, generator):
        places = (x.flatten(1)[:, 0] * 100).round().long()
        self.asked.extend(places.tolist())
        x_adv = x.clone()
        x_adv.view(len(x), 2)[:, 1] = torch.where(self.those[places], 0.9, 0.0)
        return x_adv


def images() -> Tensor:
    x = torch.zeros(N, 1, 1, 2)
    x[:, 0, 0, 0] = torch.arange(N) / 100
    return x


def examined(control, network=None):
    classifier = Classifier(network or Switch(), deterministic=True)
    streams = Streams.seeded(0, torch.arange(N))
    y = torch.zeros(N, dtype=torch.int64)
    return control.examine(classifier, images(), y, Linf(epsilon=1.0), generator=streams)


def sets(seed):
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(2, generator=generator)
    return [torch.rand(N, generator=generator) < s for s in share]


def test_the_fewest_that_show_a_fault():
    for share in (0.05, 0.25, 0.5):
        n = first_look(share)
        assert 1 - (1 - share) ** n >= 0.95 > 1 - (1 - share) ** (n - 1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["search", "noise"])
def test_it_ends_only_where_the_first_few_give_no_cause_and_else_decides_of_all(kind, seed):
    black, white = sets(seed)
    asked = []
    challenger, reference = Breaks(black, asked), Breaks(white, [])
    search = kind == "search"
    reading = examined(
        BlackBox(black=challenger, white=reference)
        if search
        else RandomNoise(noise=challenger, attack=reference)
    )
    first = first_look()
    if (black & ~white)[:first].any():
        # A search goes on to what gradients broke where enough was found beside it; nobody is asked twice.
        every = not search or breaks_more(black & ~white, torch.zeros_like(white))
        assert sorted(asked) == [n for n in range(N) if every or not white[n]]
        assert reading.passed is not breaks_more(black, white)
        assert torch.equal(reading.tried[1].failure_rate > 0.5, black if every else black & ~white)
    else:
        expected = [n for n in range(first) if not (search and white[n])]
        assert sorted(asked) == expected
        assert reading.passed is not False
        assert len(reading.tried[1].x_adv) == first


def test_what_a_first_look_loses_of_the_faults_that_all_examples_show():
    """Networks on which search breaks every fourth example that gradients do not."""
    generator = torch.Generator().manual_seed(0)
    noticed = {"all": 0, "first look": 0}
    nothing = torch.zeros(N, dtype=torch.bool)
    for _ in range(300):
        black = torch.rand(N, generator=generator) < 0.25
        reading = examined(BlackBox(black=Breaks(black, []), white=Breaks(nothing, [])))
        noticed["all"] += breaks_more(black, nothing)
        noticed["first look"] += reading.passed is False
    assert noticed["all"] > 270
    assert noticed["first look"] >= noticed["all"] - 0.06 * 300


def test_an_image_that_is_wrong_as_it_came_is_not_called_right():
    """Beside an attack that goes back to the right class, in a ball where it is not attacked."""

    @dataclass(frozen=True)
    class Mends(Attack):
        def run(self, classifier, x, y, threat, *, generator):
            return torch.zeros_like(x)

    class Wrong(nn.Module):
        def forward(self, x):
            return Switch()(x).flip(1) - 5 * (x.flatten(1).sum(1) == 0)[:, None] * torch.tensor([-1.0, 1.0])

    reading = examined(Monotone(attack=Mends(), factors=(0.5, 1.0)), Wrong())
    small = reading.tried[0].failure_rate
    assert small.sum() >= N - first_look() - 1
    assert reading.passed is False


def test_small_balls_are_attacked_where_it_matters(base, digits, streams):
    classifier = Classifier(base, deterministic=True)
    attack = PGD(steps=8, rel_step_size=0.25)
    x, y = digits
    reading = Monotone(attack=attack).examine(classifier, x, y, Linf(epsilon=0.1), generator=streams)
    fell = {t.threat.epsilon: t.failure_rate > 0.5 for t in reading.tried}
    assert reading.passed
    moved = (reading.tried[0].x_adv != x).flatten(1).any(1)
    assert torch.equal(moved, fell[0.05] | (torch.arange(N) < first_look()))
    whole = attack.run(classifier, x, y, Linf(epsilon=0.025), generator=streams)
    lost = classifier(whole, generator=streams).logits.argmax(1) != y
    assert abs(int(lost.sum()) - int(fell[0.025].sum())) <= 1


@pytest.mark.parametrize("wrapped", [lambda base: base, Quantised], ids=["honest", "quantised"])
def test_the_gradient_is_checked_on_all_where_a_few_do_not_agree(wrapped, base, examine):
    reading = examine(GradientCheck(), wrapped(base))
    assert len(reading.tried[0].x_adv) == (N if reading.passed is False else first_look())


@pytest.mark.parametrize(
    ("found", "guessed", "ends"),
    [
        ([1, 1], [0, 0], False),
        ([1, 1, 1], [0, 0, 0], True),
        ([1, 0, 1], [0, 0, 0], False),
        ([1, 1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0], False),
        ([1, 1, 1, 1], [1, 0, 0, 0], True),  # what guessing finds tells nothing, and three others were found
        ([0, 1, 1, 1], [1, 0, 0, 0], False),
        ([1, 1, 1], [1, 0, 0], False),
        ([1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], True),
        ([1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], False),  # guessing finds more than half: no value
        ([0.5, 1, 1], [0, 0, 0], False),  # half of the draws are no success
        ([1, 1, 1], [0.5, 0, 0], True),
    ],
)
def test_planting_ends_where_all_were_found_and_guessing_misses_three_of_them(found, guessed, ends):
    assert Planted()._clear([float(f) for f in found], [float(g) for g in guessed]) is ends


def test_planting_ends_early_only_where_all_were_found(base, examine):
    assert examine(Planted(), base).statistics["planted"] == 3
    assert examine(Planted(), Quantised(base)).statistics["planted"] > 8
