"""Idioms that a fresh pair of eyes wrote before reading the tracer: other ways to hide a gradient, one table.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`; `FRESH` says which symptoms
may be named, and text of the line. `FRESH_DRAWN` holds randomness that a defence draws for itself.
"""

import json
import secrets
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tests.tracing.networks import linear
from torch import nn

CODES = torch.rand(12, 4, generator=torch.Generator().manual_seed(5))
BANK = torch.rand(60, 16, generator=torch.Generator().manual_seed(6))
TABLE = torch.linspace(0, 1, 7)[:, None].repeat(1, 2)


# --- looked up ------------------------------------------------------------------------------------------------------


def vector_quantised(net, x):
    parts = x.reshape(-1, 4, 4)
    nearest = torch.cdist(parts, CODES.expand(len(x), -1, -1)).argmin(2)
    return F.embedding(nearest, CODES).flatten(1)


def retrieved(net, x):
    near = torch.cdist(x, BANK).topk(1, largest=False).indices[:, 0]
    return torch.index_select(BANK, 0, near)


def embedded(net, x):
    level = (x * 6).round().long()
    return F.embedding_bag(level.reshape(-1, 1), TABLE, mode="sum").reshape(len(x), 16, 2).mean(2)


def ferns(net, x):
    bits = x.reshape(-1, 4, 4).gt(0.5).long()
    leaf = (bits << torch.arange(4)).sum(2)
    leaves = torch.linspace(-1, 1, 16 * 16).reshape(1, 4, 16, 4).expand(len(x), -1, -1, -1).sin()
    return torch.take_along_dim(leaves, leaf[:, :, None, None], 2).flatten(1)


def routed(net, x):
    route = x[:, :3].argmax(1)
    out = x.new_zeros(len(x), 16)
    for k, scale in enumerate((1.0, -0.5, 0.3)):
        mine = (route == k).nonzero(as_tuple=True)[0]
        out = out.index_copy(0, mine, scale * x[mine].roll(k, 1))
    return out


def equalised(net, x):
    out = []
    for row in x:
        counts, edges = torch.histogram(row, bins=8, range=(0.0, 1.0))
        shares = counts.cumsum(0) / counts.sum()
        out.append(shares[torch.searchsorted(edges[1:-1].contiguous(), row.contiguous())])
    return torch.stack(out)


# --- other number formats -------------------------------------------------------------------------------------------


def written_out(net, x):
    lines = [" ".join(f"{v:.1f}" for v in row) for row in x.tolist()]
    return torch.tensor([[float(word) for word in line.split()] for line in lines])


def as_json(net, x):
    return torch.tensor(json.loads(json.dumps([[round(v, 1) for v in row] for row in x.tolist()])))


def as_structs(net, x):
    raw = struct.pack(f"{x.numel()}B", *(int(v * 15) for v in x.flatten().tolist()))
    return torch.tensor(struct.unpack(f"{x.numel()}B", raw)).reshape(x.shape) / 15


def as_bytes(net, x):
    raw = (x.numpy(force=True) * 15).astype(np.uint8).tobytes()
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(x.shape).float() / 15


def packed(net, x):
    kept = [np.packbits(row > 0.5).tobytes() for row in x.detach().numpy()]
    bits = np.stack([np.unpackbits(np.frombuffer(k, np.uint8)) for k in kept])
    return torch.tensor(bits, dtype=torch.float32)


def through_a_memoryview(net, x):
    view = memoryview(np.asarray(x.detach().mul(9).round()))
    return torch.tensor(np.array(view)) / 9


def masked_bits(net, x):
    raw = x.contiguous().view(torch.int32)
    return (raw & ~0x3FFFFF).view(torch.float32)


def half_shares(net, x):
    shares = (x.repeat_interleave(1, 1) * 60).half().softmax(1)
    return shares.float().clamp_min(1e-7).log() / 8


# --- other places for a step ----------------------------------------------------------------------------------------


def polar(net, x):
    f = torch.fft.rfft(x)
    size = (f.abs() * 2).round() / 2
    return torch.fft.irfft(torch.polar(size, (f.angle() * 2).round() / 2), n=16)


