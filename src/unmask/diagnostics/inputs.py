"""Images and labels that an audit can use, or one line that says what is wrong with them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UnusableInput, plural


def check_images(x: Tensor, box: tuple[float, float] = (0.0, 1.0)) -> None:
    """Float32, not empty, finite, in the box.

    **Raises** `UnusableInput`.

    >>> check_images(torch.full((2, 1, 4, 4), 255.0))
    Traceback (most recent call last):
    ...
    unmask.errors.UnusableInput: `x` lies in [255, 255], which looks like 0-255 images; divide by 255
    """
    if x.ndim < 2 or not x.numel():
        raise UnusableInput(
            f"`x` has shape {list(x.shape)}: no examples; give images, [batch, channels, height, width]"
        )
    if x.dtype != torch.float32:
        way_out = "x.float()" if x.is_floating_point() else "x.float() / 255"
        raise UnusableInput(f"`x` is {_plain(x.dtype)}; give float32 images in {_interval(box)}: {way_out}")
    bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if bad:
        raise UnusableInput(
            f"`x` has NaN or infinite pixels in {bad} of {len(x)} images; repair or drop these images"
        )
    low, high = float(x.min()), float(x.max())
    if box[0] <= low and high <= box[1]:
        return
    found = f"`x` lies in [{low:.4g}, {high:.4g}]"
    if box == (0.0, 1.0) and low >= 0 and 2 < high <= 255:
        raise UnusableInput(f"{found}, which looks like 0-255 images; divide by 255")
    raise UnusableInput(
        f"{found}, outside {_interval(box)}, which looks like normalised images; give pixels as they were "
        "and put the normalisation inside the network, as its first layer"
    )


def check_labels(y: Tensor, examples: int) -> None:
    """Integers, one per example, none negative.

    **Raises** `UnusableInput`.
    """
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UnusableInput(f"`y` is {_plain(y.dtype)}; give class numbers as int64: y.long()")
    if y.shape != (examples,):
        hint = ": y.argmax(1)" if y.ndim == 2 and len(y) == examples else ""
        raise UnusableInput(
            f"`y` has shape {list(y.shape)} for {examples} images; give one class each, [{examples}]{hint}"
        )
    if int(y.min()) < 0:
        raise UnusableInput(
            f"`y` holds the label {int(y.min())}; give labels that start at 0, or drop unlabelled images"
        )


def check_label_range(y: Tensor, classes: int) -> None:
    """No label at or above the number of classes.

    **Raises** `UnusableInput`.
    """
    largest = int(y.max())
    if largest >= classes:
        start = " (do they start at 1? then use y - 1)" if largest == classes and int(y.min()) == 1 else ""
        raise UnusableInput(
            f"`y` holds the label {largest}, but the network returns {classes} classes, 0 to {classes - 1}; "
            f"give labels below {classes}{start}, or a network with at least {largest + 1} classes"
        )


def composition(x: Tensor, y: Tensor, classes: int) -> tuple[str, ...]:
    """What makes these examples say less than their number: one image several times, classes without an image."""
    said = []
    repeats = len(x) - len({image.tobytes() for image in x.cpu().numpy()})
    if repeats:
        said.append(
            f"{repeats} of {len(x)} images {plural(repeats, 'repeats', 'repeat')} another one: the interval takes all "
            "for independent examples"
        )
    missing = sorted(set(range(classes)) - set(y.tolist()))
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        have = plural(len(missing), "has", "have")
        said.append(f"{len(missing)} of {classes} classes {have} no image among the {len(x)}: {some}")
    return tuple(said)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _interval(box: tuple[float, float]) -> str:
    return f"[{box[0]:g}, {box[1]:g}]"
