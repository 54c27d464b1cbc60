"""Random defences beside what they must be in expectation, on networks whose answer is known."""

import pytest
import torch
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.defenses import (
    SAP,
    CropEnsemble,
    InputNoise,
    PixelDrop,
    RandomizedSmoothing,
    RandomMember,
    RandomResizePad,
    TestTimeDropout,
    WeightNoise,
)
from unmask.errors import Unsupported, UnusableInput
from unmask.gradients import BPDA, EOT
from unmask.threat import Linf


class Echo(nn.Module):
    """Logits are the pixels themselves: shows what a transformation of the input did."""

    def forward(self, x):
        return x.flatten(1)


class Small(nn.Module):
    """Global pooling, so that any size will do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def small():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Small().eval()


@pytest.fixture
def x():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def every(small):
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        others = [Small().eval(), Small().eval()]
    return [
        SAP(passes=4),
        InputNoise(),
        WeightNoise(),
        RandomResizePad(largest=1.5),
        CropEnsemble(share=0.5, passes=4),
        PixelDrop(rate=0.4),
        TestTimeDropout(rate=0.4),
        RandomMember(others=others),
        RandomizedSmoothing(sigma=3.0, passes=4),
    ]


@pytest.mark.parametrize("number", range(9))
def test_contract(number, small, x):
    defense = every(small)[number]
    plain = Classifier(small, deterministic=True)
    weights = {name: w.clone() for name, w in small.state_dict().items()}
    state = torch.random.get_rng_state()
    defended = defense.wrap(plain)
    outs = [defended(x, generator=generator(seed)).logits for seed in (0, 1, 2, 3, 4, 5)]
    assert all(o.shape == (6, 5) for o in outs)
    assert torch.equal(outs[0], defended(x, generator=generator(0)).logits)  # repeatable
    assert any(not torch.equal(outs[0], o) for o in outs[1:])  # random
    assert torch.equal(state, torch.random.get_rng_state())  # and nobody else's randomness
    assert all(torch.equal(w, weights[name]) for name, w in small.state_dict().items())
    assert defended.passes == defense.passes
    assert not defended.deterministic
    assert not defended.network.training
    assert plain.network is small
    # Every repair can be an attack's gradient.
    y = torch.arange(6) % 5
    for gradient in (EOT(draws=2), BPDA()):
        attack = PGD(steps=2, gradient=gradient, early_stop=False)
        x_adv = attack.run(defended, x, y, Linf(epsilon=0.1), generator=generator())
        assert Linf(epsilon=0.1).contains(x_adv, x).all()


def test_input_noise_is_gaussian_of_the_stated_size(x):
    defended = InputNoise(sigma=0.3).wrap(Classifier(Echo()))
    noise = torch.stack(
        [defended(x, generator=generator(s)).logits - x.flatten(1) for s in range(200)]
    ).flatten()
    assert float(noise.mean()) == pytest.approx(0, abs=0.003)  # standard error 0.0006
    assert float(noise.std()) == pytest.approx(0.3, rel=0.01)
    assert float((noise.abs() > 0.6).float().mean()) == pytest.approx(0.0455, abs=0.003)


def test_weight_noise_of_a_linear_layer(x):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    defended = WeightNoise(strength=0.5).wrap(Classifier(linear))
    outs = torch.stack([defended(x[:1], generator=generator(s)).logits[0] for s in range(1500)]).detach()
    plain = linear(x[:1])[0].detach()
    sigma = float(
        0.5 * linear[1].weight.detach().std() * x[0].norm()
    )  # a weighted sum of independent normal numbers
    torch.testing.assert_close(outs.std(0), torch.full((5,), sigma), rtol=0.08, atol=0)
    assert float((outs.mean(0) - plain).abs().max()) < 4 * sigma / 1500**0.5


def test_weight_noise_needs_a_module():
    with pytest.raises(Unsupported, match="function"):
        WeightNoise().wrap(Classifier(lambda x: x.flatten(1)))


def test_resized_and_padded_image_keeps_its_pixels():
    defended = RandomResizePad(smallest=1.0, largest=2.0).wrap(Classifier(Echo()))
    image = torch.full((1, 1, 8, 8), 0.5)
    sizes, corners = set(), set()
    for seed in range(200):
        out = defended(image, generator=generator(seed)).logits.view(16, 16)
        filled = out.nonzero()
        top, left = filled.min(0).values.tolist()
        height, width = (filled.max(0).values - filled.min(0).values + 1).tolist()
        assert height == width
        assert int((out > 0).sum()) == height * width  # one square, the rest zero
        sizes.add(height)
        corners.add((top, left))
    assert sizes == set(range(8, 16))
    assert len(corners) > 30


def test_crops_are_windows_of_the_image():
    ramp = torch.arange(64.0).view(1, 1, 8, 8) / 64
    defended = CropEnsemble(share=0.5).wrap(Classifier(Echo()))
    means = {round(float(defended(ramp, generator=generator(s)).logits.mean()) * 64, 3) for s in range(400)}
    windows = {
        round(float(ramp[..., t : t + 4, c : c + 4].mean()) * 64, 3) for t in range(5) for c in range(5)
    }
    assert means == windows  # rescaling by two keeps the mean of a ramp
    whole = CropEnsemble(share=1.0).wrap(Classifier(Echo()))
    torch.testing.assert_close(whole(ramp, generator=generator()).logits, ramp.flatten(1))


def test_pixel_drop_takes_all_channels_at_its_rate():
    image = torch.ones(50, 3, 8, 8)
    out = PixelDrop(rate=0.3).wrap(Classifier(Echo()))(image, generator=generator()).logits.view(50, 3, 8, 8)
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(out[:, 0], out[:, 2])
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.03)  # standard error 0.008


def test_dropout_stays_on_in_eval_mode_and_keeps_the_mean():
    network = nn.Sequential(nn.Flatten(), nn.ReLU()).eval()
    image = torch.ones(40, 1, 8, 8)
    out = TestTimeDropout(rate=0.25).wrap(Classifier(network))(image, generator=generator()).logits
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert float(out.mean()) == pytest.approx(1.0, abs=0.05)


def test_a_random_member_answers(x):
    members = [nn.Sequential(nn.Flatten(), nn.Linear(192, 5)) for _ in range(3)]
    defended = RandomMember(others=members[1:]).wrap(Classifier(members[0]))
    truth = [m(x) for m in members]
    counts = [0, 0, 0]
    for seed in range(300):
        out = defended(x, generator=generator(seed)).logits
        counts[[torch.equal(out, t) for t in truth].index(True)] += 1
    assert min(counts) > 70
    torch.testing.assert_close(defended.surrogate(x), sum(truth) / 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InputNoise(sigma=-1),
        lambda: WeightNoise(strength=-1),
        lambda: RandomResizePad(smallest=2, largest=1),
        lambda: CropEnsemble(share=0),
        lambda: PixelDrop(rate=1),
        lambda: TestTimeDropout(rate=-0.1),
        lambda: RandomMember(),
        lambda: RandomizedSmoothing(sigma=0),
        lambda: RandomizedSmoothing(alpha=1),
        lambda: RandomizedSmoothing(samples=0),
    ],
)
def test_bad_fields_are_named(make):
    with pytest.raises(UnusableInput, match="give"):
        make()
