"""Who looks worse than the incumbent must do so twice, on fresh draws that both are judged on."""

import pytest
import torch

import unmask.audit.campaign.standing as module
from unmask.attacks import Attack
from unmask.audit.campaign.standing import Standing
from unmask.audit.runtime.journal import Journal
from unmask.audit.runtime.progress import Silent
from unmask.classifier import Classifier
from unmask.judge import Judgement
from unmask.threat import Linf

N = 4


class Fixed(Attack):
    def __init__(self, delta):
        self.delta = delta

    def run(self, classifier, x, y, threat, *, generator):
        return x + self.delta


class Told(Silent):
    """Remembers how far a step has come."""

    def __init__(self):
        self.seen = []

    def update(self, upper_bound, done, total):
        self.seen.append((round(upper_bound, 6), done, total))


def standing(*, deterministic=False, draws=10, examples=N, seed=0, network=None, journal=None, progress=None):
    x, y = torch.full((examples, 1, 2, 2), 0.5), torch.zeros(examples, dtype=torch.int64)
    classifier = Classifier(network or (lambda x: torch.zeros(len(x), 2)), deterministic=deterministic)
    return Standing(
        classifier, x, y, Linf(epsilon=0.25), seed=seed, index=torch.arange(examples) + 5, draws=draws,
        batch_size=3, journal=journal, progress=progress or Silent(),
    )  # fmt: skip


@pytest.fixture
def verdicts(monkeypatch):
    """What the judge says, call by call; each entry is called with the points that it is asked about."""
    said, asked = [], []

    def judge(classifier, x_adv, x, y, threat, *, draws=1, generator):
        assert torch.equal(x, torch.full_like(x_adv, 0.5))
        assert torch.equal(y, torch.zeros(len(x), dtype=torch.int64))
        assert threat == Linf(epsilon=0.25)
        assert draws == (1 if classifier.deterministic else 10)
        asked.append((x_adv, generator.seeds.clone()))
        rate = torch.as_tensor(said.pop(0)).expand(len(x)).float()
        return Judgement(rate, rate >= 0, rate >= 0, torch.zeros(len(x)), y)

    monkeypatch.setattr(module, "judge", judge)
    return said, asked


def attack(state, delta, name):
    return state.attack(name, name, Fixed(delta), torch.arange(len(state.x)))


def test_a_lucky_proposal_does_not_take_the_place_of_a_better_one(verdicts):
    said, asked = verdicts
    state = standing(examples=3)
    said += [0.5]  # the first proposal; nobody stands yet, so that there is nothing to compare with
    attack(state, 0.1, "first")
    assert len(asked) == 1
    said += [
        0.9,
        0.1,
        0.5,
    ]  # looks better; on further draws it fails 0.1 of the time, the incumbent again 0.5
    attack(state, 0.2, "second")
    assert len(asked) == 4
    torch.testing.assert_close(state.x_adv, state.x + 0.1)  # (0.9 + 0.1) / 2 is not above (0.5 + 0.5) / 2
    torch.testing.assert_close(state.rate, torch.full((3,), 0.5).double())
    torch.testing.assert_close(state.seen, torch.full((3,), 20.0))


def test_who_looks_better_twice_takes_the_place_with_the_mean_of_both_looks(verdicts):
    said, asked = verdicts
    state = standing(examples=3)
    said += [0.5]
    attack(state, 0.1, "first")
    said += [0.9, 0.7, 0.5]
    attack(state, 0.2, "second")
    torch.testing.assert_close(state.x_adv, state.x + 0.2)
    torch.testing.assert_close(state.rate, torch.full((3,), 0.8).double())
    torch.testing.assert_close(state.seen, torch.full((3,), 20.0))
    # The second look is on fresh draws, the same for both.
    (first, first_seeds), (again, seeds), (incumbent, same_seeds) = asked[1:]
    assert torch.equal(first, again)
    torch.testing.assert_close(incumbent, state.x + 0.1)
    assert torch.equal(seeds, same_seeds)
    assert not (seeds == first_seeds).any()


