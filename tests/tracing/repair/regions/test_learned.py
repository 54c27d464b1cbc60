"""A learned surrogate against the truth: the matrix, the interpolation and the bend that it takes the place of."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.tracing.networks import Wrapped, linear
from torch import nn

from unmask.classifier import Classifier, seeded
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.regions.learned import learn_surrogate
from unmask.tracing.repair.rewrite import Rewritten

MATRIX = np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32)


def images(batch=64):
    return 0.2 + 0.6 * torch.rand(batch, 1, 4, 4, generator=torch.Generator().manual_seed(1))


class Coefficients(nn.Module):
    """Coefficients of the flattened image in NumPy, then a linear layer."""

    def forward(self, x):
        made = torch.from_numpy(x.detach().flatten(1).numpy() @ MATRIX)
        return made @ torch.linspace(-1, 1, 24).reshape(6, 4)


class Thumbnails(nn.Module):
    """Each image alone through PIL: bytes, resized from 4 x 4 to 2 x 2."""

    def __init__(self):
        super().__init__()
        self.read_out = linear(4)

    def forward(self, x):
        small = []
        for image in x:
            pixels = Image.fromarray((image[0].detach().numpy() * 255).astype(np.uint8))
            small.append(torch.from_numpy(np.asarray(pixels.resize((2, 2), Image.Resampling.BOX)).copy()))
        return self.read_out(torch.stack(small).float().flatten(1) / 255)


class Bent(nn.Module):
    """Absolute values of centred pixels summed by row: no linear map has its slopes."""

    def forward(self, x):
        rows = np.abs(x.detach().numpy()[:, 0] - 0.5).sum(2)
        return torch.tensor(rows) @ torch.linspace(-1, 1, 16).reshape(4, 4)


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.flatten(1) @ torch.from_numpy(MATRIX)

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros(len(grad), 1, 4, 4)


class Silent(nn.Module):
    """A custom function that changes the shape and declares no gradient."""

    def forward(self, x):
        return Hidden.apply(x) @ torch.linspace(-1, 1, 24).reshape(6, 4)


def learned(network, epsilon=0.1):
    x = images()
    classifier = Classifier(network, deterministic=True)
    with torch.no_grad():
        y = network(x).argmax(1)
    threat = Linf(epsilon=epsilon)
    generator = torch.Generator().manual_seed(0)
    analysis = analyse(classifier, x[:8], y[:8], threat, seed=0, generator=generator)
    before = classifier.meter.forwards
    fitted = learn_surrogate(analysis, classifier, x, threat, seed=0, generator=generator)
    return (analysis, fitted), classifier.meter.forwards - before


def slopes(network, analysis, x):
    """Jacobian of the logits through the rewritten network, `[batch, classes, pixels]`."""
    (repair,) = [r for r in propose(*analysis) if r.name == "learned"]
    x = x.clone().requires_grad_()
    logits = Rewritten(network, repair.rewrite)(x)
    assert torch.equal(logits.detach(), network(x.detach()))
    rows = [torch.autograd.grad(logits[:, n].sum(), x, retain_graph=True)[0].flatten(1) for n in range(4)]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("network", [Coefficients(), Silent()])
def test_learns_a_matrix(network):
    analysis, _ = learned(network)
    assert analysis[1] is not None
    assert analysis[1].cosine > 0.999
    truth = (torch.from_numpy(MATRIX) @ torch.linspace(-1, 1, 24).reshape(6, 4)).T
    found = slopes(network, analysis, images(5))
    assert torch.allclose(found, truth.expand(5, -1, -1), atol=0.02 * float(truth.abs().max()))


def test_learns_a_resize_of_bytes_image_by_image():
    network = Thumbnails()
    analysis, _ = learned(network)
    x = images(5).requires_grad_()
    logits = network.read_out(F.avg_pool2d(x, 2).flatten(1))
    truth = torch.stack(
        [torch.autograd.grad(logits[:, n].sum(), x, retain_graph=True)[0].flatten(1) for n in range(4)], 1
    )
    found = slopes(network, analysis, images(5))
    assert F.cosine_similarity(found.flatten(1), truth.flatten(1)).min() > 0.98


def test_bends_where_no_line_will_do():
    network = Bent()
    analysis, _ = learned(network)
    assert analysis[1] is not None
    bridge, cosine = analysis[1].bridge, analysis[1].cosine
    assert bridge.surrogate.bent is not None
    assert cosine > 0.65
    x = images(5)
    read_out = torch.linspace(-1, 1, 16).reshape(4, 4)
    truth = torch.einsum("bij,ic->bcij", (x[:, 0] - 0.5).sign(), read_out).flatten(2)
    assert F.cosine_similarity(slopes(network, analysis, x), truth, dim=2).mean() > 0.6


class Turned(nn.Module):
    """Each image alone through PIL, which moves its pixels: as large as before, and little like it."""

    def __init__(self, how):
        super().__init__()
        self.read_out, self.how = linear(16), how

    def forward(self, x):
        made = [Image.fromarray(image[0].detach().numpy()).transpose(self.how) for image in x]
        return self.read_out(torch.stack([torch.from_numpy(np.array(m)) for m in made]).flatten(1))


@pytest.mark.parametrize("how", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90])
def test_learns_where_shapes_are_equal_and_images_are_not(how):
    network = Turned(how)
    analysis, _ = learned(network)
    x = images(5)
    turned = torch.from_numpy(
        np.array(Image.fromarray(np.arange(16, dtype="float32").reshape(4, 4)).transpose(how))
    )
    truth = torch.zeros(4, 16).index_add(1, turned.long().flatten(), network.read_out.weight)
    found = slopes(network, analysis, x)
    assert torch.allclose(found, truth.expand(5, -1, -1), atol=0.05 * float(truth.abs().max()))


def test_counts_every_point_and_repeats_itself():
    torch.manual_seed(3)
    first, cost = learned(Coefficients())
    torch.manual_seed(4)
    second, _ = learned(Coefficients())
    assert cost == 1024  # 16 pixels call for the least number of points
    assert torch.equal(first[1].bridge.surrogate.weight, second[1].bridge.surrogate.weight)


def test_learns_nothing_of_single_numbers():
    def counted(x):
        return torch.tensor([[float(v > 0.5) for v in row.sum(1).tolist()] for row in x.reshape(-1, 4, 4)])

    def means(x):
        return torch.stack([torch.tensor(round(row.mean().item() * 9) / 9) * row for row in x])

    for step, width in ((counted, 4), (means, 16)):
        assert learned(Wrapped(step, width))[0][1] is None


@pytest.mark.parametrize(
    "network",
    [
        Wrapped(lambda x: x),
        Wrapped(lambda x: torch.round(x * 4) / 4),
        Wrapped(lambda x: torch.from_numpy(np.round(x.detach().numpy() * 4) / 4)),
    ],
    ids=["honest", "rounded", "same shape"],
)
def test_learns_nothing_where_the_identity_may_do(network):
    analysis, cost = learned(network)
    assert analysis[1] is None
    assert cost == 0


def test_leaves_the_global_generator_alone():
    with seeded(7, torch.device("cpu")):
        before = torch.get_rng_state()
        learned(Coefficients())
        assert torch.equal(before, torch.get_rng_state())
