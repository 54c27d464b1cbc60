"""What every attack promises. One line in CASES buys all of it."""

import math
import os
import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from tests.attacks.conftest import SHAPE, linear_problem, threat_of
from torch import nn

from unmask.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    Attack,
    BoundaryWalk,
    CarliniWagner,
    ConfidenceSweep,
    CoordinateSearch,
    FeatureMatching,
    HopSkipJump,
    JointPGD,
    MomentumPGD,
    Others,
    Queried,
    RayS,
    SparsePGD,
    SparseRS,
    Square,
    Substitute,
    TargetedAPGD,
    Transfer,
)
from unmask.classifier import Classifier
from unmask.errors import Unsupported, UnusableInput
from unmask.judge import fooled
from unmask.objectives import dlr, margin_loss
from unmask.randomness import Streams

ALL = ("linf", "l2", "l1")
FEW = ("l0", "l0-elements", "patch")


@dataclass
class Case:
    """An attack and what its documentation declares.

    - `forwards`, `backwards`: declared cost per example, at most.
    - `norms`: the supported ones.
    - `slack`: on a linear network it must succeed at `slack` times the distance to the boundary; 1.03 unless the
      attack is not told the gradient.
    - `alone`: an example's result does not depend on the rest of its batch.
    """

    attack: Attack
    forwards: int
    backwards: int
    norms: tuple[str, ...] = ALL
    slack: dict[str, float] = field(default_factory=dict)
    alone: bool = True


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def along_the_linear_problem(x):
    """A hidden layer of one unit: what `linear_problem` decides by."""
    w = torch.randn(math.prod(SHAPE), generator=rng(7), dtype=torch.float64)
    return x.flatten(1) @ w.to(x)[:, None]


def guides():
    """Images of either class of `linear_problem`, and of several of the convolutional network."""
    return torch.cat(
        [linear_problem("linf").x, linear_problem("l2").x, torch.rand(8, *SHAPE, generator=rng(2))]
    )


def others():
    """Random images, with the classes of either network in turn: most of them said wrongly."""
    return Others(torch.rand(40, *SHAPE, generator=rng(2)), torch.arange(40) % 5)


