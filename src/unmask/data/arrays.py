"""Arrays as people save them, made into float32 in [0, 1]: images NCHW, vectors, signals, volumes. Changes are said."""

from __future__ import annotations

import warnings
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UnusableInput, first_line, plural
from .box import OWN, Box, box_of, own_range, parts
from .room import refuse_what_exceeds_memory

_CHANNELS = (1, 3, 4)  # of grey, colour and colour with transparency
# `[n, a, b]` with sides no more than so much apart is a grey image, and a signal of `a` channels beyond. Ours.
_SIDES = 2
_KINDS = {2: "vectors", 3: "signals", 4: "images", 5: "volumes"}


def check(
    x: Any, y: Any, *, name: str, classes: int | None = None, kind: str | None = None, box: Any = None
) -> tuple[Float[Tensor, "n *dims"], Int[Tensor, " n"], tuple[str, ...], Box | None]:
    """Examples in [0, 1], labels, a sentence for each conversion, and the box that 0 and 1 stand for, if not those.

    Examples are images `[n, channels, height, width]`, vectors `[n, features]`, signals `[n, channels, time]` or
    volumes `[n, channels, depth, height, width]`. Converted are bytes (divided by 255), other numbers (to float32),
    NHWC, grey images without a channel, and labels `[n, 1]`. What is no image and leaves [0, 1] is taken in units of
    its own range, feature by feature or channel by channel.

    **Arguments**
    - `x`, `y`: arrays or tensors.
    - `name`: what to call them in the message.
    - `classes`: number of classes that the data set declares, if it does.
    - `kind`: `images`, `signals` or `volumes`, where the shape alone leaves it open.
    - `box`: as in `unmask.data.box.box_of`.

    **Raises** `UnusableInput` with the first defect found.
    """
    x = x.copy() if isinstance(x, np.ndarray) else x  # the caller may change its own at any time
    x, labels, notes = laid_out(x, y, name=name, classes=classes, kind=kind)
    x, said, found = in_unit(x, None, name=name, box=box)
    return x, labels, (*notes, *said), found


def laid_out(
    x: Any, y: Any, *, name: str, classes: int | None = None, kind: str | None = None
) -> tuple[Tensor, Int[Tensor, " n"], list[str]]:
    """The first half of `check`: examples in their layout, and labels, which alone are read."""
    x, y = _tensor(x, f"x of {name}"), _tensor(y, f"y of {name}")
    x, notes = _laid_out(x, name, kind)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.reshape(-1)
        notes.append(f"labels of {name} are [n, 1]: taken as [n]")
    if y.ndim != 1:
        hint = "; take y.argmax(1) if it is one-hot" if y.ndim == 2 else "; take y.reshape(-1)"
        raise UnusableInput(f"y of {name} has shape {list(y.shape)}; it must be [examples]{hint}")
    if len(x) != len(y):
        raise UnusableInput(f"{name} has {len(x)} images but {len(y)} labels; give one label for each image")
    return x, _labels(y, name, classes), notes


def in_unit(
    whole: Tensor, index: Int[Tensor, " n"] | None, *, name: str, box: Any = None
) -> tuple[Float[Tensor, "n *dims"], list[str], Box | None]:
    """The second half of `check`: those of `whole` at `index`, or all. Others are read where their range is the box.

    **Raises** `UnusableInput` also where they are more than this machine's memory holds.
    """
    own = box == OWN if isinstance(box, str) else box is None and whole.ndim != 4
    x = whole if index is None else _chosen(whole, index, name)
    x, notes = _scaled(x, name, stated=box is not None)
    bad, least, most = _survey(whole if own else x, name, stated=box is not None)
    if bad:
        values, examples = ("pixels", "images") if x.ndim == 4 else ("values", "examples")
        raise UnusableInput(
            f"x of {name} has NaN or infinite {values} in {bad} of {len(whole if own else x)} {examples}; remove them"
        )
    if box is not None:
        found = own_range(whole) if own else box_of(box, x, name)
        notes.append(f"{name} in units of the box that was given: epsilon is a share of it")
        return found.unit(x), notes, found
    if x.ndim == 4 or (least >= 0 and most <= 1):
        _check_range(least, most, name)
        return x.contiguous(), notes, None
    found, each = own_range(whole), "feature" if x.ndim == 2 else "channel"
    notes.append(
        f"{_KINDS[x.ndim]} of {name} run from {least:.4g} to {most:.4g}: each {each} in units of its own range in the "
        f"{len(whole)} examples, so that epsilon is a share of it (--box for another)"
    )
    if flat := int((found.low == found.high).sum()):
        notes.append(f"{flat} of them {plural(flat, 'has', 'have')} one value only and cannot be moved")
    return found.unit(x), notes, found


def _chosen(whole: Tensor, index: Tensor, name: str) -> Tensor:
    """A copy of these rows. A file that lies mapped is read no further."""
    kept = 0 if whole.dtype == torch.float32 else whole.element_size()
    refuse_what_exceeds_memory(
        (4 + kept) * len(index) * whole[0].numel(),
        f"the {len(index)} examples of {name}, as float32, take",
        "give fewer, as audit's --examples N does",
    )
    return whole[index]