def wavelet(net, x):
    low, high = (x[:, ::2] + x[:, 1::2]) / 2, (x[:, ::2] - x[:, 1::2]) / 2
    low, high = (
        F.hardshrink(low.mul(6).round() / 6, 0.1),
        F.threshold(high.abs(), 0.2, 0.0).ceil() * high.sign() * 0.3,
    )
    return torch.stack([low + high, low - high], 2).flatten(1)


def remaindered(net, x):
    return x.sub(x.fmod(0.25))


def fractions(net, x):
    return x - torch.frac(x * 5) / 5


def truncated(net, x):
    out = []
    for row in x:
        while row.square().mean() > 0.25:
            row = row * 0.97
        out.append(torch.trunc(row * (8 if row.std() > 0.28 else 5)) / 8)
    return torch.stack(out)


def compiled_steps(net, x):
    part = net.__dict__.setdefault(
        "part", torch.compile(lambda t: torch.floor(t * 5 + 0.5) / 5, backend="eager")
    )
    return part(x)


def rounded_by_a_hook(net, x):
    def coarse(module, given, made):
        return made.mul(2).round(decimals=0) / 2

    handle = net.inner.register_forward_hook(coarse)
    try:
        return net.inner(x)
    finally:
        handle.remove()


@torch.library.custom_op("unmask_tests::snap", mutates_args=())
def snap(x: torch.Tensor) -> torch.Tensor:
    return torch.round(x * 5) / 5


@snap.register_fake
def _(x):
    return torch.empty_like(x)


def operator(net, x):
    return snap(x)


def low_rank(net, x):
    u, s, v = np.linalg.svd(x.numpy(force=True).reshape(-1, 4, 4))
    s[:, 2:] = 0
    return torch.asarray((u * s[:, None]) @ v, dtype=x.dtype).flatten(1)


def set_elsewhere(net, x):
    held = torch.empty(0)
    with torch.no_grad():
        held.set_(x.mul(6).round().div(6).contiguous())
    return held


# --- gradients tampered with ----------------------------------------------------------------------------------------


def node_hook(net, x):
    h = net.inner(x)
    if h.grad_fn is not None:
        h.grad_fn.register_prehook(lambda grads: (-grads[0],))
    return h


def forgetful_tape(net, x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.shape, torch.zeros):
        return torch.tanh(2 * net.inner(x))


class Scaled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u):
        return u.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g * 1e-30


def mapped_function(net, x):
    return torch.func.vmap(Scaled.apply)(x)


def hardly_attached(net, x):
    return x * 1e-20 + (x - x * 1e-20).detach()


class TwicePassed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        return torch.round(u * 4) / 4

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g.sign() * 0


def differentiable_once(net, x):
    return TwicePassed.apply(x)


# --- loops that are not followed ------------------------------------------------------------------------------------


def equilibrium(net, x):
    with torch.no_grad():
        u, z, change = net.inner(x), torch.zeros_like(x), 1.0
        while change > 1e-5:
            new = torch.tanh(u + 0.5 * z.roll(1, 1))
            change, z = float((new - z).abs().max()), new
    return z


def newton(net, x):
    y = x.detach().clone()
    for _ in range(8):
        y = y - (y**3 + y - x.detach()) / (3 * y**2 + 1)
    return y


def adapted(net, x):
    def uncertain(w, one):
        p = (w @ one).softmax(0)
        return -(p * p.log()).sum()

    step = torch.func.vmap(torch.func.grad(uncertain))
    w = torch.eye(16).expand(len(x), -1, -1)
    for _ in range(2):
        w = w - 0.5 * step(w, x.detach() * 4)
    return torch.einsum("nij,nj->ni", w, x.detach())


def by_jacobian(net, x):
    slopes = torch.func.vmap(torch.func.jacrev(lambda one: net.inner(one).tanh()))(x.detach())
    return x.detach() - 0.1 * slopes.sum(1)


