"""Idioms on digits that nobody had tried: 8 x 8 images become features, and a trained linear layer reads those.

Beside each step stands what an attacker who has read it would differentiate in its place.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from tests.fixtures.digits_split import digits_split
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Fixed normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LUT = (255 * (np.arange(256) / 255) ** 0.5).astype(np.uint8)
CODES = digits_split()[0].x[:24].reshape(-1, 16, 4)[:, ::5].reshape(-1, 4)
KEYS, VALUES = drawn(24, 4, seed=1), drawn(24, 3, seed=2)
SIGNS = drawn(64, 128, seed=3).sign(), drawn(128, 128, seed=4).sign()
GATE, EXPERTS = drawn(64, 4, seed=5), drawn(4, 64, 32, seed=6)
FIRST, SECOND = drawn(64, 40, seed=7) / 8, drawn(64, 40, seed=8) / 8
EDGES, TABLE = torch.linspace(0.06, 0.94, 8), drawn(9, 3, seed=9)
PRIMES = torch.tensor([3, 5, 7, 11])
SUBSETS = torch.tensor([[(n >> k) & 1 for k in range(4)] for n in range(16)])


def soft(x: Tensor, width: float = 0.1) -> Tensor:
    """A step at zero, smeared over `width`."""
    return torch.sigmoid(x / width)


# --- numbers that run out of range ----------------------------------------------------------------------------------


def root_in_one_branch(x):
    return torch.where(x > 0.4, torch.sqrt(x - 0.4), 0.2 * x)


def root_known(x):
    return torch.where(x > 0.4, (x - 0.4).clamp_min(1e-2).sqrt(), 0.2 * x)


def normal_distribution(x):
    return torch.special.ndtr(120 * (x - 0.5))


def log_of_exp(x):
    return torch.log(1 + torch.exp(300 * (x - 0.4))).clamp(max=180) / 180


def contrast(x):
    return ((x - 0.5) * 12 + 0.5).clamp(0, 1)


def cold_attention(x, temperature=1e-4):
    scores = x.reshape(-1, 16, 4) @ KEYS.T
    return (torch.softmax(scores / temperature, 2) @ VALUES).flatten(1)


def by_pil(x, size=3):
    rows = []
    for image in (x.detach().numpy() * 255).astype(np.uint8).reshape(-1, 8, 8):
        rows.append(
            np.asarray(Image.fromarray(image).filter(ImageFilter.MedianFilter(size)), dtype=np.float32) / 255
        )
    return torch.from_numpy(np.stack(rows)).flatten(1)


def ranked(x, which, size=3):
    """The pixel of a rank among its neighbours, which PIL's borders repeat."""
    around = F.pad(x.reshape(-1, 1, 8, 8), [size // 2] * 4, mode="replicate").unfold(2, size, 1)
    return around.unfold(3, size, 1).flatten(4).sort(4).values[..., which].flatten(1)


def fused_attention(x, scale=1e4):
    patches = x.reshape(-1, 16, 4)
    keys, values = KEYS.expand(len(x), -1, -1), VALUES.expand(len(x), -1, -1)
    return F.scaled_dot_product_attention(patches, keys, values, scale=scale).flatten(1)


# --- steps ----------------------------------------------------------------------------------------------------------


def phases(x, quantise=lambda a: torch.round(a * 4 / math.pi) * math.pi / 4):
    z = torch.fft.rfft2(x.reshape(-1, 8, 8) + 0.01, norm="ortho")
    angle = quantise(z.angle())
    return torch.view_as_real(torch.complex(angle.cos(), angle.sin())).flatten(1)


def centred_by_grid(x, mode="nearest"):
    image, at = x.reshape(-1, 1, 8, 8), torch.linspace(-1, 1, 8)
    mass = image.sum((1, 2, 3)) + 1e-3
    middle = (
        torch.stack([(image.sum((1, 2)) * at).sum(1), (image.sum((1, 3)) * at).sum(1)], 1) / mass[:, None]
    )
    grid = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), [len(x), 1, 8, 8], align_corners=False)
    return F.grid_sample(image, grid + middle[:, None, None], mode=mode, align_corners=False).flatten(1)


def busy_patches(x, busy=lambda v: (v > 0.08).float()):
    patches = F.unfold(x.reshape(-1, 1, 8, 8), 3, padding=1)  # [n, 9, 64]
    kept = patches * busy(patches.var(1, keepdim=True))
    return F.fold(kept, (8, 8), 3, padding=1).flatten(1) / 9


def dense_ranks(x):
    rows = []
    for image in x:
        colours, place = torch.unique((image * 8).round(), return_inverse=True)
        rows.append(place.float() / len(colours))
    return torch.stack(rows)