CASES = {
    "FGSM": Case(FGSM(), 1, 1),
    "FGSM-random": Case(FGSM(random_start=True, rel_step_size=2.0), 1, 1, slack={"l2": 1.5, "l1": 1.5}),
    "FGSM-edge": Case(FGSM(edge_start=True, rel_step_size=2.0), 1, 1, slack={"l2": 1.5, "l1": 1.5}),
    "PGD": Case(PGD(), 41, 41),
    "PGD-last": Case(PGD(last=True, early_stop=False), 40, 40),
    "PGD-margin-restarts": Case(PGD(objective=margin_loss, restarts=2, early_stop=False), 82, 82),
    "APGD": Case(APGD(), 103, 103),
    "APGD-dlr-restarts": Case(APGD(objective=dlr, restarts=2, steps=50), 106, 106),
    "APGD-all-steps": Case(APGD(steps=50, early_stop=False), 53, 53),
    "FAB": Case(FAB(steps=20), 1 + 20 * 5 + 5, 20 * 4),
    "FAB-T": Case(FAB(steps=10, targets=3, one_by_one=True), 1 + 3 * (2 * 10 + 5), 3 * 10),
    "FAB-least-distance": Case(
        FAB(steps=10, restarts=2, targets=2, early_stop=False), 1 + 2 * (10 * 3 + 5), 2 * 10 * 2
    ),
    "BoundaryWalk": Case(BoundaryWalk(), 3 * (6 + 31 + 11), 3 * (31 + 10), slack={"l1": 1.1}),
    "BoundaryWalk-others": Case(BoundaryWalk(others=others(), starts=2), 2 * (6 + 31), 2 * 31),
    "BoundaryWalk-all-steps": Case(BoundaryWalk(starts=1, early_stop=False), 6 + 31 + 11, 31 + 10),
    "CarliniWagner": Case(CarliniWagner(steps=100, searches=7), 707, 707, norms=("l2",)),
    "ConfidenceSweep": Case(ConfidenceSweep(confidences=(0.0, 5.0)), 2 * 41 + 2, 2 * 41),
    "CoordinateSearch": Case(CoordinateSearch(), 1000, 0, slack={"l2": 1.2, "l1": 1.1}),
    "CoordinateSearch-all-sweeps": Case(
        CoordinateSearch(queries=600, draws=2, early_stop=False), 600, 0, slack={"l2": 1.2, "l1": 1.2}
    ),
    "FeatureMatching": Case(
        FeatureMatching(features=along_the_linear_problem, guides=guides()), 2 * 101 + 2 + 24, 101
    ),
    "HopSkipJump": Case(HopSkipJump(queries=1500), 1500, 0, ("l2", "l1"), {"l2": 1.5, "l1": 4.0}),
    "JointPGD-selective": Case(JointPGD(), 101, 101, slack={"linf": 1.1, "l1": 1.2}),
    "JointPGD-orthogonal": Case(
        JointPGD(rule="orthogonal", random_start=True), 202, 202, slack={"linf": 1.1, "l1": 1.2}
    ),
    "JointPGD-classes": Case(
        JointPGD(targets=3, steps=50), 1 + 3 * 51, 3 * 51, slack={"linf": 1.1, "l1": 1.2}
    ),
    "MomentumPGD": Case(MomentumPGD(), 60, 60),
    "MomentumPGD-all-steps": Case(MomentumPGD(early_stop=False), 60, 60),
    "Queried-scores": Case(
        Queried(inner=Square(queries=600), queries=600), 600, 0, slack={"linf": 1.3, "l2": 2.5, "l1": 8.0}
    ),
    "Queried-labels": Case(
        Queried(inner=RayS(queries=1500), answers="labels", queries=1500), 1500, 0, ("linf",)
    ),
    "RayS": Case(RayS(queries=1500), 1500, 0, ("linf",), {"linf": 1.03}),
    "SparsePGD": Case(SparsePGD(steps=60), 61, 61, FEW),
    "SparsePGD-margin-restarts": Case(SparsePGD(objective=margin_loss, steps=30, restarts=3), 93, 93, FEW),
    "SparsePGD-all-steps": Case(SparsePGD(steps=30, early_stop=False), 31, 31, FEW),
    "SparseRS": Case(SparseRS(queries=2000), 2000, 0, FEW, {"l0": 1.5, "l0-elements": 1.5, "patch": 1.5}),
    "SparseRS-all-queries": Case(
        SparseRS(queries=400, early_stop=False), 400, 0, FEW, {"l0": 2, "l0-elements": 2, "patch": 2}
    ),
    "Square": Case(Square(queries=600), 600, 0, slack={"linf": 1.3, "l2": 2.5, "l1": 8.0}),
    "Square-all-queries": Case(
        Square(queries=100, early_stop=False), 100, 0, slack={"linf": 3.0, "l2": 6.0, "l1": 8.0}
    ),
    "Substitute": Case(
        Substitute(samples=12, rounds=3, epochs=12, width=16),
        1 + 12 + 3,
        0,
        slack={"linf": 3.0, "l2": 2.0, "l1": 4.0},
        alone=False,
    ),
    "Transfer": Case(Transfer(inner=APGD(steps=40, early_stop=False)), 43, 43),
    "TargetedAPGD": Case(TargetedAPGD(steps=25, targets=3), 1 + 3 * 28, 3 * 28),
}
EVERY = [(name, norm) for name, case in CASES.items() for norm in case.norms]
# Where the norm is asked nothing, one of each attack's runs in every test run and the others in `make test-slow`.
ONE_NORM = [
    pytest.param(name, norm, marks=[pytest.mark.slow] * (norm != CASES[name].norms[0]))
    for name, norm in EVERY
]
UNSUPPORTED = [(name, norm) for name, case in CASES.items() for norm in ALL if norm not in case.norms]


def streams(examples: int) -> Streams:
    return Streams.seeded(0, torch.arange(examples))


