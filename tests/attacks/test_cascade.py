import importlib.util
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from tests.attacks.conftest import linear_problem, threat_of
from torch import Tensor, nn

from unmask.attacks import APGD, PGD, Attack, Square, TargetedAPGD
from unmask.attacks.budgets import quick, standard, thorough
from unmask.attacks.cascade import Cascade, Stage, run_stages
from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import EOT
from unmask.judge import fooled
from unmask.objectives import Targeted, margin
from unmask.randomness import Streams
from unmask.threat import Linf


class Ramp(nn.Module):
    """One number per example; label 0 is lost where it exceeds 0.5. The margin is the number minus 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1)[:, 0] - 0.5
        return torch.stack([torch.zeros_like(value), value], 1)


@dataclass(frozen=True)
class Shift(Attack):
    """Moves every input by a fixed amount and notes what it was given."""

    by: float
    seen: list[list[float]] = field(default_factory=list, compare=False)

    def run(self, classifier, x, y, threat, *, generator):
        self.seen.append([round(v, 3) for v in x.flatten().tolist()])
        return x + self.by


def ramp(*numbers: float):
    x = torch.tensor(numbers).reshape(-1, 1, 1, 1)
    return (
        Classifier(Ramp(), deterministic=True),
        x,
        torch.zeros(len(x), dtype=torch.int64),
        Linf(epsilon=1.0),
    )


def run(problem, stages, **options):
    return run_stages(*problem, stages, generator=torch.Generator().manual_seed(0), **options)


def test_each_stage_gets_the_unbroken_examples_of_lowest_margin_in_their_order():
    first, second, third = Shift(0.1), Shift(0.2), Shift(0.3)
    problem = ramp(0.1, 0.45, 0.0, 0.6, 0.35, 0.2)
    end = run(problem, [Stage("a", first), Stage("b", second, 0.5), Stage("c", third, 0.1)])
    assert first.seen == [[0.1, 0.45, 0.0, 0.35, 0.2]]  # 0.6 was wrong from the start
    assert second.seen == [[0.35, 0.2]]  # 0.45 fell to `a`; half of four remain
    assert third.seen == [[0.2]]  # one tenth of three, rounded up
    assert end.broken.tolist() == [False, True, False, True, True, False]
    expected = torch.tensor([0.2, 0.55, 0.1, 0.6, 0.55, 0.5])
    torch.testing.assert_close(end.x_adv.flatten(), expected)  # 0.5 is the boundary itself: a tie holds
    torch.testing.assert_close(end.value, expected - 0.5)
    assert [(r.name, r.attacked, r.newly_broken) for r in end.records] == [
        ("clean", 6, 1), ("a", 5, 1), ("b", 2, 1), ("c", 1, 0),
    ]  # fmt: skip


def test_a_worse_proposal_replaces_nothing():
    end = run(ramp(0.1, 0.2), [Stage("up", Shift(0.2)), Stage("down", Shift(-0.1))])
    torch.testing.assert_close(end.x_adv.flatten(), torch.tensor([0.3, 0.4]))


def test_stops_paying_when_everything_is_broken():
    never = Shift(0.0)
    end = run(ramp(0.4, 0.45), [Stage("a", Shift(0.2)), Stage("b", never)])
    assert never.seen == []
    assert end.records[-1].forwards == 0


def test_records_account_for_every_pass():
    problem = linear_problem("linf")
    classifier = problem.classifier()
    end = run_stages(
        classifier,
        problem.x,
        problem.y,
        Linf(epsilon=0.02),
        quick(),
        generator=torch.Generator().manual_seed(0),
    )
    assert sum(r.forwards for r in end.records) == classifier.meter.forwards
    assert sum(r.backwards for r in end.records) == classifier.meter.backwards
    assert sum(r.newly_broken for r in end.records) == int(end.broken.sum())
    assert classifier.meter.judge_forwards == 0


def test_after_stage_sees_each_state_and_cannot_spoil_the_next():
    states = []

    def note(progress):
        states.append((len(progress.records), int(progress.broken.sum())))
        progress.x_adv.fill_(-1)
        progress.broken.fill_(True)

    end = run(ramp(0.1, 0.4), [Stage("a", Shift(0.2)), Stage("b", Shift(0.5))], after_stage=note)
    assert states == [(1, 0), (2, 1), (3, 2)]
    torch.testing.assert_close(end.x_adv.flatten(), torch.tensor([0.6, 0.6]))


def test_batches_change_nothing():
    problem = linear_problem("l2")
    args = (problem.classifier(), problem.x, problem.y, threat_of("l2", 0.19))
    streams = Streams.seeded(0, torch.arange(len(problem.x)))
    stages = (Stage("a", APGD(steps=5, objective=margin)), Stage("b", Square(queries=20), 0.5))
    one = run_stages(*args, stages, generator=streams, batch_size=3)
    all_ = run_stages(*args, stages, generator=streams)
    torch.testing.assert_close(one.x_adv, all_.x_adv)


def test_out_of_memory_halves_the_batch_and_goes_on():
    sizes = []

    class Small(Ramp):
        def forward(self, x):
            sizes.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    _, x, y, threat = ramp(*[0.4] * 7)
    classifier = Classifier(Small(), deterministic=True)
    end = run((classifier, x, y, threat), [Stage("a", Shift(0.2))], batch_size=8)
    assert end.broken.all()
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1] + [1] * 7


def test_out_of_memory_on_one_example_is_raised():
    class Never(Ramp):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    _, x, y, threat = ramp(0.4, 0.4)
    with pytest.raises(torch.OutOfMemoryError):
        run((Classifier(Never(), deterministic=True), x, y, threat), [])


def test_going_on_from_a_start_ends_as_the_undisturbed_run():
    problem = linear_problem("linf")
    args = (problem.classifier(), problem.x, problem.y, Linf(epsilon=0.0301))
    stages = quick()

    def streams():
        return Streams.seeded(0, torch.arange(len(problem.x)))

    whole = run_stages(*args, stages, generator=streams())
    half = run_stages(*args, stages[:2], generator=streams())
    rest = run_stages(*args, stages[2:], generator=streams(), start=half.x_adv)
    assert torch.equal(rest.x_adv, whole.x_adv)
    assert torch.equal(rest.broken, whole.broken)


def test_random_networks_are_scored_by_the_mean_of_several_draws():
    class Lucky(Ramp):
        """Wrong on about a third of the draws, whatever the input; its mean logits are right."""

        def forward(self, x):
            unlucky = (torch.rand(len(x)) < 0.3).float()
            value = 3 * unlucky - 2 + 0 * x.flatten(1)[:, 0]
            return torch.stack([torch.zeros_like(value), value], 1)

    _, x, y, threat = ramp(*[0.4] * 40)
    stages = quick(EOT(), deterministic=False)[:2]
    one = run((Classifier(Lucky()), x, y, threat), stages, draws=1)
    assert int(one.broken.sum()) > 20
    many = run((Classifier(Lucky()), x, y, threat), stages, draws=60)
    assert int(many.broken.sum()) == 0
    passes = run((Classifier(Lucky(), passes=60), x, y, threat), stages)
    assert int(passes.broken.sum()) == 0


def test_what_is_not_finite_is_never_broken():
    _, x, y, threat = ramp(0.1, 0.9)
    end = run((Classifier(lambda t: Ramp()(t) * torch.nan, deterministic=True), x, y, threat), quick())
    assert not end.broken.any()
    assert torch.equal(end.x_adv, x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("budget", [quick, standard, thorough])
def test_finds_the_boundary_of_a_linear_network_and_nothing_before_it(norm, budget):
    problem = linear_problem(norm, examples=4)
    classifier = problem.classifier()
    for factor, found in ((0.97, False), (1.03, True)):
        threat = threat_of(norm, factor * problem.distance)
        stages = budget() if found else budget()[:2]
        x_adv = Cascade(stages=stages).run(
            classifier, problem.x, problem.y, threat, generator=torch.Generator().manual_seed(0)
        )
        assert threat.contains(x_adv, problem.x).all()
        won = fooled(classifier.predict(x_adv, generator=torch.Generator()), problem.y, threat)
        assert won.tolist() == [found] * 4


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("deterministic", [True, False])
def test_budgets_do_with_few_classes(classes, deterministic):
    torch_rng = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    x = torch.rand(6, 1, 4, 4, generator=torch_rng)
    y = network(x).argmax(1)
    stages = tuple(
        # few steps: it is the shapes that are tried here
        replace(
            s, attack=replace(s.attack, **({"queries": 10} if isinstance(s.attack, Square) else {"steps": 2}))
        )
        for s in thorough(deterministic=deterministic)
    )
    classifier = Classifier(network, deterministic=deterministic)
    end = run_stages(classifier, x, y, Linf(epsilon=1e-3), stages, generator=torch_rng)
    assert len(end.records) == len(stages) + 1
    assert not end.broken.all()


def test_a_targeted_goal_skips_the_stages_that_choose_targets():
    problem = linear_problem("linf")
    goal = 1 - problem.y
    threat = Linf(epsilon=1.03 * problem.distance, goal="targeted")
    stages = (
        Stage("aimed", TargetedAPGD(objective=Targeted())),
        Stage("margin", APGD(steps=5, objective=margin)),
    )
    end = run_stages(
        problem.classifier(), problem.x, goal, threat, stages, generator=torch.Generator().manual_seed(0)
    )
    assert [r.name for r in end.records] == ["clean", "margin"]
    assert end.broken.all()


def test_world_is_left_alone():
    problem = linear_problem("linf")
    before, state = problem.x.clone(), torch.get_rng_state()
    generator = torch.Generator()
    args = (problem.network, problem.x, problem.y, Linf(epsilon=0.02))
    first, second = (
        Cascade(stages=quick()).run(Classifier(args[0]), *args[1:], generator=generator.manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(problem.x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in problem.network.parameters())


def test_bad_stages_are_named():
    with pytest.raises(UnusableInput, match="stage `a` has fraction=0"):
        Stage("a", PGD(), 0)
    with pytest.raises(UnusableInput, match="named a, b, a"):
        run(ramp(0.1), [Stage("a", PGD()), Stage("b", PGD()), Stage("a", PGD())])


@pytest.mark.data
def test_matches_autoattack_at_a_twentieth_of_its_cost():
    """Standard AutoAttack leaves 232 of these 256 at 7,864 forwards and 1,910 backwards for each of them."""
    if "UNMASK_DATA" not in os.environ:
        pytest.skip("needs MNIST and other people's networks: set UNMASK_DATA to the data folder")
    from datasets import load_dataset

    folder = Path(os.environ["UNMASK_DATA"])
    spec = importlib.util.spec_from_file_location("networks", folder.parent / "models" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    rows = load_dataset(str(folder / "mnist"), split="test").select(range(256)).with_format("torch")
    x, y = rows[:]["image"].reshape(-1, 1, 28, 28).float() / 255, rows[:]["label"]
    classifier = Classifier(networks.mnist_pgd(), deterministic=True)
    generator = torch.Generator().manual_seed(0)
    end = run_stages(classifier, x, y, Linf(epsilon=0.3), standard(), generator=generator)
    left = int((~end.broken).sum())
    assert left <= 233
    cost = classifier.meter.forwards + 3.5 * classifier.meter.backwards
    assert cost <= (7_864 + 3.5 * 1_910) * 232 / 20
