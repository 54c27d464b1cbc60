"""Random numbers that belong to an example, not to its place in a batch.

An example's result must not depend on the batch size, on which other examples are still in the batch, or on the
number of processes (SPEC, section 5). A `torch.Generator` cannot promise that: its next draw depends on how much was
drawn for everybody else. `Streams` gives each example its own counter-based stream (splitmix64, Steele et al. 2014),
vectorised and equal on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _wrap(number: int) -> int:
    """A Python integer modulo 2^64, as a signed one: torch refuses numbers that do not fit."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift_right(z: Tensor, bits: int, out: Tensor | None = None) -> Tensor:
    return torch.bitwise_right_shift(z, bits, out=out).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """The output function of splitmix64; `z` is scratch memory afterwards."""
    mixed = _shift_right(z, 30).bitwise_xor_(z).mul_(_MIX_1)
    z = _shift_right(mixed, 27, out=z).bitwise_xor_(mixed).mul_(_MIX_2)
    return _shift_right(z, 31, out=mixed).bitwise_xor_(z)


def _tag_number(tag: str) -> int:
    return int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "little", signed=True)


class Streams:
    """One independent random stream per example.

    Every draw returns `[batch, *shape]` and advances the counter by one. Indexing keeps the chosen examples' streams,
    so a batch that shrinks goes on drawing the same numbers for those that remain.

    >>> whole = Streams.seeded(0, torch.arange(4))
    >>> part = Streams.seeded(0, torch.tensor([1, 3]))
    >>> bool((whole.uniform(5)[[1, 3]] == part.uniform(5)).all())
    True
    """

    def __init__(self, seeds: Int[Tensor, " batch"], counter: int = 0):
        self.seeds = seeds
        self.counter = counter

    @classmethod
    def seeded(cls, seed: int, index: Int[Tensor, " batch"], tag: str = "") -> Streams:
        """Streams named by an experiment's seed, each example's index in the data set, and a tag such as an attack."""
        start = torch.full_like(index, _wrap(seed * _GOLDEN + _tag_number(tag)), dtype=torch.int64)
        return cls(_mix(_mix(start) + index.to(torch.int64) * _GOLDEN))

    @classmethod
    def of(cls, generator: torch.Generator | Streams, batch: int) -> Streams:
        """Streams as they are, or `batch` new ones seeded from a `torch.Generator`."""
        if isinstance(generator, Streams):
            return generator
        seeds = torch.empty(batch, dtype=torch.int64, device=generator.device)
        return cls(seeds.random_(generator=generator))

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: Tensor | slice) -> Streams:
        if isinstance(index, Tensor):
            index = index.to(self.seeds.device)
        return Streams(self.seeds[index], self.counter)

    def fork(self, tag: str) -> Streams:
        """Fresh streams for a sub-task; the parent's own draws stay where they are."""
        return Streams(_mix(self.seeds + _wrap(_tag_number(tag) + self.counter * _GOLDEN)))

    def spawn(self, tag: str) -> Streams:
        """Like `fork`, and moves on: the next call gives other streams, however much these draw."""
        child = self.fork(tag)
        self.counter += 1
        return child

    def _bits(self, shape: tuple[int, ...], device: torch.device | str | None) -> Tensor:
        self.counter += 1
        seeds = self.seeds if device is None else self.seeds.to(device)
        start = _mix(seeds + _wrap(self.counter * _GOLDEN))
        place = torch.arange(1, math.prod(shape) + 1, device=seeds.device) * _GOLDEN
        return _mix(start[:, None] + place).reshape(len(seeds), *shape)

    def uniform(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "batch *shape"]:
        """Float32 in [0, 1), 24 bits."""
        bits = self._bits(shape, device)
        return _shift_right(bits, 40, out=bits).to(torch.float32).mul_(2.0**-24)

    def normal(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "batch *shape"]:
        """Standard normal float32, by Box and Muller (1958)."""
        radius = 1 - self.uniform(*shape, device=device)  # in (0, 1], so that the logarithm is finite
        angle = self.uniform(*shape, device=device)
        return (-2 * radius.log()).sqrt() * torch.cos(2 * math.pi * angle)

    def integers(
        self, low: int, high: int, *shape: int, device: torch.device | str | None = None
    ) -> Int[Tensor, "batch *shape"]:
        """Integers in [low, high)."""
        return low + _shift_right(self._bits(shape, device), 1) % (high - low)

    def signs(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "batch *shape"]:
        """Minus one or plus one, equally likely."""
        return (1 - 2 * self.integers(0, 2, *shape, device=device)).to(torch.float32)

    def batch_seed(self) -> int:
        """One seed in [0, 2^63) for code that only knows global seeds, such as a third-party random layer."""
        self.counter += 1
        return int(_mix(self.seeds + _wrap(self.counter * _GOLDEN)).sum()) & (2**63 - 1)


class SampleStreams(Streams):
    """Streams of many points of *one* example: the draws come from one sequential generator of torch.

    Several times faster than a stream per point, and enough where the points belong together: their numbers depend on
    the example's seed and on how many points are drawn at a time, not on any other example. Indexing and forking give
    ordinary streams, one per point.

    >>> points = SampleStreams(Streams.seeded(0, torch.tensor([7])), 3)
    >>> points.uniform(2).shape
    torch.Size([3, 2])
    """

    def __init__(self, example: Streams, points: int):
        seed = example.batch_seed()
        super().__init__(
            Streams(torch.tensor([seed], device=example.seeds.device)).integers(0, 2**62, points)[0]
        )
        self.generator = torch.Generator(self.seeds.device).manual_seed(seed)

    def uniform(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "batch *shape"]:
        return self._drawn(torch.rand, shape, device)

    def normal(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "batch *shape"]:
        return self._drawn(torch.randn, shape, device)

    def integers(
        self, low: int, high: int, *shape: int, device: torch.device | str | None = None
    ) -> Int[Tensor, "batch *shape"]:
        return self._drawn(partial(torch.randint, low, high), shape, device)

    def signs(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "batch *shape"]:
        # Eight signs are looked up for each random byte, which takes a fraction of the time of a number for each.
        count = math.prod(shape)
        octets = self.integers(0, 256, -(-count // 8), device=device)
        bits = torch.arange(256, device=octets.device)[:, None] >> torch.arange(8, device=octets.device) & 1
        looked_up = (1.0 - 2 * bits).index_select(0, octets.flatten())
        return looked_up.reshape(len(self), -1)[:, :count].reshape(len(self), *shape)

    def _drawn(
        self, draw: Callable[..., Tensor], shape: tuple[int, ...], device: torch.device | str | None
    ) -> Tensor:
        self.counter += 1
        drawn = draw((len(self), *shape), generator=self.generator, device=self.generator.device)
        return drawn if device is None else drawn.to(device)