def hysteresis(x):
    rows = []
    for image in x:
        on, kept = 0.0, []
        for pixel in image:
            value = pixel.item()
            on = 1.0 if value > 0.6 else 0.0 if value < 0.3 else on
            kept.append(on)
        rows.append(kept)
    return torch.tensor(rows)


def lookup_in_bytes(x):
    levels = LUT[(x.detach().numpy() * 255).astype(np.uint8)] >> 5
    return torch.from_numpy(levels.astype(np.float32) / 7)


def edges(x, step=lambda v: (v > 0).float()):
    image = x.reshape(-1, 1, 8, 8)
    grown, shrunk = F.max_pool2d(image, 3, 1, 1), -F.max_pool2d(-image, 3, 1, 1)
    return torch.cat([step(grown - shrunk - 0.55), step(image - 0.5)], 1).flatten(1)


def hashed(x):
    bits = (x > 0.5).long().reshape(-1, 16, 4)
    code = (bits * PRIMES).sum(2) % 13
    return F.one_hot(code, 13).flatten(1).float()


def hash_known(x):
    p = soft(x - 0.5, 0.15).reshape(-1, 16, 1, 4)
    chance = torch.where(SUBSETS == 1, p, 1 - p).prod(3)  # [n, 16, subsets]
    return (chance @ F.one_hot((SUBSETS * PRIMES).sum(1) % 13, 13).float()).flatten(1)


def signs_twice(x, sign=torch.sign):
    return sign(sign((x - 0.3) @ SIGNS[0]) @ SIGNS[1] + 0.5)


def routed(x):
    rows = []
    for image in x:
        expert = int((image @ GATE).argmax())
        rows.append(F.one_hot(torch.tensor(expert), 4)[:, None] * torch.relu(image @ EXPERTS[expert]))
    return torch.stack(rows).flatten(1)


def routed_known(x):
    shares = torch.softmax(x @ GATE, 1)[:, :, None]
    return (shares * torch.relu(torch.einsum("np,epf->nef", x, EXPERTS))).flatten(1)


class Silent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x * 3) / 3

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


def silent_checkpoint(x):
    return checkpoint(lambda v: Silent.apply(v), x, use_reentrant=False)


def wrapped(x):
    return torch.fmod(3 * x + 0.2, 1.0)


