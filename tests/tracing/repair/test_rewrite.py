import pytest
import torch
from tests.tracing.networks import HONEST, LOSING, Wrapped
from tests.tracing.test_analyse import images, suspects
from torch import nn

from unmask.classifier import Classifier
from unmask.gradients import Exact
from unmask.gradients.repaired import Repaired
from unmask.objectives import margin_loss
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import Rewrite


def gradient(network, estimator, x):
    y = network(x).argmax(1)
    classifier = Classifier(network, deterministic=True)
    return estimator.estimate(classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(0)).grad


@pytest.mark.parametrize("name", LOSING)
def test_repair_changes_no_value_and_finds_a_useful_gradient(name):
    step, _, _, inputs = LOSING[name]
    network = Wrapped(step, inputs)
    x = images()
    repairs = propose(suspects(network))
    assert repairs, name
    cosines = []
    for repair in repairs:
        with torch.enable_grad():
            value = Rewritten(network, repair.rewrite)(x.clone().requires_grad_())
        assert torch.equal(value, network(x)), repair.name
        grad = gradient(network, Repaired(repair.rewrite), x).flatten(1)
        assert torch.isfinite(grad).all()
        # Truth: a finite difference at the scale of an attack, along every coordinate.
        truth = coordinate_differences(network, x, 0.15)
        cosines.append(torch.nn.functional.cosine_similarity(grad, truth).mean())
    # Nothing is the truth about a ripple at that scale, and little about winners that come and go.
    assert max(cosines) > {"ripple": -1, "winners": 0.15}.get(name, 0.5), (name, cosines)


def coordinate_differences(network, x, delta):
    y = network(x).argmax(1)
    flat = x.flatten(1)
    out = torch.zeros_like(flat)
    for n in range(flat.shape[1]):
        for shift in (0.5 * delta, delta):
            step = torch.zeros_like(flat)
            step[:, n] = shift
            up = value(network, (flat + step).reshape(x.shape), y)
            down = value(network, (flat - step).reshape(x.shape), y)
            out[:, n] += (up - down) / shift
    return out


def value(network, x, y):
    from unmask.types import Outputs

    return margin_loss(Outputs(network(x)), y)


@pytest.mark.parametrize("name", ["round", "floor method", "in-place round", "byte", "no_grad", "numpy"])
def test_straight_through_equals_the_gradient_without_the_step(name):
    step, _, _, _ = LOSING[name]
    network = Wrapped(step)
    x = images()
    plain = Wrapped(lambda x: x)
    weight = plain.read_out.weight
    logits = network(x)
    y = logits.argmax(1)
    other = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    truth = weight[other] - weight[y]
    repair = propose(suspects(network))[0]
    grad = gradient(network, Repaired(repair.rewrite), x).flatten(1)
    assert torch.nn.functional.cosine_similarity(grad, truth).min() > 0.99 or name == "numpy"


@pytest.mark.parametrize("name", HONEST)
def test_an_empty_rewrite_changes_no_gradient(name):
    network = Wrapped(HONEST[name])
    x = images()
    assert torch.equal(gradient(network, Repaired(Rewrite()), x), gradient(network, Exact(), x))


def test_the_undefended_pass_of_dropped_neurons():
    def pruned(x):
        keep = (x / x.sum(1, keepdim=True) * 8).clamp(0, 1)
        mask = torch.bernoulli(keep)
        return x * mask / keep.clamp_min(1e-6)

    network = Wrapped(pruned)
    repairs = {r.name: r for r in propose(suspects(network))}
    x = images()
    logits = Wrapped(lambda x: x)(x)
    classifier = Classifier(network)
    y = logits.argmax(1)
    est = Repaired(repairs["undefended"].rewrite).estimate(
        classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(0)
    )
    weight = network.read_out.weight
    other = est.outputs.logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    truth = weight[other] - weight[y]
    assert torch.nn.functional.cosine_similarity(est.grad.flatten(1), truth).min() > 0.99


def test_a_function_that_lies_is_differentiated_forwards():
    step = LOSING["function, flipped"][0]
    network = Wrapped(step)
    (repair, *_) = propose(suspects(network))
    x = images()
    doubled = Wrapped(lambda x: x * 2.0)
    assert torch.allclose(gradient(network, Repaired(repair.rewrite), x), gradient(doubled, Exact(), x))


def test_nothing_stays_patched_when_the_network_raises():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    call, from_numpy = nn.Module.__call__, torch.from_numpy
    with pytest.raises(ValueError, match="no"):
        Rewritten(Fails(), Rewrite(heal_cuts=True))(images().requires_grad_())
    assert nn.Module.__call__ is call
    assert torch.from_numpy is from_numpy
