"""Which gradients the long runs of a random network follow."""

from unmask.audit.campaign.plan import QUICK
from unmask.audit.campaign.steps import averaged_steps
from unmask.gradients import BPDA, EOT, Exact, FiniteDifference
from unmask.objectives import Confident, cross_entropy, margin_loss
from unmask.remedies import Candidate
from unmask.threat import L0, Linf

THREAT = Linf(epsilon=0.1)
FIRST = Candidate("first", EOT(Exact(), max_draws=8))
SECOND = Candidate("second", EOT(BPDA(), max_draws=8), cross_entropy)
THIRD = Candidate("third", EOT(FiniteDifference(), max_draws=8))


def runs(*ways, threat=THREAT, passes=1):
    return list(averaged_steps(QUICK, threat, ways, passes=passes))


def test_one_gradient_is_followed_by_all():
    steps = runs(FIRST)
    assert [s.name for s in steps] == [f"first/momentum 80{w}" for w in ("", " from the image", " again")]
    assert [s.attack.gradient for s in steps] == [Exact(), *[EOT(Exact(), draws=4)] * 2]
    assert [s.attack.random_start for s in steps] == [True, False, True]
    assert [s.attack.objective for s in steps] == [margin_loss, margin_loss, Confident(margin_loss, 1.0)]
    assert all(s.attack.steps == 80 and not s.attack.early_stop for s in steps)
    assert [s.attack.objective for s in runs(FIRST, passes=2)] == [margin_loss] * 3


def test_those_that_are_level_take_turns():
    single = [Exact(), BPDA(), FiniteDifference()]
    for ways, turns in (((FIRST, SECOND), (0, 1, 0)), ((FIRST, SECOND, THIRD), (0, 1, 2))):
        steps = runs(*ways)
        assert [s.attack.gradient for s in steps] == [
            single[turns[0]],
            *[EOT(single[n], draws=4) for n in turns[1:]],
        ]
        for n, step in zip(turns, steps, strict=True):
            assert step.recipe.endswith(f", {ways[n].name}")
    aims = [s.attack.objective for s in runs(FIRST, SECOND)]
    assert aims == [margin_loss, cross_entropy, Confident(margin_loss, 1.0)]


def test_few_pixels_follow_the_first():
    (step,) = runs(FIRST, SECOND, threat=L0(epsilon=3))
    assert step.name == "first/averaged 40"
