"""The trainer beside the optimum of a convex problem, beside itself interrupted, and on digits."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from unmask.data import Data, load
from unmask.errors import UnusableInput
from unmask.threat import Linf
from unmask.training import Standard
from unmask.training.augmentation import mirrored, shifted
from unmask.zoo import CNN

RECIPE = Standard(epochs=4, batch_size=32, learning_rate=0.1, pad=1, mirror=False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, build=lambda: CNN(8)):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()


@pytest.fixture(scope="module")
def digits():
    return load("digits", split="train", examples=320)


def test_shift_moves_by_whole_pixels_and_reflects():
    x = torch.arange(36.0).view(1, 1, 6, 6).expand(300, 1, 6, 6)
    out = shifted(x, 2, generator=generator())
    padded = nn.functional.pad(x[:1], (2,) * 4, mode="reflect")
    windows = {
        tuple(padded[0, 0, i : i + 6, j : j + 6].flatten().tolist()) for i in range(5) for j in range(5)
    }
    assert {tuple(o.flatten().tolist()) for o in out} == windows  # all 25 of them, and nothing else


def test_mirror_turns_half_of_the_images():
    x = torch.rand(400, 3, 4, 4, generator=generator(1))
    out = mirrored(x, generator=generator())
    turned = (out == x.flip(3)).flatten(1).all(1)
    same = (out == x).flatten(1).all(1)
    assert (turned ^ same).all()
    assert 150 < int(turned.sum()) < 250


def test_rate_rises_then_falls_to_zero():
    recipe = Standard(learning_rate=0.4, warmup=0.25)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.4)
    assert rates.index(max(rates)) == 24
    assert rates[:25] == sorted(rates[:25])
    assert rates[24:] == sorted(rates[24:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_epsilon_rises_over_the_ramp_and_stays(digits):
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Standard):
        hardens = True

        def learn(self, run, x, y):
            seen.append(run.threat.epsilon)
            return super().learn(run, x, y)

    fields = {"epochs": 1, "batch_size": 32, "learning_rate": 0.1, "pad": 0}
    for ramp, expected in ((0.5, [0.04, 0.08, 0.12, 0.16] + [0.2] * 6), (0.0, [0.2] * 10)):
        seen.clear()
        Watching(**fields, ramp=ramp).fit(network(), digits, Linf(epsilon=0.2), generator=generator())
        assert seen == pytest.approx(expected)
    with pytest.raises(UnusableInput, match=r"ramp=1.5; give a share"):
        Standard(ramp=1.5)


def test_reaches_the_optimum_of_ridge_regressions_cousin():
    """Logistic regression with decay is convex: at its optimum the gradient is zero."""
    x = torch.rand(256, 1, 2, 2, generator=generator(2))
    y = (x[:, 0, 0, 0] + 0.3 * torch.randn(256, generator=generator(3)) > 0.5).long()
    data = Data(x, y, "toy", "train", torch.arange(256))
    linear = network(0, lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    recipe = Standard(epochs=60, batch_size=256, learning_rate=2.0, weight_decay=0.01, pad=0, mirror=False)
    recipe = replace(recipe, average=0.9)
    recipe.fit(linear, data, None, generator=generator())
    assert not linear.training
    loss = nn.functional.cross_entropy(linear(x), y) + 0.005 * linear[1].weight.square().sum()
    gradients = torch.autograd.grad(loss, list(linear.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 2e-3


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_interrupted_training_ends_where_whole_training_does(momentum, digits, tmp_path):
    recipe = replace(RECIPE, momentum=momentum)
    whole = network()
    history = recipe.fit(whole, digits, None, generator=generator())
    assert len(history.epochs) == 4

    class Stopped(Exception):
        pass

    def stop(history):
        if len(history.epochs) == 2:
            raise Stopped

    file = tmp_path / "deep" / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        recipe.fit(network(), digits, None, generator=generator(), checkpoint=file, progress=stop)
    resumed = network(7)  # whatever it starts from, the checkpoint replaces it
    continued = recipe.fit(resumed, digits, None, generator=generator(), checkpoint=file)
    assert [e.loss for e in continued.epochs] == [e.loss for e in history.epochs]
    for name, t in whole.state_dict().items():
        assert torch.equal(t, resumed.state_dict()[name]), name


def test_same_seed_same_weights_and_no_trace_in_global_state(digits):
    state = torch.random.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        net = network()
        replace(RECIPE, epochs=1).fit(net, digits, None, generator=generator(seed))
        runs.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(state, torch.random.get_rng_state())


def test_learns_digits():
    data, test = load("digits", split="train"), load("digits", split="test")
    net = network()
    replace(RECIPE, epochs=12).fit(net, data, None, generator=generator())
    accuracy = float((net(test.x).argmax(1) == test.y).float().mean())
    assert accuracy > 0.95  # guessing: 0.1


def test_what_stays_is_the_moving_average_of_the_weights(digits):
    """Written out: decay as asked for, but never longer than the steps so far allow."""
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Standard):
        def learn(self, run, x, y):
            out = super().learn(run, x, y)
            seen.append({name: t.detach().clone() for name, t in run.network.state_dict().items()})
            return out

    for decay in (0.9, 0.0):
        seen.clear()
        found = network()
        mean = {name: t.clone() for name, t in found.state_dict().items()}
        recipe = Watching(epochs=2, batch_size=32, learning_rate=0.1, pad=0, mirror=False, average=decay)
        recipe.fit(found, digits, None, generator=generator())
        assert len(seen) == 20
        for step, weights in enumerate(seen, start=1):
            kept = min(decay, step / (step + 9))
            mean = {name: kept * t + (1 - kept) * weights[name] for name, t in mean.items()}
        for name, t in found.state_dict().items():
            assert torch.allclose(t, mean[name], atol=1e-6), name


def test_batch_statistics_are_averaged_too():
    net = network(0, lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)))
    data = load("digits", split="train", examples=320)
    replace(RECIPE, epochs=10, pad=0).fit(net, data, None, generator=generator())
    assert float(net[0].running_mean) == pytest.approx(float(data.x.mean()), abs=0.02)


def test_unusable_input_is_named(digits, tmp_path):
    with pytest.raises(UnusableInput, match="epochs=0"):
        Standard(epochs=0)
    with pytest.raises(UnusableInput, match="batch_size=1000"):
        Standard(batch_size=1000).fit(network(), digits, None, generator=generator())
    broken = tmp_path / "checkpoint.safetensors"
    broken.write_bytes(b"no such thing")
    with pytest.raises(UnusableInput, match="no checkpoint"):
        RECIPE.fit(network(), digits, None, generator=generator(), checkpoint=broken)
