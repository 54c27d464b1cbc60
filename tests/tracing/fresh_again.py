"""Twenty idioms more, written when the tracer was done and tried on it as they stand; the page says what is left open.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`.
"""

import decimal
import fractions
import io
import mmap
import multiprocessing.pool
import sqlite3
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage, signal
from tests.tracing.idioms import energy

CODEBOOK = torch.rand(24, 2, generator=torch.Generator().manual_seed(11))


def in_decimals(net, x):
    cent = decimal.Decimal("0.1")
    return torch.tensor([[float(decimal.Decimal(v).quantize(cent)) for v in row] for row in x.tolist()])


def as_fractions(net, x):
    rows = [[fractions.Fraction(v).limit_denominator(7) for v in row] for row in x.detach().tolist()]
    return torch.tensor([[float(v) for v in row] for row in rows])


def in_a_database(net, x):
    with sqlite3.connect(":memory:") as base:
        base.execute("create table pixels (v real)")
        base.executemany("insert into pixels values (round(?, 1))", [(v,) for v in x.flatten().tolist()])
        cells = base.execute("select v from pixels order by rowid").fetchall()
    return torch.tensor(cells).reshape(x.shape)


def in_shared_memory(net, x):
    held = mmap.mmap(-1, x.numel() * 4)
    held.write(x.detach().mul(8).round().numpy().tobytes())
    return torch.frombuffer(held, dtype=torch.float32).reshape(x.shape).clone() / 8


def by_a_pool(net, x):
    with multiprocessing.pool.ThreadPool(2) as pool:
        rows = pool.map(lambda row: (row * 6).round() / 6, list(x.detach()))
    return torch.stack(rows)


def in_an_archive(net, x):
    file = io.BytesIO()
    raw = (x.detach() * 200).byte().numpy().tobytes()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("x")
        entry.size = len(raw)
        tar.addfile(entry, io.BytesIO(raw))
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        back = tar.extractfile("x").read()
    return torch.tensor(list(back)).reshape(x.shape) / 200


def reduced_and_rebuilt(net, x):
    given = x.detach().mul(7).round().div(7)
    rebuild, parts = given.__reduce_ex__(2)[:2]
    return rebuild(*parts)


def filtered_by_scipy(net, x):
    return torch.from_numpy(ndimage.median_filter(x.detach().numpy(), size=(1, 3)))


def resampled(net, x):
    coarse = signal.resample(x.detach().numpy(), 8, axis=1)
    return torch.from_numpy(signal.resample(coarse, 16, axis=1).astype(np.float32))


def bits_by_hand(net, x):
    level = (x * 15).to(torch.uint8)
    planes = torch.stack([level.bitwise_right_shift(n).bitwise_and(1) for n in range(4)])
    return (planes[2:] * torch.tensor([4, 8])[:, None, None]).sum(0) / 12


def stochastic_free_dither(net, x):
    pattern = torch.arange(16) % 4 / 4
    return torch.floor(x * 4 + pattern) / 4


def product_quantised(net, x):
    parts = x.reshape(len(x), 8, 2)
    far = (parts[:, :, None] - CODEBOOK).pow(2).sum(3)
    return (F.one_hot(far.min(2).indices, 24).float() @ CODEBOOK).flatten(1)


def hashed(net, x):
    sign = torch.where(net.inner(x) > 0, 1.0, -1.0)
    return sign.cumprod(1)


def sorted_out(net, x):
    order = x.sort(1).indices
    return torch.zeros_like(x).scatter_(1, order, torch.linspace(0, 1, 16).expand(len(x), -1).contiguous())


def sinkhorn(net, x):
    with torch.no_grad():
        plan = torch.softmax(40 * net.inner(x).reshape(-1, 4, 4), 2)
        for _ in range(5):
            plan = plan / plan.sum(1, keepdim=True).clamp_min(1e-6)
            plan = plan / plan.sum(2, keepdim=True)
    return plan.flatten(1)


def langevin_without_noise(net, x):
    z = x.detach().clone()
    for _ in range(3):
        z.requires_grad_(True)
        with torch.enable_grad():
            loss = energy(net.inner(z))
            loss.backward()
        z = (z.detach() - 0.03 * z.grad).clamp(0, 1)
    return z


def lookahead(net, x):
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        first = torch.autograd.grad(energy(net.inner(z)), z)[0]
        second = torch.autograd.grad(energy(net.inner(z - 0.05 * first)), z)[0]
    return (z - 0.05 * second).detach()


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        return u.mul(1)

    @staticmethod
    def backward(ctx, g):
        return -g


def module_hook(net, x):
    handle = net.inner.register_full_backward_hook(lambda module, given, made: (given[0] * 0,))
    try:
        return net.inner(x)
    finally:
        handle.remove()


def reversed_in_a_loop(net, x):
    return torch.cat([Reversed.apply(part) for part in x.split(4, 1)], 1)


def hook_on_a_slice(net, x):
    h = net.inner(x).tanh()
    part = h[:, :12]
    if part.requires_grad:
        part.register_hook(lambda g: -3 * g)
    return torch.cat([part, h[:, 12:]], 1)


FRESH_AGAIN: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "decimals": (in_decimals, {"cut"}, "decimal.Decimal(v)"),
    "fractions": (as_fractions, {"cut"}, "limit_denominator(7)"),
    "a database": (in_a_database, {"cut"}, "base.executemany"),
    "shared memory": (in_shared_memory, {"cut"}, "held.write("),
    "a pool of threads": (by_a_pool, {"cut"}, "rows = pool.map("),
    "a tar archive": (in_an_archive, {"cut"}, "raw = (x.detach() * 200)"),
    "rebuilt from its own parts": (reduced_and_rebuilt, {"cut"}, "given = x.detach().mul(7)"),
    "SciPy's median": (filtered_by_scipy, {"cut"}, "ndimage.median_filter("),
    "SciPy's resampling": (resampled, {"cut"}, "coarse = signal.resample("),
    "bit planes": (bits_by_hand, {"discrete", "zero"}, "level = (x * 15)"),
    "an ordered dither": (stochastic_free_dither, {"zero"}, "torch.floor(x * 4"),
    "a product quantiser": (product_quantised, {"discrete"}, "far.min(2).indices"),
    "signs multiplied up": (hashed, {"discrete"}, "torch.where(net.inner(x) > 0"),
    "ranks scattered": (sorted_out, {"discrete"}, "order = x.sort(1)"),
    "Sinkhorn's iterations": (sinkhorn, {"cut", "saturated"}, "with torch.no_grad():"),
    "descent in a loop": (langevin_without_noise, {"cut"}, "z = x.detach().clone()"),
    "a look ahead": (lookahead, {"cut"}, "z = x.detach().requires_grad_()"),
    "a module's backward hook": (
        module_hook,
        {"zero", "wrong", "vanished", "cut"},
        "net.inner.register_full",
    ),
    "a backward turned round, part by part": (reversed_in_a_loop, {"wrong"}, "Reversed.apply(part)"),
    "a hook on a slice": (hook_on_a_slice, {"wrong"}, "part.register_hook("),
}
