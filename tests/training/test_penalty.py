"""The penalty alone: its gradient beside the loss's, and what it does to units, weights and FGSM."""

import pytest
import torch
from torch import nn

from unmask.attacks import FGSM
from unmask.classifier import Classifier
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.gradients import Exact, ReducedGain
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import Penalised
from unmask.zoo import MLP


def network(activation=nn.Sigmoid):
    return MLP((64, 30, 30, 10), activation=activation)


def generator():
    return torch.Generator().manual_seed(0)


def test_a_step_follows_both_gradients_tensor_by_tensor():
    """One step of Adam from zero moments is the sign of the gradient: beside both terms by hand."""
    data = load("digits", split="train", examples=64)
    recipe = Penalised(epochs=1, batch_size=64, pull=3.0, alone=0.0, gain=None, learning_rate=1e-3)
    trained, own = network(), network()
    own.load_state_dict(trained.state_dict())
    own.double()
    z = []
    hooks = [
        m.register_forward_pre_hook(lambda m, i: z.append(i[0]))
        for m in own.modules()
        if isinstance(m, nn.Sigmoid)
    ]
    loss = nn.functional.cross_entropy(own(data.x.double()), data.y)
    flat = sum((torch.sigmoid(a) * torch.sigmoid(-a)).sum(1).mean() for a in z)
    assert len(hooks) == 2
    parameters = list(own.parameters())
    slopes = torch.autograd.grad(loss, parameters, retain_graph=True)
    pulls = torch.autograd.grad(flat, parameters, allow_unused=True)
    before = [p.detach().clone() for p in trained.parameters()]
    recipe.fit(trained, data, None, generator=generator())
    for start, p, slope, pull in zip(before, trained.parameters(), slopes, pulls, strict=True):
        total = slope if pull is None else slope + 3.0 * slope.norm() / pull.norm() * pull
        torch.testing.assert_close(p.detach() - start, (-1e-3 * total.sign()).float(), rtol=1e-3, atol=1e-6)
        assert p.dtype == torch.float32


def test_the_penalty_saturates_what_learning_alone_does_not():
    train, test = load("digits", split="train"), load("digits", split="test")
    said = {}
    for pull in (0.0, 0.6):
        trained = network()
        with torch.random.fork_rng([]):
            Penalised(epochs=30, batch_size=64, pull=pull).fit(trained, train, None, generator=generator())
        classifier = Classifier(trained, deterministic=True)
        threat, streams = Linf(epsilon=0.15), Streams.seeded(0, test.index, "fgsm")

        def right(gradient, trained=trained, classifier=classifier, threat=threat, streams=streams):
            x_adv = FGSM(gradient=gradient).run(classifier, test.x, test.y, threat, generator=streams)
            return float((trained(x_adv).argmax(1) == test.y).double().mean())

        seen = []
        for module in trained.modules():
            if isinstance(module, nn.Sigmoid):
                module.register_forward_hook(lambda m, i, out: seen.append((out * (1 - out)).mean().item()))
        clean = float((trained(test.x).argmax(1) == test.y).double().mean())
        said[pull] = (clean, sum(seen[:2]), right(Exact()), right(ReducedGain(0.1)))
    assert min(said[0.0][0], said[0.6][0]) > 0.85
    assert said[0.6][1] < 0.2 * said[0.0][1]  # units are flat
    assert said[0.6][3] < said[0.6][2]  # and a reduced gain sees more


def test_it_goes_on_behind_a_checkpoint(tmp_path):
    data = load("digits", split="train", examples=256)
    recipe = Penalised(epochs=2, batch_size=64)
    whole, parted = network(), network()
    parted.load_state_dict(whole.state_dict())
    recipe.fit(whole, data, None, generator=generator(), validation=data)
    file = tmp_path / "checkpoint.safetensors"

    class Stopped(Exception):
        pass

    def stop(history):
        raise Stopped

    with pytest.raises(Stopped):
        recipe.fit(parted, data, None, generator=generator(), validation=data, checkpoint=file, progress=stop)
    assert next(parted.parameters()).dtype == torch.float32
    recipe.fit(parted, data, None, generator=generator(), validation=data, checkpoint=file)
    for a, b in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_is_refused():
    with pytest.raises(UnusableInput, match="pull=-1"):
        Penalised(pull=-1)
    with pytest.raises(UnusableInput, match=r"alone=1\.5; give a share"):
        Penalised(alone=1.5)
    with pytest.raises(UnusableInput, match=r"no nn\.Sigmoid and no nn\.ReLU"):
        Penalised().fit(network(nn.Tanh), load("digits", split="train"), None, generator=generator())
