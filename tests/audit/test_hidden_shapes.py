"""Parts in NumPy and PIL whose results have another shape than the image, audited beside the truth."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.threat import Linf

pytestmark = pytest.mark.slow

EPSILON = 0.1
IMAGES = (load_digits().data[:1000] / 16).astype(np.float32)
LABELS = torch.as_tensor(load_digits().target[:1000])


def read_out(features):
    """Ridge regression of the one-hot labels: weights and offset, ten times as large for the sake of margins."""
    a = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    target = 10 * torch.nn.functional.one_hot(LABELS, 10).double()
    found = torch.linalg.solve(a.T @ a + 1e-2 * torch.eye(a.shape[1]).double(), a.T @ target).float()
    return found[:-1], found[-1]


class Components(nn.Module):
    """A linear classifier of twenty principal components, which NumPy computes."""

    def __init__(self):
        super().__init__()
        self.middle = IMAGES.mean(0)
        self.axes = np.linalg.svd(IMAGES - self.middle, full_matrices=False)[2][:20].T
        self.weight, self.offset = read_out(self.features(torch.from_numpy(IMAGES)))

    def features(self, x):
        flat = x.detach().numpy().reshape(len(x), -1)
        return torch.tensor((flat - self.middle) @ self.axes)

    def forward(self, x):
        return self.features(x) @ self.weight + self.offset

    def on_pixels(self):
        weight = torch.from_numpy(self.axes) @ self.weight
        return weight, self.offset - torch.from_numpy(self.middle) @ weight


class Thumbnails(nn.Module):
    """A linear classifier of 4 x 4 thumbnails, which PIL makes of bytes, image by image."""

    def __init__(self):
        super().__init__()
        self.weight, self.offset = read_out(self.features(torch.from_numpy(IMAGES).view(-1, 1, 8, 8)))

    def features(self, x):
        small = []
        for image in x:
            pixels = Image.fromarray((image[0].detach().numpy() * 255).astype(np.uint8))
            small.append(torch.from_numpy(np.asarray(pixels.resize((4, 4), Image.Resampling.BOX)).copy()))
        return torch.stack(small).flatten(1).float() / 255

    def forward(self, x):
        return self.features(x) @ self.weight + self.offset

    def on_pixels(self):
        pooling = torch.eye(64).view(64, 1, 8, 8)
        return torch.nn.functional.avg_pool2d(pooling, 2).flatten(1) @ self.weight, self.offset


def exact_accuracy(network, x, y):
    """Share of examples that no point of ball and box moves across any of the linear classifier's boundaries."""
    weight, offset = network.on_pixels()
    low = (x.flatten(1) - EPSILON).clamp(0, 1)
    high = (x.flatten(1) + EPSILON).clamp(0, 1)
    towards = weight.T[None] - weight.T[y][:, None]  # [batch, classes, pixels]
    best = torch.where(towards > 0, high[:, None], low[:, None])
    gain = (towards * best).sum(2) + offset - offset[y][:, None]
    gain.scatter_(1, y[:, None], -torch.inf)
    return float((gain.amax(1) < 0).float().mean())


def audited(network):
    data = load("digits", examples=64)
    report = audit(network.eval(), data, claim_about(Linf(epsilon=EPSILON), budget="quick"))
    return report, exact_accuracy(network, data.x, data.y)


def test_components_in_numpy_leave_what_the_closed_form_leaves():
    report, truth = audited(Components())
    assert report.naive_robust_accuracy > truth + 0.25
    assert abs(report.robust_accuracy - truth) <= 0.02
    (finding,) = report.masking
    assert finding.mechanism == "shattered"
    assert "x.detach().numpy()" in finding.code


def test_thumbnails_in_pil_leave_what_the_closed_form_leaves():
    """Bytes round the pixels, so that the truth of the unrounded network is off by a little."""
    report, truth = audited(Thumbnails())
    assert report.naive_robust_accuracy > truth + 0.25
    assert report.robust_accuracy <= truth + 0.04
    (finding,) = report.masking
    assert "learned surrogate" in finding.repair
