"""Carlini-Wagner step by step: torch's own Adam on the paper's objective in tanh space, and its search for c."""

import pytest
import torch
from tests.attacks.curved import curved, follows
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import CarliniWagner
from unmask.errors import Unsupported
from unmask.threat import L2, Linf


def adam(net, x, y, c, confidence, steps):
    """Minimises |delta|^2 + c max(confidence - loss, 0) over w, where x_adv = (tanh w + 1) / 2."""
    loss = margin_loss_of(net, y)
    w = torch.atanh((2 * x - 1).clamp(-1 + 1e-3, 1 - 1e-3)).requires_grad_()
    optimiser = torch.optim.Adam([w], lr=0.05)
    path, nearest, least = [], None, torch.inf
    for _ in range(steps + 1):
        point = (torch.tanh(w) + 1) / 2
        path.append(point.detach())
        distance, value = (point - x).square().sum(), loss(point)
        if (
            float(value.detach()) >= confidence
            and float(value.detach()) > 0
            and float(distance.detach()) < least
        ):
            nearest, least = point.detach(), float(distance.detach())
        optimiser.zero_grad()
        (distance + c * (confidence - value).clamp_min(0)).backward()
        optimiser.step()
    return path, nearest, least


@pytest.mark.parametrize("confidence", [0.0, 0.7])
def test_every_step_and_every_c(confidence):
    net = curved(sharpness=6.0, seed=2)
    attack = CarliniWagner(steps=30, searches=6, initial_c=0.1, confidence=confidence, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, L2(epsilon=50.0), generator=net.streams())
    turns = set()
    for n in range(len(net.x)):
        x, y = net.x[n], int(net.y[n])
        low, high, c, whole, best, least = 0.0, torch.inf, 0.1, [], x, torch.inf
        for _ in range(6):
            path, nearest, distance = adam(net, x, y, c, confidence, 30)
            whole += path
            if nearest is None:
                low = c
            else:
                high = c
                if distance < least:
                    best, least = nearest, distance
            turns.add((nearest is not None, high < torch.inf))
            c = 10 * c if high == torch.inf else (low + high) / 2
        follows(net.asked, n, whole, 1e-7)
        torch.testing.assert_close(found[n], best, rtol=0, atol=1e-6)
    assert turns == {(False, False), (True, True), (False, True)}  # grown, halved down, halved up


def test_who_reaches_the_ball_leaves_and_the_others_walk_on():
    net = curved(sharpness=6.0, seed=2)
    attack, threat = CarliniWagner(steps=30, searches=3, initial_c=1.0), L2(epsilon=0.6)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    left = list(range(len(net.x)))
    paths = {n: adam(net, net.x[n], int(net.y[n]), 1.0, 0.0, 30)[0] for n in left}
    for step, points in enumerate(net.asked[:31]):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], paths[n][step], rtol=0, atol=1e-7)
            wrong = float(margin_loss_of(net, int(net.y[n]))(points[row])) > 0
            if wrong and float((points[row] - net.x[n]).norm()) <= 0.6:
                torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                left.remove(n)
    assert 0 < len(left) < len(net.x)


def test_it_says_what_it_is_and_what_it_cannot():
    assert CarliniWagner(steps=7, searches=2).describe() == "Carlini-Wagner-7, 2 constants"
    assert CarliniWagner(steps=7, searches=2).cost(4).estimates == 16
    net = curved()
    for threat, text in (
        (
            Linf(epsilon=0.1),
            r"minimises the L2 distance, the threat model is Linf; use `APGD\(objective=margin_l",
        ),
        (L2(epsilon=[0.1] * 3 + [0.2]), r"^`CarliniWagner` "),
    ):
        with pytest.raises(Unsupported, match=text):
            CarliniWagner().run(net.classifier(), net.x, net.y, threat, generator=net.streams())
