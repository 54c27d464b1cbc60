"""Each transformation beside a closed form or an independent implementation, and what all of them promise."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import (
    JPEG,
    BitDepth,
    Composed,
    InputNoise,
    KWinners,
    LowRank,
    Median,
    NonLocalMeans,
    PixelDeflection,
    Preprocessing,
    Reformer,
    Thermometer,
    TotalVariation,
)
from unmask.defenses.transforms import Autoencoder, train_autoencoder
from unmask.defenses.transforms.k_winners import k_winners
from unmask.defenses.transforms.pixel_deflection import bayes_shrink, deflect
from unmask.defenses.transforms.total_variation import divergence, gradient, minimise
from unmask.errors import UnusableInput
from unmask.gradients import BPDA, EOT, Exact
from unmask.objectives import cross_entropy
from unmask.threat import Linf


class Small(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def x():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seeded(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return build()


CASES = {
    "bit depth": BitDepth(),
    "one bit": BitDepth(bits=1),
    "jpeg": JPEG(),
    "total variation": TotalVariation(drop=0.0),
    "total variation, dropped": TotalVariation(passes=2),
    "median": Median(),
    "non-local means": NonLocalMeans(window=5),
    "thermometer": Thermometer(),
    "thermometer, decoded": Thermometer(decode=True),
    "k winners": KWinners(share=0.3),
    "low rank": LowRank(),
    "low rank, dropped": LowRank(keep=0.7, passes=2),
    "pixel deflection": PixelDeflection(passes=2),
    "reformer": Reformer(autoencoder=seeded(lambda: Autoencoder(3)).eval()),
    "jpeg, then bits, then noise": Composed((JPEG(), BitDepth(), InputNoise(passes=2))),
    "noise, then jpeg": Composed((InputNoise(passes=2), JPEG())),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name, x):
    defense = CASES[name]
    network = seeded(lambda: Small(48 if name == "thermometer" else 3)).eval()
    plain = Classifier(network, deterministic=True)
    weights = {key: w.clone() for key, w in network.state_dict().items()}
    before, state = x.clone(), torch.random.get_rng_state()
    defended = defense.wrap(plain)
    logits = defended(x, generator=generator()).logits
    assert logits.shape == (6, 5)
    assert torch.equal(logits, defended(x, generator=generator()).logits)
    different = not torch.equal(logits, defended(x, generator=generator(1)).logits)
    assert different == (not defended.deterministic)
    assert defended.passes == (2 if different else 1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(x, before)
    assert plain.network is network
    assert defended.meter is plain.meter
    y = torch.arange(6) % 5
    for estimator in (BPDA(), BPDA(same_values=True), EOT(BPDA(same_values=True), draws=2)):
        attack = PGD(steps=2, gradient=estimator, early_stop=False)
        assert (
            Linf(epsilon=0.1)
            .contains(attack.run(defended, x, y, Linf(epsilon=0.1), generator=generator()), x)
            .all()
        )
    assert all(torch.equal(w, weights[key]) for key, w in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not defended.network.training


@pytest.mark.parametrize("name", [n for n, d in CASES.items() if isinstance(d, Preprocessing)])
def test_masked_as_published_and_not_by_its_surrogate(name, x):
    """The exact gradient is zero everywhere; that of the surrogate is not, and belongs to the same values."""
    network = seeded(lambda: Small(48 if name == "thermometer" else 3)).eval()
    defended = CASES[name].wrap(Classifier(network, deterministic=True))
    y = torch.arange(6) % 5
    exact = Exact().estimate(defended, cross_entropy, x, y, generator=generator())
    repaired = BPDA(same_values=True).estimate(defended, cross_entropy, x, y, generator=generator())
    assert not exact.grad.any()
    assert repaired.grad.flatten(1).norm(dim=1).min() > 0
    assert torch.equal(exact.outputs.logits, repaired.outputs.logits)
    part = slice(2, 4)  # an example's result does not depend on its batch
    if defended.deterministic:
        alone = defended(x[part], generator=generator()).logits
        torch.testing.assert_close(alone, exact.outputs.logits[part], rtol=1e-4, atol=1e-5)


def test_bpda_by_the_identity_is_the_lectures_equation(x):
    """The gradient of f o g at x is taken for that of f at g(x)."""
    network = seeded(Small).eval()
    y = torch.arange(6) % 5
    squeezed = torch.round(x * 31) / 31
    defended = BitDepth(bits=5).wrap(Classifier(network, deterministic=True))
    ours = BPDA(same_values=True).estimate(defended, cross_entropy, x, y, generator=generator())
    truth = Exact().estimate(Classifier(network), cross_entropy, squeezed, y, generator=generator())
    torch.testing.assert_close(ours.grad, truth.grad)
    torch.testing.assert_close(ours.value, truth.value)


def test_bit_depth():
    values = torch.tensor([0.0, 0.16, 0.17, 0.4, 0.51, 1.0]).reshape(1, 1, 1, 6)
    got = BitDepth(bits=2).transformation()(values).flatten()
    torch.testing.assert_close(got, torch.tensor([0, 0, 1 / 3, 1 / 3, 2 / 3, 1]))


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_jpeg_is_a_file_by_pillow(channels):
    x = load("digits", examples=2).x.repeat(1, channels, 2, 2)
    got = JPEG(quality=40).transformation()(x)
    for image, out in zip(x, got, strict=True):
        planes = [image.permute(1, 2, 0)] if channels == 3 else list(image)
        made = []
        for plane in planes:
            file = io.BytesIO()
            Image.fromarray(np.uint8(np.rint(plane.numpy() * 255))).save(file, "JPEG", quality=40)
            made.append(torch.from_numpy(np.array(Image.open(file)) / 255.0).float())
        wanted = made[0].permute(2, 0, 1) if channels == 3 else torch.stack(made)
        torch.testing.assert_close(out, wanted)
    assert 0.001 < float((got - x).abs().mean()) < 0.1


def total_variation_objective(z, x, kept, weight, smooth):
    down = torch.cat((z[1:] - z[:-1], torch.zeros_like(z[:1])))
    right = torch.cat((z[:, 1:] - z[:, :-1], torch.zeros_like(z[:, :1])), 1)
    return (kept * (z - x) ** 2).sum() / 2 + weight * (down**2 + right**2 + smooth).sqrt().sum()


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_total_variation_reaches_the_minimum(drop):
    """Beside L-BFGS in float64 on a hardly smoothed objective."""
    x = load("digits", examples=1).x[0, 0].double()
    kept = (torch.rand(8, 8, generator=generator(3)) >= drop).double()
    ours = minimise(x[None, None], kept[None, None], 0.05, 2000)[0, 0]

    def value_and_slope(flat):
        z = torch.from_numpy(flat).reshape(8, 8).requires_grad_()
        value = total_variation_objective(z, x, kept, 0.05, 1e-10)
        value.backward()
        return float(value.detach()), z.grad.flatten().numpy()

    found = minimize(
        value_and_slope, x.flatten().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 4000}
    )
    mine = float(total_variation_objective(ours, x, kept, 0.05, 0))
    assert mine <= found.fun + 1e-4
    assert mine == pytest.approx(found.fun, rel=2e-3)
    assert mine < 0.95 * float(total_variation_objective(x, x, kept, 0.05, 0))


def test_total_variation_of_what_it_must_leave():
    """Dropped pixels are never looked at; a flat image stays; gradient and divergence are adjoint."""
    x = torch.rand(2, 3, 8, 8, generator=generator())
    kept = (torch.rand(2, 1, 8, 8, generator=generator(1)) >= 0.5).float()
    changed = torch.where(kept > 0, x, torch.rand(2, 3, 8, 8, generator=generator(2)))
    assert torch.equal(minimise(x, kept, 0.03, 50), minimise(changed, kept, 0.03, 50))
    flat = torch.full((1, 1, 8, 8), 0.3)
    torch.testing.assert_close(minimise(flat, kept[:1], 0.03, 50), flat)
    p = torch.randn(2, 2, 3, 8, 8, generator=generator(4))
    p[0, ..., -1, :] = 0
    p[1, ..., -1] = 0
    torch.testing.assert_close((gradient(x) * p).sum(), -(x * divergence(p)).sum())


def test_median_is_the_middle_of_the_window(x):
    got = Median(size=3).transformation()(x)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert torch.equal(got[inner], windows.median(4).values[inner])
    even = Median(size=2).transformation()(x)[0, 0, 1:, 1:]
    fours = x[0, 0].unfold(0, 2, 1).unfold(1, 2, 1).flatten(2)
    assert torch.equal(even, fours.sort(2).values[..., 2])


def test_non_local_means_pixel_by_pixel():
    x = torch.rand(1, 2, 5, 6, generator=generator()).double()
    got = NonLocalMeans(window=3, patch=3, strength=60).transformation()(x)
    far = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
    for i in range(5):
        for j in range(6):
            mine = far[:, i + 1 : i + 4, j + 1 : j + 4]
            total, weights = np.zeros(2), 0.0
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    other = far[:, i + 1 + a : i + 4 + a, j + 1 + b : j + 4 + b]
                    weight = math.exp(-((mine - other) ** 2).mean() / (60 / 255) ** 2)
                    total += weight * far[:, i + 2 + a, j + 2 + b]
                    weights += weight
            np.testing.assert_allclose(got[0, :, i, j].numpy(), total / weights, rtol=1e-10)


def test_thermometer_code():
    x = torch.tensor([0.0, 0.3, 0.6, 1.0]).reshape(1, 1, 1, 4)
    code = Thermometer(levels=4).transformation()(x)[0, :, 0].T
    assert code.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    decoded = Thermometer(levels=4, decode=True).transformation()(x).flatten()
    assert decoded.tolist() == [0, 0.5, 0.75, 1]
    two = torch.rand(2, 3, 4, 4, generator=generator())
    code = Thermometer(levels=8).transformation()(two)
    assert torch.equal(
        code.unflatten(1, (3, 8)).mean(2), Thermometer(levels=8, decode=True).transformation()(two)
    )
    soft = Thermometer(levels=8).surrogate(two)
    assert float((soft - code).abs().max()) <= 0.75  # only levels beside the pixel's own are in doubt
    assert float((soft - code).abs().mean()) < 0.1


def test_low_rank_is_eckart_and_young(x):
    got = LowRank(share=0.5).transformation()(x / 2 + 0.25)
    matrix = (x - 0.5).transpose(1, 2).flatten(2)
    s = torch.linalg.svdvals(matrix)
    error = 2 * (got - x / 2 - 0.25).flatten(1).norm(dim=1)
    torch.testing.assert_close(error, s[:, 4:].norm(dim=1), rtol=1e-3, atol=1e-4)
    assert int(torch.linalg.matrix_rank(2 * (got - 0.5).transpose(1, 2).flatten(2), atol=1e-3).max()) == 4
    everything = LowRank(share=1.0).transformation()(x)
    torch.testing.assert_close(everything, x, rtol=1e-4, atol=1e-5)


def test_deflected_pixels_come_from_near():
    place = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))[None]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        out = deflect(place.repeat(50, 1, 1, 1), 40, 3)
    away = (out - place).abs().amax(1)
    moved = (away > 0).float().mean()
    assert float(away.max()) == 3
    # 40 draws of 256 hit 37 different pixels; one in 49 (more at the border) stays where it is
    assert float(moved) == pytest.approx(1 - (1 - 1 / 256) ** 40, abs=0.01)


def test_wavelets():
    x = torch.rand(2, 3, 16, 16, generator=generator())
    torch.testing.assert_close(bayes_shrink(x, 1e-6, 2), x, rtol=1e-4, atol=1e-4)
    flat = torch.full((1, 1, 9, 7), 0.3)
    torch.testing.assert_close(bayes_shrink(flat, 0.1, 1), flat)
    # White noise on a smooth image: most of it goes.
    smooth = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    noisy = smooth + 0.1 * torch.randn(1, 1, 64, 64, generator=generator())
    left = (bayes_shrink(noisy, 0.1, 3) - smooth).square().mean().sqrt()
    assert float(left) < 0.04
    # One level, bands by hand: with noise of 0.2 and coefficients of 1 the threshold is 0.04 / sqrt(0.96).
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None] / 2
    threshold = 0.2**2 / math.sqrt(1 - 0.2**2)
    torch.testing.assert_close(bayes_shrink(checks, 0.2, 1), checks * (1 - threshold))


def test_k_winners():
    h = torch.randn(3, 4, 5, 5, generator=generator())
    kept = k_winners(h, 0.1)
    assert (kept != 0).flatten(1).sum(1).tolist() == [10, 10, 10]
    for mine, out in zip(h.flatten(1), kept.flatten(1), strict=True):
        assert sorted(out[out != 0].tolist()) == sorted(mine.tolist())[-10:]
    relu, functional = nn.Sequential(nn.ReLU()), Small()
    for network in (relu, functional):
        x = torch.randn(2, 3, 8, 8, generator=generator())
        everyone = KWinners(share=1.0).wrap(Classifier(network)).network(x)
        assert not torch.equal(everyone, network(x))  # all win, negative ones too: no ReLU is left
    assert torch.equal(KWinners(share=1.0).wrap(Classifier(relu)).network(x), x)


def test_reformer_learns_and_is_read_from_a_file(tmp_path):
    from safetensors.torch import save_file

    x = load("digits", split="train").x
    network = seeded(lambda: Autoencoder(1, pooled=False, width=4))
    error = train_autoencoder(network, x, generator=generator(), epochs=10, batch_size=32, rate=0.02)
    assert error < 0.25 * float((x - x.mean(0)).square().mean())
    save_file(network.state_dict(), tmp_path / "coder.safetensors")
    held_out = load("digits").x[:20]
    echo = Classifier(nn.Flatten(), deterministic=True)
    defended = Reformer(autoencoder=str(tmp_path / "coder.safetensors")).wrap(echo)
    with torch.no_grad():
        torch.testing.assert_close(
            defended(held_out, generator=generator()).logits, network(held_out).flatten(1)
        )
    with pytest.raises(UnusableInput, match="no weights"):
        Reformer(autoencoder=str(tmp_path / "none.safetensors")).wrap(echo)


def test_composed_goes_from_the_first_to_the_last(x):
    echo = Classifier(nn.Flatten(), deterministic=True)
    both = Composed((Median(size=3), BitDepth(bits=2))).wrap(echo)
    wanted = BitDepth(bits=2).transformation()(Median(size=3).transformation()(x))
    assert torch.equal(both(x, generator=generator()).logits, wanted.flatten(1))
    with pytest.raises(UnusableInput, match="no parts"):
        Composed(())


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: BitDepth(bits=0), "bits=0"),
        (lambda: JPEG(quality=96), "quality=96"),
        (lambda: TotalVariation(weight=0), "weight=0"),
        (lambda: TotalVariation(drop=1), "drop=1"),
        (lambda: Median(size=1), "size=1"),
        (lambda: NonLocalMeans(window=4), "window=4"),
        (lambda: Thermometer(levels=1), "levels=1"),
        (lambda: KWinners(share=0), "share=0"),
        (lambda: LowRank(keep=0), "keep=0"),
        (lambda: PixelDeflection(window=0), "window=0"),
    ],
)
def test_nonsense_is_named(build, named):
    with pytest.raises(UnusableInput, match=named):
        build()


def test_dropped_pixels_have_no_slope_and_the_others_that_of_the_solver():
    defense = TotalVariation(iterations=10)
    x = load("digits", examples=2).x.double()
    surrogate = defense.surrogate

    def solved(z):
        torch.manual_seed(0)
        return surrogate(z)

    torch.manual_seed(0)
    dropped = torch.rand_like(x) < 0.5
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad((weights * solved(leaf)).sum(), leaf)
    assert (grad[dropped] == 0).all()
    assert (grad[~dropped] != 0).any()
    torch.manual_seed(0)
    assert torch.equal(defense.transformation()(x), solved(x))
    step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    change = (weights * (solved(x + step) - solved(x - step))).sum() / 2
    torch.testing.assert_close(change, (grad * step).sum(), rtol=1e-3, atol=0)
    assert TotalVariation(drop=0.0).surrogate is None
