"""An adversary outside sees what the service answers: no logits by labels, no gradient, no more than the limit."""

from dataclasses import dataclass

import pytest
import torch
from tests.attacks.conftest import linear_problem, threat_of

from unmask.attacks import PGD, Attack, Queried, Square, Transfer
from unmask.attacks.queried import Service
from unmask.classifier import Classifier
from unmask.errors import ModelFailed, Unsupported, UnusableInput
from unmask.types import Outputs


def rng():
    return torch.Generator().manual_seed(0)


def sums(x):
    """Three classes and a detector that rejects the darker half."""
    total = x.flatten(1).sum(1)
    return Outputs(torch.stack([total, 2 * total, -total], 1), 1 - total)


@dataclass(frozen=True)
class Greedy(Attack):
    """Asks about every example five times."""

    def run(self, classifier, x, y, threat, *, generator):
        for _ in range(5):
            classifier(x, generator=generator)
        return x


X = torch.tensor([0.25, 3.0])[:, None, None, None]


def test_scores_are_the_deployed_logits_and_whether_it_rejects():
    seen = Service(Classifier(sums, passes=3), "scores")(X, generator=rng())
    torch.testing.assert_close(seen.logits, sums(X).logits)
    assert seen.detector_score.tolist() == [1.0, -1.0]


def test_labels_tell_nothing_else():
    seen = Service(Classifier(sums), "labels")(X, generator=rng())
    assert seen.logits.tolist() == [[0.0, 1.0, 0.0]] * 2
    assert seen.detector_score.tolist() == [1.0, -1.0]


def test_an_answer_that_is_no_number_stays_one():
    seen = Service(Classifier(lambda x: torch.log(-x.flatten(1))), "labels")(X, generator=rng())
    assert not torch.isfinite(seen.logits).any()


def test_no_gradient_and_no_network():
    problem = linear_problem("linf")
    service = Service(problem.classifier(), "scores")
    leaf = problem.x.clone().requires_grad_()
    assert not service(leaf, generator=rng()).logits.requires_grad
    assert service.surrogate is None
    with pytest.raises((Unsupported, ModelFailed), match="sees answers only"):
        service.network(problem.x)
    threat = threat_of("linf", 2 * problem.distance)
    for inner, moves in ((PGD(), False), (Square(queries=300), True)):
        x_adv = Queried(inner=inner).run(problem.classifier(), problem.x, problem.y, threat, generator=rng())
        fools = problem.network(x_adv).argmax(1) != problem.y
        assert bool(fools.all()) == moves
    with pytest.raises(Unsupported, match="needs a surrogate"):
        Queried(inner=Transfer()).run(problem.classifier(), problem.x, problem.y, threat, generator=rng())


def test_a_query_costs_as_many_forwards_as_there_are_passes():
    problem = linear_problem("linf")
    classifier = problem.classifier().replace(passes=3, deterministic=False)
    Queried(inner=Greedy(), queries=5).run(
        classifier, problem.x, problem.y, threat_of("linf", 0.01), generator=rng()
    )
    assert classifier.meter.forwards == 3 * 5 * len(problem.x)
    assert classifier.meter.judge_forwards == 0


@pytest.mark.parametrize(("queries", "refused"), [(5, False), (4, True), (None, False)])
def test_the_query_that_is_one_too_many_is_refused_and_what_was_asked_is_counted(queries, refused):
    problem = linear_problem("linf")
    classifier = problem.classifier()
    run = Queried(inner=Greedy(), queries=queries).run
    args = (classifier, problem.x, problem.y, threat_of("linf", 0.1))
    if refused:
        with pytest.raises(UnusableInput, match=f"more than {4 * len(problem.x)} queries of this batch"):
            run(*args, generator=rng())
        assert classifier.meter.forwards == 4 * len(problem.x)
    else:
        run(*args, generator=rng())
        assert classifier.meter.forwards == 5 * len(problem.x)


def test_it_says_whom_it_runs_and_what_that_one_is_told():
    assert Queried(inner=Square(queries=7)).describe() == "Square-7, told scores"
    assert Queried(inner=Square(queries=7), answers="labels").describe() == "Square-7, told labels"
    assert Queried(inner=Square(queries=7)).cost(4) == Square(queries=7).cost(4)
