"""A box for each feature: what 0 and 1 stand for, where inputs are no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UnusableInput, first_line, plural

OWN = "data"  # the range of the data themselves
_PART = 2**22  # numbers that are looked at together


@dataclass(frozen=True)
class Box:
    """Smallest and largest value of every feature. Audits run in units of it: 0 is `low`, 1 is `high`.

    So a radius is a share of each feature's range, in every norm. A feature whose range is empty cannot be moved.

    **Fields**
    - `low`, `high`: broadcastable to one example: `[features]`, `[channels, 1]`, …
    """

    low: Float[Tensor, "*dims"]
    high: Float[Tensor, "*dims"]

    def unit(self, x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n *dims"]:
        """`x` in units of the box, float32.

        >>> Box(torch.tensor([0.0, -1.0]), torch.tensor([10.0, 1.0])).unit(torch.tensor([[5.0, 1.0]])).tolist()
        [[0.5, 1.0]]
        """
        low, width = self.low.double(), self.high.double() - self.low.double()
        found = torch.empty(x.shape, dtype=torch.float32)
        for part, to in zip(parts(x), parts(found), strict=True):
            share = (part.double() - low) / torch.where(width > 0, width, 1.0)
            to.copy_(torch.where(width > 0, share, 0.0).clamp_(0, 1))
        return found

    def before(self, network: Any) -> InUnits:
        """The network, taking inputs in units of the box."""
        return InUnits(network, self)


class InUnits(nn.Module):
    """A network of natural inputs, asked in units of a box."""

    low: Tensor
    width: Tensor

    def __init__(self, network: Any, box: Box):
        super().__init__()
        self.network = network
        self.register_buffer("low", box.low.to(torch.float32)[None], persistent=False)
        self.register_buffer("width", (box.high.double() - box.low.double()).float()[None], persistent=False)
        self.training = getattr(network, "training", False)

    def natural(self, x: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch *dims"]:
        """Inputs as the network takes them."""
        return x * self.width + self.low

    def forward(self, x: Float[Tensor, "batch *dims"]) -> Any:
        return self.network(self.natural(x))


def box_of(stated: Any, x: Tensor, name: str) -> Box:
    """The box that somebody stated for data `x` in natural units `[n, …]`.

    **Arguments**
    - `stated`: `"data"` for the data's own range, a pair of numbers or arrays, or a `.npz` (`low`, `high`) or `.npy`
      (`[2, features]`) file.

    **Raises** `UnusableInput` where it does not fit, or data lie outside.
    """
    if isinstance(stated, str) and stated == OWN:
        return own_range(x)
    pair = _read(stated) if isinstance(stated, str | Path) else stated
    try:
        low, high = (torch.as_tensor(np.asarray(side, dtype=np.float64)) for side in pair)
        low, high = (_shaped(side, x) for side in (low, high))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(
            f"the box {_short(stated)} does not fit {name} of shape {list(x.shape)} ({first_line(error)}); give two "
            "numbers, or low and high with one for each feature or channel"
        ) from error
    if not (torch.isfinite(low).all() and torch.isfinite(high).all() and (low <= high).all()):
        raise UnusableInput(
            f"the box {_short(stated)} has a low that is above its high, or is not finite; mend it"
        )
    outside = (x.double() < low) | (x.double() > high)
    if count := int(outside.flatten(1).any(1).sum()):
        raise UnusableInput(
            f"{count} of {len(x)} examples of {name} {plural(count, 'lies', 'lie')} outside the box "
            f"{_short(stated)}; widen it, or remove {plural(count, 'it', 'them')}"
        )
    return Box(low, high)


def own_range(x: Tensor) -> Box:
    """Smallest and largest value of each feature of vectors, of each channel of what has more dimensions.

    >>> own_range(torch.tensor([[0.0, 5.0], [2.0, 5.0]])).high.tolist()
    [2.0, 5.0]
    """
    dims = [0, *range(2, x.ndim)]
    low = torch.stack([part.to(torch.float32).amin(dims) for part in parts(x)]).amin(0).double()
    high = torch.stack([part.to(torch.float32).amax(dims) for part in parts(x)]).amax(0).double()
    return Box(*(side.reshape(-1, *[1] * (x.ndim - 2)) for side in (low, high)))


def parts(x: Float[Tensor, "n *dims"]) -> tuple[Tensor, ...]:
    """Views of some rows each, so that what is computed of many takes little memory."""
    return x.split(max(1, _PART // max(1, x[:1].numel())))


def _shaped(side: Tensor, x: Tensor) -> Tensor:
    if side.ndim == 0 or side.numel() == 1:
        return side.reshape(-1).expand(x.shape[1]).reshape(-1, *[1] * (x.ndim - 2))
    if side.ndim == 1 and len(side) == x.shape[1]:
        return side.reshape(-1, *[1] * (x.ndim - 2))
    torch.broadcast_to(side, x.shape[1:])
    return side


def _read(place: str | Path) -> Any:
    path = Path(place).expanduser()
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return (found["low"], found["high"]) if path.suffix == ".npz" else found
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UnusableInput(
            f"the box {place} cannot be read ({first_line(error)}); give data, two numbers such as 0,255, or a .npz "
            "file with low and high"
        ) from error


def _short(stated: Any) -> str:
    return " ".join(str(stated).split())[:60]
