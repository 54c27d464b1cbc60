"""What runs only where an attack comes to: a branch for inputs of low confidence, in several spellings."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.remedies import candidates
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.elsewhere import with_other_ways
from unmask.tracing.repair.rules import PassThrough, Rewrite, Smooth

X = torch.as_tensor(load_digits().data[:400] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
Y = torch.as_tensor(load_digits().target[:400])
BALL = Linf(0.1)


def ridge():
    a = torch.cat([X.flatten(1), torch.ones(len(X), 1)], 1).double()
    target = 10 * torch.nn.functional.one_hot(Y, 10).double()
    return torch.linalg.solve(a.T @ a + torch.eye(65), a.T @ target).float()


WEIGHT = ridge()


def scores(x):
    return x.flatten(1) @ WEIGHT[:-1] + WEIGHT[-1]


def coarse(x):
    return scores(torch.round(4 * x) / 4)


def unsure(z):
    return z.softmax(1).amax(1) < 0.9


class Net(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def one_by_one(x):
    return torch.cat([coarse(i[None]) if unsure(scores(i[None])).item() else scores(i[None]) for i in x])


def by_index(x):
    z = scores(x).clone()
    hard = unsure(z)
    if hard.any():
        z[hard] = coarse(x[hard])
    return z


def by_float(x):
    rows = []
    for i in x:
        z = scores(i[None])
        rows.append(coarse(i[None]) if z.softmax(1).max().item() < 0.9 else z)
    return torch.cat(rows)


def by_mask(x):
    z = scores(x)
    return torch.where(unsure(z)[:, None], coarse(x), z)


def whole_batch(x):
    z = scores(x)
    return coarse(x) if unsure(z).any() else z


def guarded(x):
    if unsure(scores(x)).any():
        x = x * 0.99
    return scores(x)


def sure_and_not():
    """Images of which the network is sure, and points on the way to another class where it is not."""
    sure = scores(X).softmax(1).amax(1).sort(descending=True).indices[:8]
    other = torch.stack([X[Y[n] != Y][0] for n in sure])
    points = X[sure].lerp(other, 0.5)
    assert not unsure(scores(X[sure])).any()
    assert unsure(scores(points)).sum() >= 4
    return X[sure], Y[sure], points


def analysed(answer, batch_size=16):
    x, y, points = sure_and_not()
    classifier, streams = Classifier(Net(answer), deterministic=True), Streams.seeded(0, torch.arange(8))
    found = analyse(classifier, x, y, BALL, seed=0, generator=streams)
    return found, with_other_ways(
        found, classifier, x, points, y, BALL, batch_size=batch_size, seed=0, generator=streams
    )


@pytest.mark.parametrize("batch_size", [16, 1])
@pytest.mark.parametrize("answer", [one_by_one, by_index, by_float, by_mask, whole_batch])
def test_a_branch_that_no_image_takes_is_analysed_where_it_is_taken(answer, batch_size):
    clean, both = analysed(answer, batch_size)
    assert "round" not in {s.group[0] for s in clean.suspects}
    assert "round" in {s.group[0] for s in both.everywhere}
    entrants = candidates(both, BALL, deterministic=True, detector=False, draws=1)
    ruled = {g[0] for e in entrants for g in getattr(getattr(e.gradient, "rewrite", None), "rules", {})}
    assert "round" in ruled


def test_an_honest_branch_gives_no_suspect_and_no_branch_no_second_analysis():
    both = analysed(guarded)[1]
    assert not both.everywhere
    assert analysed(scores)[1].elsewhere is None
    assert analysed(coarse)[1].elsewhere is None  # it rounds everywhere


def test_a_repair_of_two_places_does_both():
    here, there = ("round", "a.py", 1), ("sign", "a.py", 9)
    one = Rewrite({here: PassThrough()}, heal_cuts=True)
    two = Rewrite({there: Smooth(0.1), here: Smooth(0.5)}, soften=1.0)
    both = one.and_(two)
    assert both.rules == {here: PassThrough(), there: Smooth(0.1)}
    assert both.heal_cuts
    assert both.soften == 1.0
