"""An adversary who covers one square of the image with whatever he likes, at a place that he chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import UnusableInput
from ..randomness import Streams
from .base import Images, Values
from .sparse import FewPixels, Mask, Scores


@dataclass(frozen=True, kw_only=True)
class Patch(FewPixels):
    """All changed pixels lie in one square of `epsilon` by `epsilon` pixels, anywhere in the image.

    In a signal that is an interval, in a volume a cube; where the image is lower than the square is high, the square is
    cut to it. Vectors have no places: they are refused.

    **Source**: Brown et al. 2017, arXiv:1712.09665; a patch of each image's own: Croce et al. 2022, arXiv:2006.12834.

    >>> x = torch.zeros(1, 1, 8, 8)
    >>> x_adv = x.clone()
    >>> x_adv[0, 0, 2:4, 5] = 1
    >>> Patch(epsilon=3).distance(x_adv, x)
    tensor([2.], dtype=torch.float64)
    """

    norm: ClassVar[str] = "patch"
    unit: ClassVar[str] = "pixels of a side"

    def sides(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Of the patch in an input of that size: `epsilon`, cut to the input."""
        return tuple(int(min(self.epsilon, size)) for size in spatial)

    def distance(self, x_adv: Images, x: Images) -> Values:
        """Side of the smallest square around everything that changed."""
        changed = self.units((x_adv != x).double()) > 0
        longest = x.new_zeros(len(x), dtype=torch.float64)
        for dim in range(1, changed.ndim):
            others = [d for d in range(1, changed.ndim) if d != dim]
            hit = changed.any(dim=others) if others else changed
            place = torch.arange(1, hit.shape[1] + 1, device=x.device)
            last = torch.where(hit, place, 0).amax(1)
            first = torch.where(hit, place, hit.shape[1] + 1).amin(1)
            longest = torch.maximum(longest, (last - first + 1).clamp_min(0).double())
        return longest

    def widest(self, shape: Sequence[int]) -> float:
        return float(max(_spatial(shape)))

    def check_radius(self, shape: Sequence[int]) -> None:
        if self.epsilon >= self.widest(shape):
            raise UnusableInput(
                f"epsilon is {self.epsilon:g}, and a patch of that side covers the whole input of "
                f"{' x '.join(map(str, _spatial(shape)))}: give a smaller side"
            )

    def _share(self, shape: Sequence[int]) -> float:
        spatial = _spatial(shape)
        share = 1.0
        for side, size in zip(self.sides(spatial), spatial, strict=True):
            share *= side / size
        return share

    def units(self, values: Images) -> Scores:
        _spatial(values.shape[1:])
        return values.sum(1)

    def support(self, scores: Scores) -> Mask:
        """The best of all places, by the sum of each."""
        sides = self.sides(scores.shape[1:])
        if 0 in sides:
            return torch.zeros_like(scores, dtype=torch.bool)[:, None]
        sums = scores
        for dim, side in enumerate(sides, 1):
            sums = sums.unfold(dim, side, 1).sum(-1)
        best = torch.unravel_index(sums.flatten(1).argmax(1), sums.shape[1:])
        return self.placed(torch.stack(best, 1), scores.shape[1:])

    def placed(self, corner: Int[Tensor, "batch spatial"], spatial: Sequence[int]) -> Mask:
        """The patch whose first pixel is at `corner`, in an input of that size: `[batch, 1, *spatial]`."""
        mask = torch.ones(len(corner), *[1] * len(spatial), dtype=torch.bool, device=corner.device)
        for dim, (side, size) in enumerate(zip(self.sides(spatial), spatial, strict=True)):
            place = torch.arange(size, device=corner.device)
            start = corner[:, dim, None]
            along = (place >= start) & (place < start + side)
            mask = mask & along.reshape(-1, *[size if d == dim else 1 for d in range(len(spatial))])
        return mask[:, None]

    def random_corner(
        self, x: Images, *, generator: torch.Generator | Streams
    ) -> Int[Tensor, "batch spatial"]:
        """First pixels of patches, each place as likely as any other."""
        streams, spatial = Streams.of(generator, len(x)), _spatial(x.shape[1:])
        free = [size - side + 1 for side, size in zip(self.sides(spatial), spatial, strict=True)]
        return (streams.uniform(len(spatial), device=x.device) * torch.tensor(free, device=x.device)).long()

    def random_support(self, x: Images, *, generator: torch.Generator | Streams) -> Mask:
        return self.placed(self.random_corner(x, generator=generator), x.shape[2:])


def _spatial(shape: Sequence[int]) -> tuple[int, ...]:
    """What of an input's shape is places."""
    if len(shape) < 2:
        raise UnusableInput(
            "a patch needs inputs with places, such as images, and these are vectors: use the norm l0"
        )
    return tuple(shape[1:])