def strided_median(x):
    padded = np.pad(x.detach().numpy().reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    middle = np.partition(windows.reshape(len(x), 64, 9), 4, axis=2)[:, :, 4]
    return torch.from_numpy(np.rint(middle * 6) / 6).float()


def median_known(x):
    return F.unfold(x.reshape(-1, 1, 8, 8), 3, padding=1).sort(1).values[:, 3:6].mean(1)


def committed(x):
    z = x.reshape(-1, 16, 4)
    near = CODES[torch.cdist(z, CODES.expand(len(x), -1, -1)).argmin(2)]
    return (z + (near - z).detach()).flatten(1)


def committed_known(x):
    far = torch.cdist(x.reshape(-1, 16, 4), CODES.expand(len(x), -1, -1))
    return (torch.softmax(-far.square() / 0.1, 2) @ CODES).flatten(1)


def differing_bits(x):
    level = (x * 15).round().int()
    code = level ^ level.roll(1, 1)
    return torch.stack([(code >> n) & 1 for n in range(4)], 2).flatten(1).float()


def differing_known(x):
    bits = torch.stack(
        [soft(-torch.sin(2 * math.pi * (x * 15 + 0.5) / 2 ** (n + 1)), 0.5) for n in range(4)], 2
    )
    return (bits + bits.roll(1, 1) - 2 * bits * bits.roll(1, 1)).flatten(1)


def above_quantile(x, step=lambda v: (v > 0).float()):
    return step(x - torch.quantile(x, 0.7, dim=1, keepdim=True) - 1e-3)


def sure_or_rounded(x):
    rows = []
    for image in x:
        first = image @ FIRST
        if first.softmax(0).max() > 0.06:
            rows.append(torch.cat([first, torch.zeros(40)]))
        else:
            rows.append(torch.cat([torch.zeros(40), torch.round(image * 3) / 3 @ SECOND]))
    return torch.stack(rows)


def sure_known(x):
    sure = soft((x @ FIRST).softmax(1).amax(1, keepdim=True) - 0.06, 0.02)
    return torch.cat([sure * (x @ FIRST), (1 - sure) * (x @ SECOND)], 1)


def embedded(x):
    return F.embedding(torch.bucketize(x, EDGES), TABLE).flatten(1)


def embedded_known(x):
    steps = soft(x[..., None] - EDGES, 0.06)
    return (TABLE[0] + steps @ TABLE.diff(dim=0)).flatten(1)


def base_three(x):
    level = torch.floor(x * 26.99)
    digits = [torch.remainder(torch.div(level, 3**k, rounding_mode="floor"), 3) for k in range(3)]
    return torch.stack(digits, 2).flatten(1)


def base_three_known(x):
    levels = torch.arange(27.0)
    near = torch.softmax(-((x[..., None] * 26.99 - 0.5 - levels) ** 2) / 8, -1)
    return (near @ torch.stack([levels // 3**k % 3 for k in range(3)], 1)).flatten(1)


# Step, what an attacker differentiates in its place, and text of a line that is expected.
FRESH_DIGITS: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "a root in where's other branch": (root_in_one_branch, root_known, "torch.sqrt(x - 0.4), 0.2"),
    "special.ndtr": (
        normal_distribution,
        lambda x: torch.special.ndtr(5 * (x - 0.5)),
        "torch.special.ndtr(120",
    ),
    "the log of an exp that overflows": (
        log_of_exp,
        lambda x: F.softplus(9 * (x - 0.4)) / 5,
        "torch.exp(300",
    ),
    "clamped contrast": (contrast, lambda x: x, "(x - 0.5) * 12 + 0.5"),
    "attention at a temperature of 1e-4": (
        cold_attention,
        lambda x: cold_attention(x, 0.3),
        "torch.softmax(scores / temp",
    ),
    "PIL's median": (by_pil, lambda x: ranked(x, 4), "x.detach().numpy() * 255"),
    "scaled_dot_product_attention at a scale of 1e4": (
        fused_attention,
        lambda x: fused_attention(x, 3.0),
        "F.scaled_dot_product_attention(",
    ),
    "phases of a spectrum": (phases, lambda x: phases(x, lambda a: a), "torch.round(a * 4 / math.pi)"),
    "grid_sample, nearest": (centred_by_grid, lambda x: centred_by_grid(x, "bilinear"), "F.grid_sample("),
    "patches folded if busy": (
        busy_patches,
        lambda x: busy_patches(x, lambda v: soft(v - 0.08, 0.03)),
        "busy=lambda v",
    ),
    "ranks of a palette, by unique": (dense_ranks, lambda x: x, "(image * 8).round()"),
    "item by item, with a memory": (hysteresis, lambda x: soft(x - 0.45), "pixel.item()"),
    "bytes looked up by NumPy": (lookup_in_bytes, lambda x: (x + 0.01).sqrt(), "x.detach().numpy() * 255"),
    "dilation less erosion": (edges, lambda x: edges(x, soft), "step=lambda v: (v > 0)"),
    "bits by primes, modulo 13": (hashed, hash_known, "bits = (x > 0.5).long()"),
    "signs of signs": (signs_twice, lambda x: signs_twice(x, lambda v: torch.tanh(v / 4)), "sign(sign("),
    "an expert for each image": (routed, routed_known, "(image @ GATE).argmax()"),
    "a checkpoint of a silent Function": (silent_checkpoint, lambda x: x, "lambda v: Silent.apply(v)"),
    "fmod": (wrapped, lambda x: 3 * x, "torch.fmod(3 * x"),
    "a median of strided windows": (strided_median, median_known, "x.detach().numpy().reshape"),
    "a codebook with straight-through": (committed, committed_known, "(near - z).detach()"),
    "bits that differ from a neighbour's": (differing_bits, differing_known, "(x * 15).round().int()"),
    "above a quantile": (above_quantile, lambda x: above_quantile(x, soft), "step=lambda v: (v > 0)"),
    "sure at once, or rounded first": (sure_or_rounded, sure_known, "torch.round(image * 3)"),
    "bucketize and embedding": (embedded, embedded_known, "torch.bucketize(x, EDGES)"),
    "digits to base three": (base_three, base_three_known, "torch.floor(x * 26.99)"),
}


class Digits(nn.Module):
    """A step and a linear layer that was trained on what it makes of digits."""

    def __init__(self, step: Callable[..., Any], known: Callable[..., Any]):
        super().__init__()
        self.step, self.known = step, known
        data, _ = digits_split()
        with torch.no_grad():
            features = step(data.x.flatten(1))
        self.read_out = nn.Linear(features.shape[1], 10)
        nn.init.zeros_(self.read_out.weight)
        optimiser = torch.optim.LBFGS(self.read_out.parameters(), max_iter=60)

        def loss() -> Tensor:
            optimiser.zero_grad()
            error = F.cross_entropy(self.read_out(features), data.y)
            error = error + 2e-3 * self.read_out.weight.square().sum()
            error.backward()
            return error

        with torch.enable_grad():
            optimiser.step(loss)
        self.requires_grad_(False).eval()

    def forward(self, x):
        return self.read_out(self.step(x.flatten(1)))