def _survey(x: Tensor, name: str, *, stated: bool) -> tuple[int, float, float]:
    """How many rows are not finite, and the smallest and largest value, part by part."""
    bad, least, most = 0, inf, -inf
    for part in parts(x):
        part, _ = _scaled(part, name, stated=stated)
        bad += int((~torch.isfinite(part)).flatten(1).any(1).sum())
        least, most = min(least, part.min().item()), max(most, part.max().item())
    return bad, least, most


def _laid_out(x: Tensor, name: str, kind: str | None) -> tuple[Tensor, list[str]]:
    notes = []
    if kind not in (None, *_KINDS.values()):
        raise UnusableInput(f"kind is {kind!r}; choose one of {', '.join(_KINDS.values())}")
    sides = x.shape[1:]
    if x.ndim == 3 and _grey(x, kind):
        x = x[:, None]
        notes.append(
            f"images of {name} are [n, height, width]: a grey channel was added ((kind=signals) behind a file's name, "
            "or kind=, if they are signals [n, channels, time])"
        )
    elif x.ndim == 4 and (kind == "volumes" or (kind is None and len(set(sides)) == 1 and sides[0] > 4)):
        x = x[:, None]
        notes.append(f"volumes of {name} are [n, depth, height, width]: a channel was added")
    if x.ndim not in _KINDS or kind not in (None, _KINDS[x.ndim]):
        wanted = "[examples, channels, height, width] (images), [examples, features], [examples, channels, time] or "
        wanted += "[examples, channels, depth, height, width]"
        raise UnusableInput(
            f"x of {name} has shape {list(x.shape)}{f' for {kind}' if kind else ''}; it must be {wanted}"
        )
    if not x.numel():
        what = "image" if x.ndim == 4 else "example"
        raise UnusableInput(f"{name} is empty: x has shape {list(x.shape)}; give at least one {what}")
    if x.ndim > 3 and x.shape[-1] in _CHANNELS and x.shape[1] not in _CHANNELS and x.shape[1] > 4:
        x = x.movedim(-1, 1)
        notes.append(
            f"{_KINDS[x.ndim]} of {name} are [n, height, width, channels]: channels were moved to the front"
            if x.ndim == 4
            else f"volumes of {name} have their channels last: they were moved to the front"
        )
    return x, notes


def _grey(x: Tensor, kind: str | None) -> bool:
    """Whether `[n, a, b]` are grey images, and not signals of `a` channels."""
    tall, wide = x.shape[1:]
    near = min(tall, wide) > 1 and max(tall, wide) <= _SIDES * min(tall, wide)
    return kind == "images" or (kind is None and (near or (x.dtype == torch.uint8 and min(tall, wide) > 1)))


def _scaled(x: Tensor, name: str, *, stated: bool) -> tuple[Tensor, list[str]]:
    if x.dtype == torch.float32:
        return x, []
    kind = str(x.dtype).removeprefix("torch.")
    words = "pixels" if x.ndim == 4 else "values"
    if stated or (x.ndim != 4 and x.dtype != torch.uint8 and not x.is_complex()):
        return x.to(torch.float32), [f"{words} of {name} are {kind}: converted to float32"]
    if x.dtype == torch.uint8:
        return x.to(torch.float32).div_(255), [f"{words} of {name} are bytes: divided by 255"]
    if x.is_floating_point():
        return x.to(torch.float32), [f"{words} of {name} are {kind}: converted to float32"]
    exact = x.to(torch.float64 if x.is_complex() else torch.float32)  # torch orders neither these nor uint16
    least, most = exact.min().item(), exact.max().item()
    divide = f" / {most:g}, or by the value that stands for white" if most > 1 else ""
    divide = " / 255" if 127 < most <= 255 else divide
    raise UnusableInput(
        f"x of {name} is {kind} with values from {least:g} to {most:g}; it must be float32 in [0, 1]: save "
        f"x.astype('float32'){divide}"
    )


def _labels(y: Tensor, name: str, classes: int | None) -> Tensor:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = str(y.dtype).removeprefix("torch.")
        odd = (
            y[(y != y.round()) if y.is_floating_point() else y.imag != 0] if y.dtype != torch.bool else y[:0]
        )
        if len(odd):
            raise UnusableInput(
                f"y of {name} is {kind} and holds {odd[0].item():.4g}, which is no class; labels must be whole numbers "
                "from 0: remove the examples without one, or give another column"
            )
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


def _check_range(least: float, most: float, name: str) -> None:
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
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        mapped = isinstance(values, np.memmap)  # whose chosen rows are copied, and which nobody writes
        if min(array.strides, default=0) < 0 or not (mapped or array.flags.writeable):
            array = array.copy()
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="The given NumPy array is not writable", category=UserWarning
            )
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        if np.asarray(values).dtype.kind in "US" and name.startswith("y "):
            raise UnusableInput(
                f"{name} holds texts, such as {str(np.asarray(values).flat[0])!r}; labels must be integers: save "
                "numpy.unique(y, return_inverse=True)[1], which numbers them in alphabetical order"
            ) from error
        raise UnusableInput(
            f"{name} is not an array of numbers ({first_line(error)}); give float32 x and int64 y"
        ) from error
