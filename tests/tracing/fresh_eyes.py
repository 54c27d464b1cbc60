"""Idioms that another pair of eyes wrote before it had read the tracer, in the end beside what was mended for them.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from scipy import ndimage
from tests.tracing.networks import linear

CURVE = torch.tensor([0.0, 0.35, 0.1, 0.6, 0.45, 0.9, 0.7, 1.0])
ATOMS = F.normalize(torch.randn(16, 16, generator=torch.Generator().manual_seed(3)), dim=1)
TEMPLATES = torch.rand(16, 16, generator=torch.Generator().manual_seed(7)) > 0.5
STORED = torch.rand(60, 16, generator=torch.Generator().manual_seed(9))
LABELS = torch.arange(60) % 16
HEADS = [linear(16, 16, seed=n) for n in range(20, 25)]


# --- quantisers -----------------------------------------------------------------------------------------------------


def levels_by_einsum(net, x):
    hot = F.one_hot((x * 4).round().long(), 5).to(x.dtype)
    return torch.einsum("npl,l->np", hot, torch.linspace(0, 1, 5))


def tone_curve(net, x):
    index = torch.floor(x * 7.999).to(torch.int64)
    return torch.take_along_dim(CURVE.expand(len(x), -1), index, 1)


def chain(net, x):
    return torch.where(x < 0.3, 0.1, torch.where(x < 0.5, 0.4, torch.where(x < 0.7, 0.55, 0.9)))


def shifted_back(net, x):
    level = (x * 255).int()
    return ((level >> 5) << 5).float() / 255


def mantissa(net, x):
    part, exponent = torch.frexp(x + 0.01)
    return torch.ldexp(torch.round(part * 4) / 4, exponent)


def spectrum_on_a_grid(net, x):
    pairs = torch.view_as_real(torch.fft.rfft(x, norm="ortho"))
    pairs = torch.round(pairs * 2.5) / 2.5
    return torch.fft.irfft(torch.view_as_complex(pairs), n=16, norm="ortho")


def sizes_in_octaves(net, x):
    z = torch.fft.fft(x, norm="ortho")
    size = torch.exp2(torch.round(torch.log2(z.abs() + 1e-3)))
    return torch.fft.ifft(torch.polar(size, z.angle()), norm="ortho").real


def error_diffusion(net, x):
    x = x.clone()
    for n in range(16):
        old = x[:, n].clone()
        x[:, n] = (old * 3).round().clamp(0, 3) / 3
        if n < 15:
            x[:, n + 1] += (old - x[:, n]) * 0.7
    return x


def gray_code(net, x):
    level = (x.reshape(-1, 4, 4).mean(2) * 15).round().long()
    code = level ^ (level >> 1)
    return torch.stack([(code >> n) & 1 for n in range(4)], 2).flatten(1).float()


# --- statistics of the image ----------------------------------------------------------------------------------------


def equalised_by_cumsum(net, x):
    level = (x * 15).round().long()
    share = F.one_hot(level, 16).sum(1).cumsum(1).float() / 16
    return share.gather(1, level)


def sorting_network(net, x):
    parts = list(x.reshape(-1, 4, 4).unbind(1))
    keys = [p.mean(1, keepdim=True) for p in parts]
    for i, j in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
        swap = (keys[i] < keys[j]).float()
        parts[i], parts[j] = parts[i] * (1 - swap) + parts[j] * swap, parts[j] * (1 - swap) + parts[i] * swap
        keys[i], keys[j] = keys[i] * (1 - swap) + keys[j] * swap, keys[j] * (1 - swap) + keys[i] * swap
    return torch.cat(parts, 1)


def local_binary_patterns(net, x):
    ring = torch.stack([x.roll(-1, 1), x.roll(1, 1), x.roll(4, 1), x.roll(-4, 1)], 2)
    bits = (ring >= x[:, :, None] + 0.05).long()
    code = (bits * torch.tensor([1, 2, 4, 8])).sum(2)
    return F.one_hot(code, 16).float().mean(1) * 4


def oriented_gradients(net, x):
    across, along = x - x.roll(1, 1), x - x.roll(4, 1)
    size = (across**2 + along**2 + 1e-6).sqrt()
    sector = torch.floor((torch.atan2(along, across) / math.pi + 1) * 7.9999).long()
    return torch.zeros(len(x), 16).scatter_add(1, sector, size)


def otsu(net, x):
    made = []
    for image in x:
        cuts = [t for t in np.linspace(0.2, 0.8, 13) if 0 < int((image > t).sum()) < 16]
        spread = {t: float(image[image > t].mean() - image[image <= t].mean()) for t in cuts}
        best = max(spread, key=lambda t: spread[t] ** 2)
        made.append((image > best).float())
    return torch.stack(made)


def centred(net, x):
    made = []
    for image in x:
        middle = (image * torch.arange(16.0)).sum() / image.sum()
        made.append(torch.roll(image, 8 - int(torch.round(middle * 2 - 7.5)), 0))
    return torch.stack(made)


def first_bright_pixel(net, x):
    rows = x.reshape(-1, 4, 4)
    sides = torch.cat([rows, rows.transpose(1, 2), rows.flip(2), rows.transpose(1, 2).flip(2)], 1)
    bright = sides > 0.55
    return bright.int().argmax(2).masked_fill(~bright.any(2), 4).float() / 4


# --- codes ----------------------------------------------------------------------------------------------------------


def matching_pursuit(net, x):
    rest, code = x - 0.5, torch.zeros_like(x)
    for _ in range(4):
        fit = rest @ ATOMS.T
        k = fit.abs().argmax(1)
        size = fit.gather(1, k[:, None])
        code = code.scatter_add(1, k[:, None], size)
        rest = rest - size * ATOMS[k]
    return code


def peaks_alone(net, x):
    h = net.inner(x).relu()
    return ((h == F.max_pool1d(h, 3, 1, 1)) & (h > 0.1)).float()


def popcount(net, x):
    bits = x > 0.5
    return torch.stack([torch.logical_xor(bits, t).sum(1) for t in TEMPLATES], 1).float() / 4


# --- a backward pass that says something else -----------------------------------------------------------------------


class SmallPart(torch.autograd.Function):
    """Hands the smallest third of a gradient back."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(2 * x - 1)

    @staticmethod
    def backward(ctx, g):
        keep = g.abs() <= g.abs().quantile(0.3, 1, keepdim=True)
        return g * keep * 2 * (1 - torch.tanh(2 * ctx.saved_tensors[0] - 1) ** 2)


