"""Arrays of images as people save them, made into float32 NCHW in [0, 1]. What was changed is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UnusableInput, first_line

_CHANNELS = (1, 3, 4)  # of grey, colour and colour with transparency


def check(
    x: Any, y: Any, *, name: str, classes: int | None = None
) -> tuple[Float[Tensor, "n channels height width"], Int[Tensor, " n"], tuple[str, ...]]:
    """Images, labels, and a sentence for each conversion; or `UnusableInput` with the first defect found.

    Converted are bytes (divided by 255), other floats (to float32), NHWC, grey images without a channel, and labels
    `[n, 1]`.

    **Arguments**
    - `x`, `y`: arrays or tensors.
    - `name`: what to call them in the message.
    - `classes`: number of classes that the data set declares, if it does.
    """
    x, y, notes = _tensor(x, f"x of {name}"), _tensor(y, f"y of {name}"), []
    x, said = _laid_out(x, name)
    notes += said
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.reshape(-1)
        notes.append(f"labels of {name} are [n, 1]: taken as [n]")
    if y.ndim != 1:
        hint = "; take y.argmax(1) if it is one-hot" if y.ndim == 2 else "; take y.reshape(-1)"
        raise UnusableInput(f"y of {name} has shape {list(y.shape)}; it must be [examples]{hint}")
    if len(x) != len(y):
        raise UnusableInput(f"{name} has {len(x)} images but {len(y)} labels; give one label for each image")
    x, said = _scaled(x, name)
    notes += said
    bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if bad:
        raise UnusableInput(
            f"x of {name} has NaN or infinite pixels in {bad} of {len(x)} images; remove them"
        )
    _check_range(x, name)
    return x.contiguous(), _labels(y, name, classes), tuple(notes)


def _laid_out(x: Tensor, name: str) -> tuple[Tensor, list[str]]:
    notes = []
    if x.ndim == 3 and min(x.shape[1:]) > 1:
        x = x[:, None]
        notes.append(f"images of {name} are [n, height, width]: a grey channel was added")
    if x.ndim != 4:
        raise UnusableInput(
            f"x of {name} has shape {list(x.shape)}; it must be [examples, channels, height, width], "
            "for instance x.reshape(-1, 1, 28, 28)"
        )
    if not x.numel():
        raise UnusableInput(f"{name} is empty: x has shape {list(x.shape)}; give at least one image")
    if x.shape[3] in _CHANNELS and x.shape[1] not in _CHANNELS and x.shape[1] > 4:
        x = x.permute(0, 3, 1, 2)
        notes.append(f"images of {name} are [n, height, width, channels]: channels were moved to the front")
    return x, notes


def _scaled(x: Tensor, name: str) -> tuple[Tensor, list[str]]:
    if x.dtype == torch.float32:
        return x, []
    kind = str(x.dtype).removeprefix("torch.")
    if x.dtype == torch.uint8:
        return x.to(torch.float32) / 255, [f"pixels of {name} are bytes: divided by 255"]
    if x.is_floating_point():
        return x.to(torch.float32), [f"pixels of {name} are {kind}: converted to float32"]
    least, most = x.min().item(), x.max().item()
    divide = " / 255" if most > 1 else ""
    raise UnusableInput(
        f"x of {name} is {kind} with values from {least:g} to {most:g}; it must be float32 in [0, 1]: save "
        f"x.astype('float32'){divide}"
    )


def _labels(y: Tensor, name: str, classes: int | None) -> Tensor:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = str(y.dtype).removeprefix("torch.")
        raise UnusableInput(f"y of {name} is {kind}; labels must be integers: save y.astype('int64')")
    y = y.to(torch.int64)
    least, most = int(y.min()), int(y.max())
    if least < 0 or (classes is not None and most >= classes):
        top = "" if classes is None else f" to {classes - 1}"
        raise UnusableInput(
            f"labels of {name} run from {least} to {most}; they must run from 0{top}: remove unlabelled "
            "examples or shift the labels"
        )
    return y.contiguous()


def _check_range(x: Tensor, name: str) -> None:
    least, most = x.min().item(), x.max().item()
    if least >= 0 and most <= 1:
        return
    if least < 0:
        way_out = (
            "they look normalised: give raw images in [0, 1] and put the normalisation inside the network"
        )
    elif most > 2:
        way_out = "they look like bytes: divide x by 255"
    else:
        way_out = "clip or rescale x"
    raise UnusableInput(f"pixels of {name} run from {least:.4g} to {most:.4g}, outside [0, 1]; {way_out}")


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    except (TypeError, ValueError) as error:
        raise UnusableInput(
            f"{name} is not an array of numbers ({first_line(error)}); give float32 x and int64 y"
        ) from error