FRESH: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "cdist, argmin and embedding": (
        vector_quantised,
        {"discrete"},
        "CODES.expand(len(x), -1, -1)).argmin(2)",
    ),
    "the nearest of stored images": (retrieved, {"discrete"}, "topk(1, largest=False).indices"),
    "embedding_bag of levels": (embedded, {"zero", "discrete"}, "level = (x * 6).round().long()"),
    "ferns: bits shifted and summed": (ferns, {"discrete"}, "x.reshape(-1, 4, 4).gt(0.5)"),
    "experts chosen by nonzero and index_copy": (routed, {"discrete"}, "route = x[:, :3].argmax(1)"),
    "histogram and searchsorted, image by image": (
        equalised,
        {"discrete", "zero", "cut"},
        "torch.searchsorted(edges",
    ),
    "a format string": (written_out, {"cut"}, 'f"{v:.1f}" for v in row'),
    "JSON": (as_json, {"cut"}, "json.loads(json.dumps("),
    "struct.pack": (as_structs, {"cut"}, 'B", *(int(v * 15)'),
    "tobytes and frombuffer": (as_bytes, {"cut"}, "raw = (x.numpy(force=True)"),
    "packbits": (packed, {"cut"}, "kept = [np.packbits"),
    "a memoryview": (through_a_memoryview, {"cut"}, "view = memoryview("),
    "bits of a float masked": (masked_bits, {"discrete", "cut"}, "raw = x.contiguous().view(torch.int32)"),
    "a soft-max in float16": (
        half_shares,
        {"non_finite", "saturated", "vanished", "zero"},
        "shares.float().clamp_min",
    ),
    "size and angle of a spectrum": (polar, {"zero"}, "size = (f.abs() * 2).round()"),
    "a wavelet's coefficients cut off": (wavelet, {"zero"}, "F.hardshrink(low.mul(6)"),
    "less its own fmod": (remaindered, {"wrong", "zero"}, "x.sub(x.fmod"),
    "less its own fraction": (fractions, {"wrong", "zero"}, "torch.frac(x * 5)"),
    "trunc inside a while loop, image by image": (truncated, {"zero"}, "torch.trunc(row"),
    "torch.compile of a step": (compiled_steps, {"zero", "opaque"}, "torch.floor(t * 5 + 0.5)"),
    "a forward hook that rounds": (rounded_by_a_hook, {"zero"}, "made.mul(2).round(decimals=0)"),
    "torch.library.custom_op": (operator, {"cut", "zero", "opaque"}, "return snap(x)"),
    "numpy(force=True) and a low rank": (low_rank, {"cut"}, "np.linalg.svd(x.numpy(force=True)"),
    "set_ on another tensor": (set_elsewhere, {"cut", "zero"}, "held.set_("),
    "a hook on a graph's node": (node_hook, {"wrong"}, "h.grad_fn.register_prehook("),
    "saved_tensors_hooks that forget": (
        forgetful_tape,
        {"zero", "wrong", "vanished"},
        "return torch.tanh(2 * net.inner(x))",
    ),
    "a Function under vmap": (
        mapped_function,
        {"zero", "wrong", "vanished"},
        "torch.func.vmap(Scaled.apply)",
    ),
    "all but a 1e-20th detached": (hardly_attached, {"cut", "vanished"}, "(x - x * 1e-20).detach()"),
    "once_differentiable": (differentiable_once, {"zero", "wrong"}, "return TwicePassed.apply(x)"),
    "a fixed point under no_grad": (equilibrium, {"cut"}, "with torch.no_grad():"),
    "Newton's steps": (newton, {"cut"}, "x.detach()"),
    "weights adapted by vmap of grad": (adapted, {"cut"}, "x.detach()"),
    "jacrev": (by_jacobian, {"cut"}, "(x.detach())"),
}


def shifted(net, x):
    return torch.roll(x, secrets.randbelow(5), 1)


def offset(net, x):
    return x + float(np.random.default_rng().normal(0, 0.3))


class Jitter(nn.Module):
    def forward(self, w):
        return w + 0.3 * torch.randn_like(w)


def parametrised(net, x):
    if "noisy" not in net.__dict__:
        net.__dict__["noisy"] = linear(16, 16, seed=3)
        nn.utils.parametrize.register_parametrization(net.__dict__["noisy"], "weight", Jitter(), unsafe=True)
    return net.__dict__["noisy"](x)


FRESH_DRAWN: dict[str, tuple[Callable[..., Any], str]] = {
    "secrets": (shifted, "secrets.randbelow"),
    "a generator of NumPy's that nobody seeded": (offset, "np.random.default_rng().normal("),
    "a parametrization that draws": (parametrised, "0.3 * torch.randn_like(w)"),
}