def small_gradients_alone(net, x):
    return SmallPart.apply(x)


def noise_for_a_gradient(net, x):
    h = net.inner(x)
    if h.requires_grad:
        h.register_hook(lambda g: torch.randn(g.shape, generator=torch.Generator().manual_seed(5)))
    return h


def nan_to_num(net, x):
    return torch.nan_to_num(torch.sqrt(x - 0.5), nan=0.0)


def cooled_by_its_gradient(net, x):
    with torch.enable_grad():
        d = x.detach().requires_grad_()
        z = net.inner(d)
        (g,) = torch.autograd.grad(z.logsumexp(1).sum(), d)
    return z.detach() / (1e-3 + g.norm(dim=1, keepdim=True))


def linearised_at_a_rounded_point(net, x):
    at = torch.round(x * 3) / 3
    z, change = torch.func.jvp(lambda v: net.inner(v).tanh(), (at,), (0.1 * (x - at),))
    return z + change


# --- decisions ------------------------------------------------------------------------------------------------------


def vote(net, x):
    votes = torch.stack([head(x.roll(n, 1)).argmax(1) for n, head in enumerate(HEADS)], 1)
    return F.one_hot(votes, 16).sum(1).float()


def early_exit(net, x):
    first = net.inner(x)
    sure = x.mean(1) > 0.5
    out = first.clone()
    if (~sure).any():
        out[~sure] = HEADS[0](torch.trunc(x[~sure] * 4) / 4)
    return out


def votes_of_neighbours(net, x):
    near = (F.normalize(x - 0.5, dim=1) @ F.normalize(STORED - 0.5, dim=1).T).topk(7, 1).indices
    return torch.zeros_like(x).scatter_add(1, LABELS[near], torch.ones(len(x), 7))


def noise_seeded_by_the_image(net, x):
    made = []
    for image in x:
        generator = torch.Generator().manual_seed(int((image * 255).to(torch.uint8).sum()))
        made.append(image + 0.15 * torch.randn(16, generator=generator))
    return torch.stack(made)


# --- other libraries ------------------------------------------------------------------------------------------------


def filtered_by_pil(net, x):
    made = []
    for image in x.reshape(-1, 4, 4):
        picture = Image.fromarray((image.detach().numpy() * 255).astype("uint8"))
        picture = ImageOps.posterize(picture.filter(ImageFilter.MedianFilter(3)), 3)
        made.append(torch.from_numpy(np.asarray(picture, dtype="float32") / 255).flatten())
    return torch.stack(made)


