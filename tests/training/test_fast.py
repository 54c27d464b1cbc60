"""The guard of fast training: it sees a collapse, goes back to the last good weights and on with another attack."""

from dataclasses import dataclass, replace

import pytest
import torch

from unmask.attacks import FGSM, PGD, Attack
from unmask.data import load
from unmask.threat import Linf
from unmask.training import AdversarialTraining, FastTraining, Standard
from unmask.training.validation import accuracies
from unmask.zoo import ResNet20

from .conftest import PLAIN, flat, seed, small_network


@dataclass(frozen=True)
class Scripted(Attack):
    """Leaves images as they are in all calls but some, when it blackens them all: a measured collapse."""

    at: tuple[int, ...]
    calls: list

    def run(self, classifier, x, y, threat, *, generator):
        self.calls.append(1)
        return torch.zeros_like(x) if len(self.calls) in self.at else x


def test_goes_back_and_on_with_the_fallback(few):
    """Checks after steps 2, 4 and 6; the third fails, so it must end where fallback from step 4's weights does."""
    data = load("digits", split="train", examples=96 + 32)
    recipe = FastTraining(
        **PLAIN | {"epochs": 5, "average": 0.0},
        guard_every=2,
        guard_examples=32,
        guard_attack=Scripted((3,), []),
        tolerance=0.001,
    )
    warm = small_network()
    Standard(**PLAIN | {"epochs": 30}).fit(warm, few, None, generator=seed(5))
    start = flat(warm)

    def begin():
        net = small_network()
        torch.nn.utils.vector_to_parameters(start.clone(), net.parameters())
        return net

    # Blackened images are in the ball of radius 1, so the judge lets them count.
    threat = Linf(epsilon=1.0)
    found = begin()
    recipe = replace(recipe, attack=FGSM(rel_step_size=0.0), fallback=FGSM(rel_step_size=0.1))
    history = recipe.fit(found, data, threat, generator=seed())
    assert len(history.events) == 1
    assert "step 6" in history.events[0]
    assert "back to step 4" in history.events[0]
    assert "rel_step_size=0.1" in history.events[0]

    @dataclass(frozen=True)
    class Turning(Attack):
        """By hand: FGSM on the spot for six minibatches, then the fallback; the weights go back between them."""

        calls: list

        def run(self, classifier, x, y, threat, *, generator):
            self.calls.append(1)
            inner = recipe.attack if len(self.calls) <= 6 else recipe.fallback
            return inner.run(classifier, x, y, threat, generator=generator)

    @dataclass(frozen=True, kw_only=True)
    class ByHand(AdversarialTraining):
        kept: dict

        def learn(self, run, x, y):
            seen = super().learn(run, x, y)
            if run.done == 4:
                self.kept.update(run.weights())
            if run.done == 6:
                run.restore(self.kept)
            return seen

    truth = begin()
    by_hand = ByHand(**PLAIN | {"epochs": 5, "average": 0.0}, attack=Turning([]), kept={})
    first = data[:96]
    by_hand.fit(truth, first, threat, generator=seed())
    assert torch.equal(flat(found), flat(truth))


@pytest.mark.parametrize(("at", "acts"), [((3,), False), ((3, 4), True)])
def test_while_epsilon_rises_only_a_fall_that_lasts_counts(at, acts, few):
    """Of 15 steps, epsilon rises over the first 7; the third check comes after 6 and the fourth after 8."""
    network = small_network()
    Standard(**PLAIN | {"epochs": 30}).fit(network, few, None, generator=seed(5))
    recipe = FastTraining(
        **PLAIN | {"epochs": 5, "learning_rate": 0.01},
        ramp=0.5,
        attack=FGSM(rel_step_size=0.0),
        guard_every=2,
        guard_examples=32,
        guard_attack=Scripted(at, []),
    )
    data = load("digits", split="train", examples=96 + 32)
    events = recipe.fit(network, data, Linf(epsilon=1.0), generator=seed()).events
    assert len(events) == acts
    if acts:
        assert "step 8: catastrophic" in events[0]
        assert "back to step 4" in events[0]


@pytest.mark.slow
def test_a_natural_collapse_is_seen_and_undone():
    """One step from the image itself, a large radius, batch normalisation: the network learns to fool that step."""
    data, test = load("digits", split="train"), load("digits", split="test", examples=300)
    recipe = FastTraining(
        **PLAIN | {"epochs": 30, "batch_size": 64, "learning_rate": 0.2, "average": 0.9},
        attack=FGSM(rel_step_size=1.0),
    )
    robust = {}
    for guard in (0, 20):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            network = ResNet20(channels=1, blocks=1)
        found = replace(recipe, guard_every=guard)
        history = found.fit(network, data, Linf(epsilon=0.3), generator=seed())
        robust[guard] = accuracies(
            network, test, Linf(epsilon=0.3), PGD(steps=10, rel_step_size=0.25), 64, 0
        )[1]
        if not guard:
            assert history.epochs[-1].accuracy > 0.9  # under its own attack
            assert not history.events
        else:
            assert len(history.events) == 1
            assert "catastrophic overfitting" in history.events[0]
    assert robust[0] < 0.35
    assert robust[20] > robust[0] + 0.25
