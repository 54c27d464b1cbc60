"""Networks that run and that autograd refuses: the same values, and the gradient of what was computed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.diagnostics import preflight
from unmask.randomness import Streams
from unmask.threat import Linf

WEIGHT = torch.randn(3, 36, generator=torch.Generator().manual_seed(0))


def logits(x):
    return x.flatten(1) @ WEIGHT.T


def standardised(x):
    x = x.clone()
    x -= x.mean((1, 2, 3), keepdim=True)
    x /= x.std((1, 2, 3), keepdim=True) + 0.1
    return logits(x)


def standardised_elsewhere(x):
    centred = x - x.mean((1, 2, 3), keepdim=True)
    return logits(centred / (centred.std((1, 2, 3), keepdim=True) + 0.1))


def squashed(x):
    h = torch.sigmoid(4 * x)
    return logits(h.mul_(2).sub_(1))


def squashed_elsewhere(x):
    return logits(torch.sigmoid(4 * x) * 2 - 1)


def shares(x):
    e = logits(x).exp()
    e /= e.sum(1, keepdim=True)
    return e.add_(1e-9).log()


def shares_elsewhere(x):
    e = logits(x).exp()
    return (e / e.sum(1, keepdim=True) + 1e-9).log()


class Counted(nn.Module):
    """A buffer that is written to behind its use."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((1,), 2.0))

    def forward(self, x):
        y = x * self.scale
        self.scale.add_(0.0)
        return logits(y)


def doubled(x):
    return logits(2 * x)


def written(x):
    y = x.square()
    y[:, :, 0] = 0
    z = y * y
    y[:, :, 1] = 0
    return logits(z + y)


def written_elsewhere(x):
    rows = torch.arange(6)[None, None, :, None]
    y = x.square() * (rows > 0)
    return logits(y * y + y * (rows > 1))


def brightest(x):
    y = x.clone()
    for image in y:
        image.div_(image.max())
    return logits(y)


def brightest_by_unbind(x):
    y = x.clone()
    for image in torch.unbind(y, dim=0):
        image /= image.amax()
    return logits(y)


def brightest_elsewhere(x):
    return logits(x / x.amax((1, 2, 3), keepdim=True))


def halves(split):
    def network(x):
        y = x * 1
        a, b = split(y)
        a += b.square()
        return logits(y)

    return network


def rows_elsewhere(x):
    a, b = x[:, :, :3], x[:, :, 3:]
    return logits(torch.cat([a + b.square(), b], 2))


def columns_elsewhere(x):
    a, b = x[..., :3], x[..., 3:]
    return logits(torch.cat([a + b.square(), b], 3))


class Weighted(nn.Module):
    """A weight that is written to in each pass."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, x):
        self.scale.clamp_(1.0, 2.0)
        return logits(x * self.scale)


with torch.inference_mode():
    TWO = torch.full((1, 1, 6, 6), 2.0)


def of_inference_mode(x):
    return logits(x * TWO)


REFUSED = {
    "a weight written to": (Weighted(), doubled),
    "a tensor of inference mode": (of_inference_mode, doubled),
    "a standard deviation of what is divided in place": (standardised, standardised_elsewhere),
    "a sigmoid scaled in place": (squashed, squashed_elsewhere),
    "exponentials divided in place": (shares, shares_elsewhere),
    "a buffer written to": (Counted(), doubled),
    "rows written to": (written, written_elsewhere),
    "images of a batch": (brightest, brightest_elsewhere),
    "torch.unbind": (brightest_by_unbind, brightest_elsewhere),
    "chunk": (halves(lambda y: y.chunk(2, 2)), rows_elsewhere),
    "torch.chunk, by name": (halves(lambda y: torch.chunk(input=y, chunks=2, dim=-1)), columns_elsewhere),
    "split": (halves(lambda y: y.split(3, dim=3)), columns_elsewhere),
    "torch.split": (halves(lambda y: torch.split(y, [3, 3], 2)), rows_elsewhere),
    "tensor_split": (halves(lambda y: y.tensor_split(2, -2)), rows_elsewhere),
    "torch.dsplit": (halves(lambda y: torch.dsplit(y, 2)), rows_elsewhere),
    "hsplit of an image": (
        lambda x: torch.cat([halves(lambda y: y.transpose(1, 2).hsplit(2))(one) for one in x.split(1)]),
        rows_elsewhere,
    ),
}
OTHER_WORDS = {
    "a weight written to": "a leaf Variable that requires grad is being used in an in-place operation",
    "a tensor of inference mode": "Inference tensors cannot be saved for backward",
}
X = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
Y = torch.tensor([0, 1, 2, 0])


def gradient(classifier, x=X):
    leaf = x.clone().requires_grad_()
    found = classifier(leaf, generator=Streams.seeded(0, torch.arange(len(x)), "test")).logits
    return found.detach(), classifier.gradient(F.cross_entropy(found, Y[: len(x)], reduction="none"), leaf)


@pytest.mark.parametrize("name", REFUSED)
def test_what_autograd_refuses_has_the_gradient_of_what_was_computed(name):
    network, elsewhere = REFUSED[name]
    classifier = Classifier(network, deterministic=True)
    with pytest.raises(Exception, match=OTHER_WORDS.get(name, "inplace")):
        gradient(classifier)
    values, found = gradient(classifier.replace(undisturbed=True))
    with torch.no_grad():
        deployed = network(X.clone())
    torch.testing.assert_close(values, deployed, rtol=0, atol=0)
    torch.testing.assert_close(found, gradient(Classifier(elsewhere, deterministic=True))[1])


@pytest.mark.parametrize("name", REFUSED)
def test_preflight_finds_a_way_and_says_so(name):
    network, _ = REFUSED[name]
    with torch.no_grad():
        y = network(X.clone()).argmax(1)
    found = preflight(
        Classifier(network),
        X,
        y,
        threat=Linf(epsilon=0.05),
        generator=Streams.seeded(0, torch.arange(4), "preflight"),
    )
    assert found.gradient_available
    assert found.undisturbed
    assert not found.batch_dependent
    assert sum("autograd refuses the network as it is" in line for line in found.warnings) == 1


@pytest.mark.parametrize("network", [rows_elsewhere, brightest_elsewhere, nn.Flatten()])
def test_other_networks_are_left_alone(network):
    found = preflight(
        Classifier(network),
        X,
        network(X).argmax(1),
        generator=Streams.seeded(0, torch.arange(4), "preflight"),
    )
    assert not found.undisturbed
    assert not any("refuses" in line for line in found.warnings)


def test_an_attack_follows_it():
    classifier = Classifier(standardised, deterministic=True, undisturbed=True)
    y = standardised(X).argmax(1)
    streams = Streams.seeded(0, torch.arange(4), "attack")
    found = PGD(steps=20).run(classifier, X, y, Linf(epsilon=0.3), generator=streams)
    assert (standardised(found).argmax(1) != y).all()


def test_nothing_is_kept_apart_where_no_gradient_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch, "clone", None)
    with torch.no_grad():
        values = Classifier(halves(lambda y: y.chunk(2, 2)), deterministic=True, undisturbed=True)(
            X, generator=Streams.seeded(0, torch.arange(4), "test")
        )
    torch.testing.assert_close(values.logits, rows_elsewhere(X))
