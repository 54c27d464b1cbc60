"""Generator and projection, denoiser and its chain: against what is known of them, and what makes them a defence."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import DefenseGAN, DiffPure
from unmask.defenses.purifiers import Denoiser, Generator, train_denoiser, train_generator
from unmask.defenses.purifiers.denoiser import noised
from unmask.defenses.purifiers.diffusion import purify
from unmask.defenses.purifiers.projection import project
from unmask.errors import UnusableInput
from unmask.gradients import BPDA, Exact
from unmask.objectives import cross_entropy
from unmask.threat import Linf


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def seeded(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return build()


class Linear(nn.Module):
    """x = 0.5 + B z: the nearest image that it can make is known."""

    latent = 3

    def __init__(self):
        super().__init__()
        self.basis = torch.linalg.qr(torch.randn(64, 3, generator=rng(1))).Q
        self.shape = torch.tensor([1, 8, 8])

    def forward(self, z):
        return (0.5 + z @ self.basis.T).view(-1, 1, 8, 8)


@pytest.fixture
def x():
    return torch.rand(5, 1, 8, 8, generator=rng(2))


@pytest.fixture(scope="module")
def network():
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))).eval()


DEFENCES = {
    "projection": lambda: DefenseGAN(generator=seeded(lambda: Generator(4, (1, 8, 8), width=16)), passes=2),
    "diffusion": lambda: DiffPure(denoiser=seeded(lambda: Denoiser((1, 8, 8), width=16)), passes=2),
}


@pytest.mark.parametrize("differentiable", [False, True])
def test_descent_finds_the_nearest_image(x, differentiable):
    linear = Linear()
    z = torch.randn(4, 5, 3, generator=rng(3))
    how = {"iterations": 60, "rate": 10.0, "momentum": 0.7}
    found = project(linear, x.requires_grad_(), z, differentiable=differentiable, **how)
    nearest = 0.5 + (x.detach() - 0.5).flatten(1) @ linear.basis @ linear.basis.T
    torch.testing.assert_close(found.detach().flatten(1), nearest, rtol=0, atol=1e-4)
    if differentiable:  # of this projection the derivative is the projection itself
        outer = torch.randn(5, 64, generator=rng(4))
        (slope,) = torch.autograd.grad((found.flatten(1) * outer).sum(), x)
        torch.testing.assert_close(slope.flatten(1), outer @ linear.basis @ linear.basis.T, rtol=0, atol=1e-4)


def test_momentum_as_in_the_published_code():
    """Two steps by hand: v = m v - rate g, z = z + v, on the mean squared error."""
    linear, x = Linear(), torch.zeros(1, 1, 8, 8)
    z = torch.ones(1, 3)
    gradient = lambda z: 2 / 64 * (linear(z).flatten(1) - x.flatten(1)) @ linear.basis  # noqa: E731
    v = -3.0 * gradient(z)
    z = z + v
    v = 0.5 * v - 3.0 * gradient(z)
    expected = linear(z + v)
    got = project(linear, x, torch.ones(1, 1, 3), iterations=2, rate=3.0, momentum=0.5)
    torch.testing.assert_close(got.detach(), expected)


def test_each_example_keeps_its_best_restart(x):
    generator = seeded(lambda: Generator(4, (1, 8, 8), width=16))
    z = 3 * torch.randn(6, 5, 4, generator=rng(5))
    how = {"iterations": 3, "rate": 5.0, "momentum": 0.7}
    each = torch.stack([project(generator, x, start[None].clone(), **how) for start in z])
    errors = (each - x).square().flatten(2).mean(2)
    assert errors.argmin(0).unique().numel() > 1
    best = each[errors.argmin(0), torch.arange(5)]
    torch.testing.assert_close(project(generator, x, z.clone(), **how), best)


def test_every_step_draws_from_the_diffusion_of_what_the_denoiser_sees(x):
    """Of one that knows the image: each noisy image is sqrt(share) x + sqrt(1 - share) n, the last is the image."""
    image, seen = 0.4, []  # on the scale of [-1, 1]

    def known(noisy, share):
        seen.append((float(share[0]), noisy))
        return torch.full_like(noisy, image)

    many = torch.full((4000, 1, 4, 4), (image + 1) / 2)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        torch.testing.assert_close(purify(known, many, time=0.8, steps=4), many)
    assert [share for share, _ in seen] == pytest.approx(
        [math.cos(t * math.pi / 2) ** 2 for t in (0.8, 0.6, 0.4, 0.2)]
    )
    for share, noisy in seen:
        assert abs(float(noisy.mean()) - share**0.5 * image) < 0.02
        assert abs(float(noisy.var()) / (1 - share) - 1) < 0.03
    assert torch.equal(noised(x, torch.ones(5), torch.randn(x.shape, generator=rng())), x)


@pytest.mark.parametrize("name", DEFENCES)
def test_masked_as_published_and_not_by_its_surrogate(name, x, network):
    defended = DEFENCES[name]().wrap(Classifier(network, deterministic=True))
    y = torch.arange(5)
    state = torch.get_rng_state()
    exact = Exact().estimate(defended, cross_entropy, x, y, generator=rng())
    repaired = BPDA(same_values=True).estimate(defended, cross_entropy, x, y, generator=rng())
    assert not exact.grad.any()
    assert repaired.grad.flatten(1).norm(dim=1).min() > 0
    assert torch.equal(exact.outputs.logits, repaired.outputs.logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert (defended.passes, defended.deterministic) == (2, False)
    first, second = (defended(x, generator=rng(seed)).logits for seed in (0, 1))
    assert torch.equal(first, defended(x, generator=rng(0)).logits)
    assert not torch.equal(first, second)
    threat = Linf(epsilon=0.1)
    x_adv = PGD(steps=2, gradient=BPDA(same_values=True), early_stop=False).run(
        defended, x, y, threat, generator=rng()
    )
    assert threat.contains(x_adv, x).all()


@pytest.mark.parametrize("name", DEFENCES)
def test_the_surrogate_has_the_slope_of_the_same_draw(name, x):
    """Against finite differences, in float64, with the random numbers held."""
    surrogate = DEFENCES[name]().surrogate.double()
    x = x.double().requires_grad_()
    direction = torch.randn(x.shape, generator=rng(7), dtype=torch.float64)
    outer = torch.randn(x.shape, generator=rng(8), dtype=torch.float64)

    def value(at):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return (surrogate(at) * outer).sum()

    (grad,) = torch.autograd.grad(value(x), x)
    step = 1e-5
    slope = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert math.isclose(float((grad * direction).sum()), float(slope.detach()), rel_tol=1e-3)


@pytest.mark.parametrize("name", DEFENCES)
def test_judged_without_a_gradient_it_is_the_same(name, x, network):
    defended = DEFENCES[name]().wrap(Classifier(network))
    plain = defended(x, generator=rng()).logits
    with torch.no_grad():
        assert torch.equal(defended(x, generator=rng()).logits, plain)
    with torch.inference_mode():
        torch.testing.assert_close(defended(x, generator=rng()).logits, plain)


def test_read_from_their_files(tmp_path, x):
    generator = seeded(lambda: Generator(5, (1, 8, 8), width=12))
    denoiser = seeded(lambda: Denoiser((1, 8, 8), width=12))
    for kind, network in (("generator", generator), ("denoiser", denoiser)):
        save_file(network.state_dict(), tmp_path / f"{kind}.safetensors")
    for one, other in (
        (DefenseGAN(generator=generator), DefenseGAN(generator=str(tmp_path / "generator.safetensors"))),
        (DiffPure(denoiser=denoiser), DiffPure(denoiser=str(tmp_path / "denoiser.safetensors"))),
    ):
        made = []
        for defense in (one, other):
            torch.manual_seed(0)
            made.append(defense.transformation()(x))
        assert torch.equal(*made)
    with pytest.raises(UnusableInput, match="holds no weights of a `Denoiser`"):
        DiffPure(denoiser=str(tmp_path / "generator.safetensors")).transformation()
    with pytest.raises(UnusableInput, match="holds no weights of a `Generator`"):
        DefenseGAN(generator=str(tmp_path / "none.safetensors")).transformation()
    with pytest.raises(UnusableInput, match="this is a Denoiser; give a `Generator`"):
        DefenseGAN(generator=denoiser).transformation()


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: DefenseGAN(generator="g", restarts=0), "restarts=0; give at least 1"),
        (lambda: DefenseGAN(generator="g", iterations=0), "iterations=0; give at least 1"),
        (lambda: DefenseGAN(generator="g", passes=0), "passes=0; give at least 1"),
        (lambda: DefenseGAN(generator="g", rate=0.0), "rate=0.0"),
        (lambda: DefenseGAN(generator="g", momentum=1.0), "momentum=1.0"),
        (lambda: DiffPure(denoiser="d", time=0.0), "time=0.0; give a number between 0 and 1"),
        (lambda: DiffPure(denoiser="d", time=1.0), "time=1.0"),
        (lambda: DiffPure(denoiser="d", steps=0), "steps=0; give at least 1"),
    ],
)
def test_refused(build, told):
    with pytest.raises(UnusableInput, match=told):
        build()


def test_a_generator_learns_two_kinds_of_image():
    """Half of the images are dark, half bright, with a little noise: so are the generated ones."""
    kinds = (torch.arange(200) % 2).view(-1, 1, 1, 1) * 0.8 + 0.1
    x = (kinds + 0.02 * torch.randn(200, 1, 2, 2, generator=rng(9))).clamp(0, 1)
    generator = seeded(lambda: Generator(2, (1, 2, 2), width=32))
    before = torch.get_rng_state()
    train_generator(generator, x, generator=rng(), steps=400, critic_width=32, rate=3e-3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in generator.parameters())
    with torch.no_grad():
        brightness = generator(torch.randn(500, 2, generator=rng(10))).flatten(1).mean(1)
    bright = brightness > 0.5
    assert 0.25 < float(bright.float().mean()) < 0.75
    assert abs(float(brightness[bright].median()) - 0.9) < 0.1
    assert abs(float(brightness[~bright].median()) - 0.1) < 0.1


def test_a_denoiser_comes_near_what_is_possible():
    """Of images that are all dark or all bright the best guess is known: the mean given the noisy image."""
    x = (torch.arange(256) % 2).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    denoiser = seeded(lambda: Denoiser((1, 2, 2), width=32))
    train_denoiser(denoiser, x, generator=rng(), epochs=80, batch_size=64, rate=5e-3)
    share = torch.full((256,), 0.3)
    noisy = noised(2 * x - 1, share, torch.randn(x.shape, generator=rng(11)))
    best = torch.tanh(share.sqrt() * noisy.sum((1, 2, 3)) / (1 - share))
    with torch.no_grad():
        got = denoiser(noisy, share).mean((1, 2, 3))
    assert float((got - best).square().mean()) < 0.02


def test_they_leave_digits_recognisable():
    """Behind the networks of the reproduction, which are trained on other digits."""
    from unmask.reproducing.papers import folder

    weights = folder() / "lecture-defenses" / "weights"
    x = load("digits", split="test", examples=100).x
    for defense in (
        DefenseGAN(generator=str(weights / "digits_generator.safetensors")),
        DiffPure(denoiser=str(weights / "digits_denoiser.safetensors")),
    ):
        torch.manual_seed(0)
        made = defense.transformation()(x)
        error = (made - x).square().mean()
        assert 0.005 < error < 0.03  # that of the mean image is 0.08
        noisy = (x + 0.3 * torch.randn(x.shape, generator=rng(12))).clamp(0, 1)
        assert (defense.transformation()(noisy) - x).square().mean() < 0.7 * (noisy - x).square().mean()
