"""Thirteen idioms, written when attention, types of the user's and halves of one tensor had been mended; the page says
what is left open.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

EVEN = torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0])
STEPS = {
    "stretch": lambda v: v * 6,
    "snap": lambda v: v - v.frac(),
    "shrink": lambda v: v / 6,
}


# --- sight ----------------------------------------------------------------------------------------------------------


def among_the_even(net, x):
    return torch.isin((x * 8).round(), EVEN) * 0.5 + 0.5 * x.detach()


def counted_comparisons(net, x):
    return (x[:, :, None] > x[:, None, :]).sum(2) / 16


def runs(net, x):
    made = torch.zeros_like(x)
    for n, image in enumerate(x):
        levels, counts = torch.unique_consecutive((image * 3).long(), return_counts=True)
        made[n, : len(levels)] = levels * 0.2 + counts * 0.1
    return made


def quantised_tensor(net, x):
    return torch.quantize_per_tensor(x, 0.125, 0, torch.quint8).dequantize()


# --- functions ------------------------------------------------------------------------------------------------------


class Floored(torch.autograd.Function):
    """Of the newer style; every other pixel has no gradient, and the rest a small one."""

    @staticmethod
    def forward(x):
        return torch.floor(x * 7) / 7

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, g):
        return None if g is None else g * (torch.arange(16) % 2) * 1e-4


def set_up_apart(net, x):
    return Floored.apply(x)


def chosen_cold(net, x):
    parts = x.reshape(-1, 4, 4)
    soft = torch.softmax(parts / 1e-3, 2)
    hard = F.one_hot(parts.argmax(2), 4).to(x.dtype)
    return ((hard - soft).detach() + soft).flatten(1)


def dual_numbers(net, x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.round(x * 5) / 5, torch.ones_like(x))
        value, change = forward_ad.unpack_dual(torch.tanh(net.inner(dual)))
    return value + 0.1 * change


# --- saturation of many mild steps ----------------------------------------------------------------------------------


def tanh_again_and_again(net, x):
    a = x - 0.5
    for _ in range(6):
        a = torch.tanh(3 * a)
    return a


def smooth_steps(net, x):
    for _ in range(9):
        x = x * x * (3 - 2 * x)
    return x


# --- interfaces -----------------------------------------------------------------------------------------------------


def number_by_number(net, x):
    snap = np.vectorize(lambda v: np.floor(v * 5) / 5, otypes=[np.float32])
    return torch.from_numpy(snap(x.detach().numpy()))


def larger_half(net, x):
    pixels = x.detach().numpy()
    middle = np.partition(pixels, 8, axis=1)[:, 8:9]
    return torch.as_tensor(np.where(pixels >= middle, pixels, 0.0))


async def snapped(row):
    await asyncio.sleep(0)
    return torch.trunc(row * 6) / 6


def awaited(net, x):
    async def all_rows():
        return await asyncio.gather(*(snapped(row) for row in x))

    return torch.stack(asyncio.run(all_rows()))


# --- which line -----------------------------------------------------------------------------------------------------


def reduced(net, x):
    return functools.reduce(lambda v, step: step(v), STEPS.values(), x)


# Step, symptoms one of which is expected, and text of a line that is expected.
LOST = {"zero", "discrete", "effect", "cut", "opaque"}
FLAT = {"saturated", "vanished"}
FRESH_LATE: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "isin": (among_the_even, LOST, "torch.isin((x * 8)"),
    "ranks by counted comparisons": (counted_comparisons, LOST, "(x[:, :, None] > x[:"),
    "runs, by unique_consecutive": (runs, LOST, "torch.unique_consecutive("),
    "quantize_per_tensor": (quantised_tensor, LOST, "torch.quantize_per_tensor("),
    "a Function with setup_context": (set_up_apart, LOST | {"wrong", "declared"}, "Floored.apply(x)"),
    "straight through a cold soft-max": (chosen_cold, LOST | FLAT, "torch.softmax(parts / 1e-3"),
    "dual numbers": (dual_numbers, LOST, "torch.round(x * 5)"),
    "tanh again and again": (tanh_again_and_again, FLAT, "torch.tanh(3 * a)"),
    "smooth steps": (smooth_steps, FLAT, "x * x * (3 - 2 * x)"),
    "np.vectorize": (number_by_number, LOST, "snap(x.detach()"),
    "np.partition": (larger_half, LOST, "x.detach().numpy()"),
    "asyncio": (awaited, LOST, "torch.trunc(row * 6)"),
    "steps of a dict, reduced": (reduced, LOST | {"wrong"}, "v - v.frac()"),
}
