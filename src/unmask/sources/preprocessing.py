"""What stands between an image in [0, 1] and a network that somebody trained on other numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx, nn

from ..errors import UnusableInput

Images = Float[Tensor, "batch channels height width"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, crop, normalise, order, lay out: in this order, differentiable, in float32.

    **Fields**
    - `resize`: shorter side in pixels, or (height, width); bilinear with antialiasing, as hubs' processors have it.
      `interpolation`: `bilinear`, `bicubic` or `nearest`.
    - `crop`: height and width of the centre that is kept, one number for a square.
    - `mean`, `std`: a channel each, or one for all, in units of [0, 1], in the order of the images (red, green,
      blue). A network that takes bytes has a `std` of 1/255.
    - `bgr`: the network takes blue, green, red.
    - `channels_last`: the network takes `[batch, height, width, channels]`.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool | None = None
    channels_last: bool | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                value = tuple(float(v) for v in (value if isinstance(value, Sequence) else (value,)))
                object.__setattr__(self, name, value)
        if self.std is not None and not all(v > 0 for v in self.std):
            raise UnusableInput(f"--std is {list(self.std)}; give positive numbers, one for each channel")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            sizes = value if isinstance(value, Sequence) else (value,)
            if value is not None and not all(isinstance(v, int) and v > 0 for v in sizes):
                raise UnusableInput(f"--{name} is {value}; give a number of pixels, or height and width")

    def updated(self, options: Preprocessing) -> Preprocessing:
        """What `options` states wins."""
        stated = {f.name: getattr(options, f.name) for f in fields(Preprocessing)}
        return replace(self, **{name: value for name, value in stated.items() if value is not None})

    def before(self, network: nn.Module) -> nn.Module:
        """The network behind these steps, in evaluation mode; it returns logits, whatever record it wraps them in."""
        return Preprocessed(network, self).eval()


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Preprocessing):
    """What a user may state about a source.

    **Fields**, beside those of `Preprocessing`
    - `arch`: for a state dict, `file.py:Net`: a callable without arguments that builds the network.
    - `part`: of a file that holds several sets of weights, what the names of the one to load begin with.
    """

    arch: str | None = None
    part: str | None = None


class Preprocessed(nn.Module):
    """A network behind its preprocessing. Takes images in [0, 1] NCHW; returns logits `[batch, classes]`.

    The network stays in the modes that it has. `read` says what of its outputs is returned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any, steps: Preprocessing, read: Callable[[Any], Any] | None = None):
        super().__init__()
        self.network, self.steps, self.read = network, steps, read or logits_of
        self.training = getattr(network, "training", False)
        self.register_buffer("mean", torch.tensor(steps.mean or (0.0,)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(steps.std or (1.0,)).view(-1, 1, 1), persistent=False)

    def on(self, device: torch.device) -> Preprocessed:
        """With its own numbers there; the network stays where it is."""
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def forward(self, x: Images) -> Tensor:
        x = self._sized(x)
        if self.steps.mean is not None or self.steps.std is not None:
            x = (x - self.mean) / self.std
        if self.steps.bgr:
            x = x.flip(1)
        if self.steps.channels_last:
            x = x.permute(0, 2, 3, 1)
        return self.read(self.network(x))

    def _sized(self, x: Images) -> Images:
        steps = self.steps
        if steps.resize is not None:
            height, width = x.shape[-2:]
            if isinstance(steps.resize, int):
                short = min(height, width)  # the longer side is rounded down, as hubs' processors do
                size = (steps.resize * height // short, steps.resize * width // short)
            else:
                size = steps.resize
            if size != (height, width):
                mode = steps.interpolation or "bilinear"
                smooth = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
                x = F.interpolate(x, size, mode=mode, **smooth)
        if steps.crop is not None:
            tall, wide = (steps.crop, steps.crop) if isinstance(steps.crop, int) else steps.crop
            if tall > x.shape[-2] or wide > x.shape[-1]:
                raise UnusableInput(
                    f"--crop is {tall} x {wide}, but images are {x.shape[-2]} x {x.shape[-1]} there; give --resize too"
                )
            top, left = (x.shape[-2] - tall) // 2, (x.shape[-1] - wide) // 2
            x = x[..., top : top + tall, left : left + wide]
        return x


def logits_of(outputs: Any) -> Any:
    """The logits in what a network returned: a tensor, a record with `logits`, a dict, or a tuple's first entry."""
    if isinstance(outputs, Tensor | fx.Proxy):  # the latter while bounds read the network
        return outputs
    if isinstance(outputs, dict):
        return outputs.get("logits", outputs)
    if hasattr(outputs, "logits"):
        return outputs.logits
    if isinstance(outputs, tuple | list) and outputs:
        return logits_of(outputs[0])
    return outputs
