"""The penalty beside its formula, its effect, and an attack that the effect hides and reduced gain finds."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unmask.attacks import FGSM
from unmask.classifier import Classifier
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.gradients import Exact, LogitScale, ReducedGain
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import Saturated
from unmask.training.saturated import _before_sigmoids, _sharpened, complementary, widen
from unmask.zoo import MLP

RECIPE = Saturated(epochs=60, batch_size=64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(activation=nn.Sigmoid):
    return MLP((64, 50, 50, 50, 10), activation=activation)


def test_complementary_functions_are_the_papers():
    z = torch.tensor([-2.0, 0.0, 3.0])
    slope = torch.exp(-z) / (1 + torch.exp(-z)) ** 2
    torch.testing.assert_close(complementary(nn.Sigmoid(), z), slope)
    assert complementary(nn.ReLU(), z).tolist() == [0.0, 0.0, 3.0]


# Per activation: the recipe, and the estimators of which one must find what the exact gradient does not.
RELU = Saturated(epochs=20, batch_size=64, gain=12.0, reach=1.0, first_strength=1e-7, strength=1e-5)
SHARP = Saturated(
    epochs=20, batch_size=64, gain=2.0, reach=1.0, strength=1e-3, sharpening=1e4, learning_rate=3e-3
)
CASES = {
    nn.Sigmoid: (SHARP, [ReducedGain(g) for g in (1e-3, 3e-4, 1e-4)]),
    nn.ReLU: (RELU, [LogitScale(scale=s) for s in (1e-2, 1e-3)]),
}


@pytest.mark.parametrize("activation", CASES)
def test_saturation_hides_the_gradient_from_fgsm_but_not_from_reduced_gain(activation):
    recipe, stable_estimators = CASES[activation]
    test = load("digits", split="test")
    saturated = network(activation)
    recipe.fit(saturated, load("digits", split="train"), None, generator=generator())
    classifier, threat = Classifier(saturated, deterministic=True), Linf(epsilon=0.25)

    def accuracy(gradient):
        streams = Streams.seeded(0, test.index, "fgsm")
        x_adv = FGSM(gradient=gradient).run(classifier, test.x, test.y, threat, generator=streams)
        return float((saturated(x_adv).argmax(1) == test.y).float().mean())

    clean = float((saturated(test.x).argmax(1) == test.y).float().mean())
    naive, stable = accuracy(Exact()), min(map(accuracy, stable_estimators))
    assert clean > 0.8, (clean, naive, stable)
    assert naive > stable + 0.1, (clean, naive, stable)
    assert stable < 0.1, (clean, naive, stable)


def test_sharpened_sigmoids_keep_their_slope_and_end_in_the_weights():
    torch.manual_seed(0)
    made, x = network(), torch.rand(5, 1, 8, 8)
    first = made.layers[1]
    z = first(x.flatten(1)).detach().requires_grad_()
    with _sharpened(made, 50.0):
        inner, sharp = made.layers[2](z), made(x)
    torch.testing.assert_close(inner, torch.sigmoid(50 * z))
    (slope,) = torch.autograd.grad(inner.sum(), z)
    torch.testing.assert_close(slope, complementary(nn.Sigmoid(), z))
    with torch.no_grad():
        for layer in _before_sigmoids(made):
            layer.weight *= 50
            layer.bias *= 50
    torch.testing.assert_close(made(x), sharp)


def test_interrupted_training_ends_where_whole_training_does(tmp_path):
    data = load("digits", split="train", examples=320)
    recipe, file = replace(SHARP, epochs=4), tmp_path / "checkpoint.safetensors"

    class Stopped(Exception):
        pass

    def stop(history):
        if len(history.epochs) == 2:
            raise Stopped

    whole, resumed = network(), network()
    recipe.fit(whole, data, None, generator=generator())
    with pytest.raises(Stopped):
        recipe.fit(network(), data, None, generator=generator(), checkpoint=file, progress=stop)
    recipe.fit(resumed, data, None, generator=generator(), checkpoint=file)
    for name, t in whole.state_dict().items():
        assert torch.equal(t, resumed.state_dict()[name]), name


def test_unusable_input_is_named():
    with pytest.raises(UnusableInput, match=r"reach=0\.5"):
        Saturated(reach=0.5)
    with pytest.raises(UnusableInput, match=r"sharpening=0\.5"):
        Saturated(sharpening=0.5)
    with pytest.raises(UnusableInput, match="strength=-1"):
        Saturated(strength=-1.0)
    with pytest.raises(UnusableInput, match="first_strength=0"):
        Saturated(first_strength=0.0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UnusableInput, match=r"no nn\.Sigmoid"):
        RECIPE.fit(linear, load("digits", split="train"), None, generator=generator())


def test_widen_draws_by_glorots_rule():
    made = nn.Linear(300, 500)
    widen(made, 3.0, generator=generator())
    assert float(made.weight.detach().std()) == pytest.approx(3 * (2 / 800) ** 0.5, rel=0.02)
    assert not made.bias.any()