def blurred_by_scipy(net, x):
    blurred = ndimage.gaussian_filter(x.detach().numpy().astype(np.float64), sigma=(0, 0.8))
    return torch.as_tensor(blurred, dtype=x.dtype)


def components(net, x):
    kept = []
    for row in x.detach().numpy():
        labels, found = ndimage.label(row > 0.45)
        sizes = ndimage.sum(np.ones_like(labels), labels, range(found + 1))
        kept.append((sizes[labels] >= 3) & (labels > 0))
    return torch.from_numpy(np.stack(kept)).to(x.dtype)


def low_rank_in_bins(net, x):
    u, s, v = np.linalg.svd(x.detach().reshape(-1, 4, 4).numpy())
    s[:, 2:] = 0
    bins = np.digitize((u * s[:, None]) @ v, np.linspace(0.1, 0.9, 7))
    return torch.from_numpy(bins.astype("float32")).flatten(1) / 7


# Step, symptoms one of which is expected, and text of a line that is expected.
LOST = {"zero", "discrete", "effect", "cut", "opaque"}
FRESH_EYES: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "one-hot levels by einsum": (levels_by_einsum, LOST, "(x * 4).round().long()"),
    "a tone curve by take_along_dim": (tone_curve, LOST, "torch.floor(x * 7.999)"),
    "a chain of where": (chain, LOST, "torch.where(x < 0.3"),
    "shifted right and back": (shifted_back, LOST, "(x * 255).int()"),
    "frexp and ldexp": (mantissa, LOST, "torch.round(part * 4)"),
    "a spectrum on a grid, by view_as_real": (spectrum_on_a_grid, LOST, "torch.round(pairs * 2.5)"),
    "polar, sizes in octaves": (sizes_in_octaves, LOST, "torch.round(torch.log2("),
    "error diffusion": (error_diffusion, LOST, "(old * 3).round()"),
    "a Gray code": (gray_code, LOST, ".mean(2) * 15).round()"),
    "equalised by cumsum and gather": (equalised_by_cumsum, LOST, "level = (x * 15)"),
    "a sorting network's swaps": (sorting_network, LOST, "keys[i] < keys[j]"),
    "local binary patterns": (local_binary_patterns, LOST, "ring >= x"),
    "orientations by scatter_add": (oriented_gradients, LOST, "sector = torch.floor("),
    "Otsu's threshold": (otsu, LOST, "(image > best).float()"),
    "rolled to the centre of mass": (centred, LOST, "made.append(torch.roll("),
    "the first bright pixel": (first_bright_pixel, LOST, "bright = sides > 0.55"),
    "matching pursuit": (matching_pursuit, LOST, "fit.abs().argmax(1)"),
    "peaks by max_pool1d and equality": (peaks_alone, LOST, "F.max_pool1d(h, 3, 1, 1)"),
    "logical_xor and a count": (popcount, LOST, "bits = x > 0.5"),
    "a backward of the small part": (small_gradients_alone, {"wrong", "declared"}, "SmallPart.apply(x)"),
    "a hook that hands noise back": (noise_for_a_gradient, {"wrong", "random"}, "h.register_hook("),
    "nan_to_num of a root": (nan_to_num, {"non_finite", "zero"}, "torch.nan_to_num(torch.sqrt("),
    "a temperature of the gradient's size": (cooled_by_its_gradient, {"cut"}, "z.detach() / "),
    "jvp at a rounded point": (linearised_at_a_rounded_point, LOST, "torch.round(x * 3)"),
    "a vote of five": (vote, LOST, "head(x.roll(n, 1)).argmax(1)"),
    "an early exit": (early_exit, LOST, "torch.trunc(x[~sure]"),
    "votes of the nearest": (votes_of_neighbours, LOST, ".topk(7, 1).indices"),
    "noise that each image seeds": (noise_seeded_by_the_image, LOST, "manual_seed(int((image * 255)"),
    "PIL's median and posterize": (filtered_by_pil, LOST, "image.detach().numpy() * 255"),
    "SciPy's Gaussian": (blurred_by_scipy, {"cut"}, "ndimage.gaussian_filter("),
    "SciPy's components": (components, {"cut"}, "x.detach().numpy():"),
    "a low rank in bins of NumPy": (low_rank_in_bins, {"cut"}, "np.linalg.svd(x.detach()"),
}