def test_the_incumbent_s_rate_is_weighed_by_all_its_draws(verdicts):
    said, _ = verdicts
    state = standing(examples=3)
    said += [0.5]
    attack(state, 0.1, "first")
    said += [0.9, 0.7, 0.5]
    attack(state, 0.2, "second")  # stands at 0.8 of 20 draws
    said += [0.9, 0.5, 0.2]  # 0.7 over both looks, against (0.8 * 20 + 0.2 * 10) / 30 = 0.6
    attack(state, 0.15, "third")
    torch.testing.assert_close(state.x_adv, state.x + 0.15)
    torch.testing.assert_close(state.rate, torch.full((3,), 0.7).double())
    said += [0.75, 0.5, 0.7]  # 0.625 against 0.7: stays, and its draws are not counted anew
    attack(state, 0.05, "fourth")
    torch.testing.assert_close(state.x_adv, state.x + 0.15)
    torch.testing.assert_close(state.rate, torch.full((3,), 0.7).double())


def test_only_who_looks_better_is_looked_at_again(verdicts):
    said, asked = verdicts
    state = standing(examples=3)
    said += [torch.tensor([0.2, 0.5, 0.8])]
    attack(state, 0.1, "first")
    said += [torch.tensor([0.5, 0.5, 0.5]), 0.5, 0.2]
    attack(state, 0.2, "second")
    assert [len(points) for points, _ in asked] == [3, 3, 1, 1]
    torch.testing.assert_close(state.rate.float(), torch.tensor([0.5, 0.5, 0.8]))
    torch.testing.assert_close(state.x_adv[0], state.x[0] + 0.2)
    torch.testing.assert_close(state.x_adv[1:], state.x[1:] + 0.1)


def test_a_deterministic_network_is_looked_at_once(verdicts):
    said, asked = verdicts
    state = standing(deterministic=True, draws=1, examples=3)
    said += [torch.tensor([0.0, 0.0, 1.0])]
    attack(state, 0.1, "first")
    said += [torch.tensor([1.0, 0.0, 0.0])]
    attack(state, 0.2, "second")
    assert len(asked) == 2
    assert state.rate.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(("rate", "left"), [(0.97, True), (0.98, False)])
def test_a_random_network_s_example_is_settled_at_98_of_100(verdicts, rate, left):
    said, _ = verdicts
    state = standing(examples=3)
    said += [rate]
    attack(state, 0.1, "first")
    assert bool(len(state.unbroken())) == left


def test_batches_go_to_their_own_places_and_streams(verdicts):
    """Seven examples in batches of three: rates, points and random streams stay each example's own."""
    said, asked = verdicts
    state = standing(deterministic=True, draws=1, examples=7)
    chosen = torch.tensor([6, 1, 4, 0, 5])
    said += [torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0])]
    found = state.attack("only", "only", Fixed(0.1), chosen)
    assert found.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert (state.rate == 1).nonzero()[:, 0].tolist() == [0, 1]
    whole = state.streams("only judged").seeds
    assert torch.equal(torch.cat([seeds for _, seeds in asked]), whole[chosen])


class Climb(Attack):
    """Asks the network once forward and once backward, and moves every example by a number of its own."""

    ascent = "autograd"

    def run(self, classifier, x, y, threat, *, generator):
        leaf = x.clone().requires_grad_()
        logits = classifier(leaf, generator=generator).logits
        slope = classifier.gradient(logits[:, 1] - logits[:, 0], leaf)
        return x + slope.sign() * 0.1 * generator.uniform(device=x.device)[:, None, None, None]


def tilted(x):
    """Wrong as soon as an image is brighter by 0.05 on average."""
    return torch.stack([torch.zeros(len(x)), x.flatten(1).mean(1) - 0.55], 1)


def test_an_attack_is_given_the_network_and_the_random_numbers_of_its_examples():
    state = standing(deterministic=True, draws=1, examples=7, network=tilted)
    state.step("clean", None, lambda part, _: state.x[part], torch.arange(7))
    found = attack(state, 0.0, "nothing")
    assert found.tolist() == [0.0] * 7
    moved = 0.1 * state.streams("climb").uniform(device=state.x.device)
    broken = moved > 0.05
    assert 0 < broken.sum() < 7, "the seed splits them"
    rates = state.attack("climb", "climb", Climb(), torch.arange(7))
    assert torch.equal(rates == 1, broken)
    torch.testing.assert_close(state.x_adv[broken], (state.x + moved[:, None, None, None])[broken])


