"""What random searches share, followed on a network that is random: which scores stand, and which point is kept."""

from dataclasses import dataclass, replace

import pytest
import torch

from unmask.attacks import Setting, Square
from unmask.attacks.random_search import RandomSearch
from unmask.classifier import Classifier
from unmask.objectives import Undetected, margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf

EXAMPLES = 4


@dataclass(frozen=True)
class Steps:
    """The state is how far an image has moved along its only pixel; a query moves it by its number less a half."""

    x: torch.Tensor
    ahead = 3

    def take(self, chosen):
        return Steps(self.x[chosen])

    def image(self, state):
        return self.x + state

    def start(self, streams):
        return torch.zeros_like(self.x)

    def draw(self, streams, queries):
        return streams.uniform(queries, 1)

    def propose(self, state, share, draws):
        return state + share * (draws.double() - 0.5)


@dataclass(frozen=True, kw_only=True)
class Walk(RandomSearch):
    def moves(self, threat, x):
        return Steps(x)

    def share(self, query, rounds):
        return 0.1 + query / rounds / 100  # says which query it is


class Noisy:
    """Class 1 leads by what the pixel has over 0.6, and noise; what was asked and said is written down."""

    def __init__(self, noise):
        self.noise, self.asked, self.said = noise, [], []

    def __call__(self, x):
        lead = x[:, 0] - 0.6 + self.noise * torch.randn(len(x), dtype=x.dtype)
        self.asked.append(x[:, 0].clone())
        self.said.append(lead.clone())
        return torch.stack([torch.zeros_like(lead), lead], 1)


def images():
    return torch.linspace(0.2, 0.8, EXAMPLES, dtype=torch.float64)[:, None], torch.zeros(EXAMPLES).long()


def numbers_of(rounds):
    streams = Streams.seeded(0, torch.arange(EXAMPLES))
    parts = [streams.uniform(min(3, rounds - 1 - begin), 1) for begin in range(0, rounds - 1, 3)]
    return torch.cat(parts, 1)[..., 0].double()


class Apart(Classifier):
    """The network's noise is torch's own, so that it takes nothing from the streams of the search."""

    def _pass(self, x, generator):
        assert isinstance(generator, Streams)
        return self._checked(x)


@pytest.mark.parametrize(("draws", "queries"), [(1, 24), (3, 47)])
def test_a_point_that_stands_is_scored_again_beside_each_candidate(draws, queries):
    """So many draws a score, and two scores a query; what stands is worth the mean of all its scores.

    Nobody leaves, though some are fooled.
    """
    x, y = images()
    network = Noisy(0.05)
    attack = Walk(queries=queries, draws=draws, early_stop=False)
    torch.manual_seed(0)
    found = attack.run(
        Apart(network), x, y, Linf(epsilon=1.0), generator=Streams.seeded(0, torch.arange(EXAMPLES))
    )
    rounds = queries // (2 * draws)
    assert len(network.asked) == draws * (2 * rounds - 1)
    numbers, kept = numbers_of(rounds), 0
    for n in range(EXAMPLES):
        calls = iter(range(len(network.asked)))

        def scored(expected, n=n, calls=calls):
            said = []
            for _ in range(draws):
                call = next(calls)
                assert float(network.asked[call][n]) == pytest.approx(float(x[n, 0] + expected), abs=1e-12)
                said.append(float(network.said[call][n]))
            return sum(said) / draws

        state, scores = 0.0, []
        scores.append(scored(state))
        for query in range(rounds - 1):
            candidate = state + (0.1 + query / rounds / 100) * (float(numbers[n, query]) - 0.5)
            new = scored(candidate)
            scores.append(scored(state))
            if new > sum(scores) / len(scores):
                state, scores, kept = candidate, [new], kept + 1
        assert float(found[n, 0]) == pytest.approx(float(x[n, 0]) + state, abs=1e-9)
    assert 0 < kept < EXAMPLES * (rounds - 1)


def test_with_early_stop_a_lucky_draw_is_enough_even_if_its_mean_is_no_better():
    """Fooled is what the first draw of a score says; the point is kept whatever the mean."""
    x, y = images()

    class Once:
        """The third query's first draw fools; every mean falls."""

        def __init__(self):
            self.calls = 0

        def __call__(self, z):
            self.calls += 1
            lead = torch.full((len(z),), -0.01 * self.calls, dtype=z.dtype)
            if self.calls == 5:
                lead = lead + 0.1
            elif self.calls == 6:
                lead = lead - 5
            return torch.stack([torch.zeros_like(lead), lead], 1)

    network = Once()
    found = Walk(queries=40, draws=2).run(
        Apart(network), x, y, Linf(epsilon=1.0), generator=Streams.seeded(0, torch.arange(EXAMPLES))
    )
    assert network.calls == 6
    step = (0.1 + 1 / 20 / 100) * (numbers_of(20)[:, 1] - 0.5)
    torch.testing.assert_close(found[:, 0], x[:, 0] + step)


def test_who_is_fooled_where_the_search_begins_leaves_at_once():
    x, y = images()
    network = Noisy(0.0)
    found = Walk(queries=9).run(
        Apart(network, deterministic=True),
        x,
        y,
        Linf(epsilon=1.0),
        generator=Streams.seeded(0, torch.arange(4)),
    )
    assert [len(points) for points in network.asked[:2]] == [4, 3]
    assert float(found[3, 0]) == pytest.approx(0.8)


def test_queries_that_are_fewer_than_a_score_are_one_round():
    x, y = images()
    network = Noisy(0.05)
    Walk(queries=1, draws=4, early_stop=False).run(
        Apart(network), x, y, Linf(epsilon=1.0), generator=Streams.seeded(0, torch.arange(EXAMPLES))
    )
    assert len(network.asked) == 4


def test_it_fits_itself_to_a_random_network_and_to_a_detector():
    attack = Square()
    assert attack.fit(Setting()) == attack
    fitted = attack.fit(Setting(random=True, detector=True))
    assert (fitted.draws, fitted.early_stop, fitted.objective) == (4, False, Undetected(margin_loss))
    assert replace(attack, draws=9).fit(Setting(random=True)).draws == 9
    assert replace(attack, draws=2).fit(Setting()).draws == 2
    assert attack.fit(Setting(detector=True)).early_stop