class Convolutional(nn.Module):
    """Random weights; dropout and batch norm, so that a mode or a buffer that changes would show."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(
                nn.Conv2d(2, 8, 3),
                nn.BatchNorm2d(8),
                nn.Tanh(),
                nn.Dropout(0.5),
                nn.Flatten(),
                nn.Linear(128, 5),
            )
            self.layers[-1].weight.data *= 4

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor, nn.Module]:
    network = Convolutional().eval()
    x = torch.rand(6, *SHAPE, generator=rng(1))
    x[:, :, 0] = 0.0  # pixels on both walls of the box
    x[:, :, 1] = 1.0
    return x, network(x).argmax(1).detach(), network


def target(network, **fields) -> Classifier:
    """A classifier whose surrogate is itself, so that `Transfer` has the same answer as its inner attack."""
    return Classifier(network, surrogate=network, **fields)


SMALL = {"linf": 0.05, "l2": 0.5, "l1": 3.0, "l0": 2, "l0-elements": 3, "patch": 2}


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_stays_in_ball_and_box_and_keeps_shape_and_dtype(name, norm, images):
    x, y, network = images
    threat = threat_of(norm, SMALL[norm])
    x_adv = CASES[name].attack.run(target(network, deterministic=True), x, y, threat, generator=rng())
    assert (x_adv.shape, x_adv.dtype, x_adv.device) == (x.shape, x.dtype, x.device)
    assert not x_adv.requires_grad
    assert threat.contains(x_adv, x).all()


@pytest.mark.parametrize(("name", "norm"), ONE_NORM)
def test_moves_nothing_when_epsilon_is_zero(name, norm, images):
    x, y, network = images
    classifier = target(network, deterministic=True)
    x_adv = CASES[name].attack.run(classifier, x, y, threat_of(norm, 0.0), generator=rng())
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("name", CASES)
def test_keeps_double_precision(name):
    norm = CASES[name].norms[0]
    problem = linear_problem(norm, 2, torch.float64)
    x_adv = CASES[name].attack.run(
        problem.classifier(), problem.x, problem.y, threat_of(norm, 0.05), generator=rng()
    )
    assert x_adv.dtype == torch.float64


@pytest.mark.parametrize("name", CASES)
def test_leaves_inputs_network_and_random_state_alone(name, images):
    x, y, network = images
    x, y = x.clone().requires_grad_(), y.clone()
    before_x, before_y = x.detach().clone(), y.clone()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    random_states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    norm = CASES[name].norms[0]
    x_adv = CASES[name].attack.run(target(network), x, y, threat_of(norm, SMALL[norm]), generator=rng())
    assert not x_adv.requires_grad
    assert torch.equal(x.detach(), before_x)
    assert torch.equal(y, before_y)
    assert x.grad is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    if not os.environ.get("UNMASK_SHAPES"):  # the checker of shapes draws from it for the items it looks at
        assert random.getstate() == random_states[0]
    assert (np.random.get_state()[1] == random_states[1]).all()
    assert torch.equal(torch.get_rng_state(), random_states[2])


@pytest.mark.parametrize(("name", "norm"), ONE_NORM)
def test_repeats_itself_for_equal_seeds(name, norm, images):
    x, y, network = images
    run = CASES[name].attack.run
    classifier, threat = target(network, deterministic=True), threat_of(norm, SMALL[norm])
    assert torch.equal(
        run(classifier, x, y, threat, generator=rng(5)), run(classifier, x, y, threat, generator=rng(5))
    )


@pytest.mark.parametrize(("name", "norm"), [one for one in ONE_NORM if CASES[one.values[0]].alone])
def test_an_example_does_not_depend_on_the_rest_of_its_batch(name, norm, images):
    x, y, network = images
    network = network.to(torch.float64)  # so that the summation order of a batch cannot flip a comparison
    x = x.double()
    classifier, threat = target(network, deterministic=True), threat_of(norm, SMALL[norm])
    whole = CASES[name].attack.run(classifier, x, y, threat, generator=streams(len(x)))
    for part in (torch.tensor([0, 1, 2, 3, 4]), torch.tensor([5])):  # the second is a batch of one
        alone = CASES[name].attack.run(classifier, x[part], y[part], threat, generator=streams(len(x))[part])
        torch.testing.assert_close(alone, whole[part], atol=1e-6, rtol=0)
    network.to(torch.float32)


@pytest.mark.parametrize(("name", "norm"), ONE_NORM)
def test_an_empty_batch_is_allowed(name, norm, images):
    x, y, network = images
    x_adv = CASES[name].attack.run(target(network), x[:0], y[:0], threat_of(norm, 0.1), generator=rng())
    assert x_adv.shape == x[:0].shape


@pytest.mark.parametrize("name", CASES)
def test_says_the_declared_cost(name):
    said = CASES[name].attack.cost(5)
    assert (said.forwards + said.estimates, said.estimates) == (CASES[name].forwards, CASES[name].backwards)


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_reaches_the_optimum_of_a_linear_network_at_no_more_than_the_declared_cost(name, norm):
    case, problem = CASES[name], linear_problem(norm)
    for factor, expected in ((case.slack.get(norm, 1.03), True), (0.97, False)):
        threat = threat_of(norm, factor * problem.distance)
        classifier = problem.classifier()
        x_adv = case.attack.run(classifier, problem.x, problem.y, threat, generator=rng())
        assert 0 < classifier.meter.forwards <= case.forwards * len(problem.x)
        assert classifier.meter.backwards <= case.backwards * len(problem.x)
        assert classifier.meter.judge_forwards == 0
        assert (fooled(classifier(x_adv, generator=rng()), problem.y, threat) == expected).all(), factor


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not getattr(c.attack, "targets", 0)])
def test_reaches_a_given_class_when_the_goal_is_targeted(name):
    norm = CASES[name].norms[0]
    problem = linear_problem(norm)
    slack = CASES[name].slack.get(norm, 1.03)
    threat = threat_of(norm, slack * problem.distance, goal="targeted")
    classifier = problem.classifier()
    x_adv = CASES[name].attack.run(classifier, problem.x, 1 - problem.y, threat, generator=rng())
    assert fooled(classifier(x_adv, generator=rng()), 1 - problem.y, threat).all()


@pytest.mark.parametrize("name", CASES)
def test_survives_a_network_that_is_random(name, images):
    x, y, network = images
    norm = CASES[name].norms[0]
    noisy = target(lambda x: network(x + 0.05 * torch.randn_like(x)))
    attack = CASES[name].attack
    if hasattr(attack, "early_stop"):
        attack = replace(attack, early_stop=False)
    threat = threat_of(norm, SMALL[norm])
    assert threat.contains(attack.run(noisy, x, y, threat, generator=rng()), x).all()


@pytest.mark.parametrize("name", CASES)
def test_non_finite_logits_are_no_success_and_no_crash(name, images):
    x, y, _ = images
    norm = CASES[name].norms[0]
    threat = threat_of(norm, SMALL[norm])
    broken = target(lambda x: x.flatten(1)[:, :5] * torch.nan, deterministic=True)
    assert threat.contains(CASES[name].attack.run(broken, x, y, threat, generator=rng()), x).all()


@pytest.mark.parametrize(("name", "norm"), UNSUPPORTED)
def test_says_what_to_use_instead(name, norm, images):
    x, y, network = images
    with pytest.raises(Unsupported, match="use"):
        CASES[name].attack.run(target(network), x, y, threat_of(norm, 0.1), generator=rng())


@pytest.mark.skipif("UNMASK_SHAPES" in os.environ, reason="fields say float, and text is turned into one")
def test_can_be_called_on_plain_tensors():
    problem = linear_problem("linf")
    x_adv = APGD(steps=20)(problem.network, problem.x, problem.y, epsilon=1.03 * problem.distance)
    assert (problem.network(x_adv).argmax(1) != problem.y).all()
    assert torch.equal(PGD()(problem.network, problem.x, problem.y, epsilon="0/255"), problem.x)
    few = SparsePGD(steps=40)(problem.network, problem.x, problem.y, norm="l0", epsilon=3)
    assert ((few != problem.x).any(1).flatten(1).sum(1) <= 3).all()


def test_a_call_on_plain_tensors_refuses_other_ranges_and_modes():
    problem = linear_problem("linf")
    with pytest.raises(UnusableInput, match=r"not in \[0, 1\]"):
        APGD()(problem.network, 255 * problem.x, problem.y, epsilon=0.1)
    with pytest.raises(UnusableInput, match="eval"):
        APGD()(Convolutional().train(), problem.x, problem.y, epsilon=0.1)