def test_what_a_step_cost_and_brought_is_written_down(tmp_path):
    def run(resume):
        told = Told()
        journal = Journal(tmp_path / "out", {"seed": 0}, resume=resume)
        state = standing(
            deterministic=True, draws=1, examples=7, network=tilted, journal=journal, progress=told
        )
        state.step("clean", None, lambda part, _: state.x[part], torch.arange(7))
        rates = state.attack("climb", "climb", Climb(), torch.arange(7))
        journal.close()
        return state, rates, told

    state, rates, told = run(resume=False)
    (spent,) = state.spent
    broken = int((rates == 1).sum())
    assert (spent.recipe, spent.newly_broken) == ("climb", broken)
    assert spent.robust_accuracy == pytest.approx(1 - broken / 7)
    assert vars(spent.meter) == {"forwards": 7, "backwards": 7, "judge_forwards": 7}
    assert spent.seconds > 0
    assert spent.ascent == "autograd"
    assert [done for _, done, _ in told.seen] == [3, 6, 7, 3, 6, 7]
    assert {total for _, _, total in told.seen} == {7}
    assert [passes for *passes, _ in state.track] == [[0, 0], [0, 0], [0, 0], [3, 3], [6, 6], [7, 7]]
    assert state.track[-1][2] == pytest.approx(state.robust_accuracy)

    # Whoever goes on with the journal asks the network nothing, and counts the same.
    again, same, _ = run(resume=True)
    assert torch.equal(rates, same)
    assert torch.equal(state.x_adv, again.x_adv)
    assert again.spent == state.spent
    assert vars(again.classifier.meter) == {"forwards": 0, "backwards": 0, "judge_forwards": 0}
    assert again.rounds.total() == state.rounds.total()
    assert again.track[-1] == state.track[-1]


def test_a_step_on_nothing_changes_nothing(verdicts):
    said, _ = verdicts
    state = standing(deterministic=True, draws=1, examples=3)
    said += [torch.tensor([0.0, 1.0, 0.0])]
    attack(state, 0.1, "first")
    found = state.attack("none", "none", Fixed(0.2), torch.arange(0))
    assert found.shape == (0,)
    assert state.spent[-1].robust_accuracy == pytest.approx(2 / 3)


def test_points_are_judged_again_without_being_chosen():
    state = standing(deterministic=True, draws=1, examples=7, network=tilted)
    state.step("clean", None, lambda part, _: state.x[part], torch.arange(7))
    points = state.x + 0.1 * (torch.arange(7) % 2)[:, None, None, None]
    before = state.rounds.total()
    seen = state.judged(points, "final", 3)
    assert seen.failure_rate.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert seen.prediction.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert state.robust_accuracy == 1.0
    assert state.rounds.total().since(before).judge_forwards == 7  # once, for nothing is random
    other = state.judged(points, "final", 1, goal=(1 - state.y, state.threat))
    assert other.failure_rate.tolist() == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]


def test_the_nearest_to_breaking_come_first_and_a_margin_loss_that_is_no_number_last(verdicts):
    state = standing(deterministic=True, draws=1, examples=5)
    state.worst.value[:] = 0.0
    state.worst.margin_loss[:] = torch.tensor([-3.0, torch.nan, -1.0, -1.0, torch.inf])
    assert state.unbroken(0.2).tolist() == [4]
    assert state.unbroken(0.4).tolist() == [2, 4]  # of equals the first
    assert state.unbroken(0.8).tolist() == [0, 2, 3, 4]
    assert state.unbroken().tolist() == [0, 1, 2, 3, 4]


def coin(*, together, asked):
    """Wrong with probability one half: all of a batch at once, or each by itself."""

    def network(x):
        asked.append(len(x))
        right = (torch.rand(1 if together else len(x)) < 0.5).expand(len(x)).float()[:, None]
        return torch.cat([right, 1 - right], 1)

    return network


@pytest.mark.parametrize("together", [True, False])
def test_examples_that_draw_together_are_judged_alone(together):
    """Their rates are as those of examples that draw by themselves; how they fail in batches is kept beside."""
    asked = []
    here = standing(network=coin(together=together, asked=asked), examples=30)
    seen = here.judged(here.x, "final", 30)
    assert (1 in asked) is together
    assert float(seen.shared.sum()) == pytest.approx((3 if together else 1) * 30 / 4, rel=0.5)
    # Alone the mean over 30 examples and 30 draws has a deviation of 0.017; drawn together in threes 0.029.
    assert abs(float(seen.failure_rate.mean()) - 0.5) < 0.05
