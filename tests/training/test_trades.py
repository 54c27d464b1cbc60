"""The divergence beside torch's own, and one step of TRADES beside one by hand."""

import torch
from torch.distributions import Categorical, kl_divergence

from unmask.attacks import FGSM, PGD
from unmask.threat import Linf
from unmask.training import TRADES
from unmask.training.trades import Divergence, divergence
from unmask.types import Outputs

from .conftest import PLAIN, descent_by_hand, flat, seed, small_network


def test_divergence_is_kullback_and_leiblers():
    p, q = torch.randn(2, 6, 5, generator=seed()).double()
    truth = kl_divergence(Categorical(logits=p), Categorical(logits=q))
    assert torch.allclose(divergence(p, q), truth)
    objective = Divergence(p)
    assert torch.allclose(objective(Outputs(q), torch.zeros(6).long()), truth)
    kept = torch.tensor([4, 1])
    assert torch.allclose(objective.take(kept)(Outputs(q[kept]), torch.zeros(2).long()), truth[kept])


def test_one_step_by_hand(few):
    """At the example itself the divergence is zero and has no slope; elsewhere it counts `beta` times."""
    still = FGSM(rel_step_size=0.0)
    moved = PGD(steps=5, rel_step_size=0.5, early_stop=False, last=True)
    options = PLAIN | {"epochs": 1, "batch_size": 96, "momentum": 0.0, "weight_decay": 0.0, "average": 0.0}
    truth = small_network()
    loss = torch.nn.functional.cross_entropy(truth(few.x), few.y)
    recipe = TRADES(**options, warmup=1.0, attack=still)
    found = small_network()
    history = recipe.fit(found, few, Linf(epsilon=0.1), generator=seed())
    descent_by_hand(truth, torch.autograd.grad(loss, list(truth.parameters())), 0.1)
    assert torch.allclose(flat(found), flat(truth), atol=1e-6)
    assert abs(history.epochs[0].loss - loss.item()) < 1e-5
    losses = [
        TRADES(**options, beta=beta, attack=moved)
        .fit(small_network(), few, Linf(epsilon=0.1), generator=seed())
        .epochs[0]
        .loss
        for beta in (0.0, 1.0, 6.0)
    ]
    gap = losses[1] - losses[0]  # the divergence itself: same network, same randomness
    assert abs(losses[0] - loss.item()) < 1e-5
    assert gap > 1e-3
    assert abs((losses[2] - losses[0]) / gap - 6) < 1e-3


def test_a_seed_is_repeated_whatever_was_drawn_before(few):
    """Run twice, the reproduction's TRADES once came to two networks."""
    found = []
    for before in (0, 7):
        network = small_network()
        torch.manual_seed(before)
        recipe = TRADES(**(PLAIN | {"epochs": 2}))
        recipe.fit(network, few, Linf(epsilon=0.1), generator=seed())
        found.append(flat(network))
    assert torch.equal(*found)
