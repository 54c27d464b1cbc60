"""Labelled images to audit on. Every defect of the data gets one line."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UnusableInput, first_line
from .files import EXTENSIONS, read_file
from .hub import HUB_IDS, read_hugging_face


@dataclass(frozen=True)
class Data:
    """Labelled images.

    **Fields**
    - `x`: `[n, channels, height, width]`, float32 in [0, 1].
    - `y`: `[n]`, int64, zero or larger.
    - `name`: the specification it was loaded by.
    - `split`: name of the split; empty for files, which have none.
    - `index`: `[n]`, int64, place of each example in its split.
    """

    x: Float[Tensor, "n channels height width"]
    y: Int[Tensor, " n"]
    name: str
    split: str
    index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, chosen: slice | Tensor) -> Data:
        """Some of the examples."""
        return replace(self, x=self.x[chosen], y=self.y[chosen], index=self.index[chosen])


def load(
    spec: str | os.PathLike[str] = "digits",
    *,
    split: str | None = None,
    examples: int | None = None,
    allow_pickle: bool = False,
) -> Data:
    """The first `examples` images of a data set, in its own order.

    **Arguments**
    - `spec`: `digits` (8 x 8, from scikit-learn: split by a fixed permutation into 1297 for training and 500
      for testing); `mnist` or `cifar10` (from the folder `$UNMASK_DATA/<name>` if it is there, else from the
      Hugging Face hub); any Hugging Face image-classification data set by hub id or local folder; or a file,
      `.npz` or `.safetensors`, with `x` (float32, NCHW, in [0, 1]) and `y` (integers). Where a data set has
      several label columns, one named `label` is taken, else the one with the most classes.
    - `split`: `test` by default, else `validation`, else the only one.
    - `examples`: how many, all by default.
    - `allow_pickle`: also read `.pt`, `.pth`, `.pkl` and `.npy`. Reading a pickle runs the code inside it.

    **Raises** `UnusableInput` with one line that says what was found and what to do.

    >>> data = load("digits", examples=3)
    >>> data.x.shape, data.y.tolist(), data.split
    (torch.Size([3, 1, 8, 8]), [1, 7, 6], 'test')
    """
    name = os.fspath(spec)
    if examples is not None and examples < 1:
        raise UnusableInput(f"--examples is {examples}; give at least 1")
    path = Path(name).expanduser()
    classes = None
    if name == "digits":
        x, y, split = _digits(split)
    elif name not in HUB_IDS and (path.suffix.lower() in EXTENSIONS or path.is_file()):
        if split is not None:
            raise UnusableInput(f"--split is {split!r}, but the file {name} has no splits; leave --split out")
        x, y, split = *read_file(path, allow_pickle), ""
    else:
        x, y, split, classes = read_hugging_face(name, split, examples)
    x, y = check(x, y, name=name, classes=classes)
    if examples is not None:
        if examples > len(x):
            raise UnusableInput(
                f"--examples is {examples}, but {name} holds {len(x)}; give at most that many"
            )
        x, y = x[:examples].clone(), y[:examples].clone()
    return Data(x, y, name, split, torch.arange(len(x)))


def check(x: Any, y: Any, *, name: str, classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Images and labels as tensors, or `UnusableInput` with the first defect found.

    **Arguments**
    - `x`, `y`: arrays or tensors.
    - `name`: what to call them in the message.
    - `classes`: number of classes that the data set declares, if it does.
    """
    x, y = _tensor(x, f"x of {name}"), _tensor(y, f"y of {name}")
    if x.ndim != 4:
        raise UnusableInput(
            f"x of {name} has shape {list(x.shape)}; it must be [examples, channels, height, width], "
            "for instance x.reshape(-1, 1, 28, 28)"
        )
    if not x.numel():
        raise UnusableInput(f"{name} is empty: x has shape {list(x.shape)}; give at least one image")
    if y.ndim != 1:
        hint = (
            "; take y.argmax(1) if it is one-hot"
            if y.ndim == 2 and y.shape[1] > 1
            else "; take y.reshape(-1)"
        )
        raise UnusableInput(f"y of {name} has shape {list(y.shape)}; it must be [examples]{hint}")
    if len(x) != len(y):
        raise UnusableInput(f"{name} has {len(x)} images but {len(y)} labels; give one label for each image")
    if x.dtype != torch.float32:
        least, most = x.min().item(), x.max().item()
        divide = " / 255" if most > 1 else ""
        raise UnusableInput(
            f"x of {name} is {_dtype(x)} with values from {least:g} to {most:g}; it must be float32 in "
            f"[0, 1]: save x.astype('float32'){divide}"
        )
    bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if bad:
        raise UnusableInput(
            f"x of {name} has NaN or infinite pixels in {bad} of {len(x)} images; remove them"
        )
    _check_range(x, name)
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UnusableInput(f"y of {name} is {_dtype(y)}; labels must be integers: save y.astype('int64')")
    y = y.to(torch.int64)
    least, most = int(y.min()), int(y.max())
    if least < 0 or (classes is not None and most >= classes):
        top = "" if classes is None else f" to {classes - 1}"
        raise UnusableInput(
            f"labels of {name} run from {least} to {most}; they must run from 0{top}: remove unlabelled "
            "examples or shift the labels"
        )
    return x.contiguous(), y.contiguous()


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


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


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


def _digits(split: str | None) -> tuple[Tensor, Tensor, str]:
    split = "test" if split is None else split
    if split not in ("train", "test"):
        raise UnusableInput(f"--split is {split!r}; digits has train and test")
    bunch = _digits_file()
    order = np.random.default_rng(0).permutation(1797)
    order = order[:1297] if split == "train" else order[1297:]
    x = torch.from_numpy(bunch.images[order].astype(np.float32) / 16)
    return x[:, None], torch.from_numpy(bunch.target[order].astype(np.int64)), split


@cache
def _digits_file() -> Any:
    from sklearn.datasets import load_digits  # here, for it takes a second to import

    return load_digits()
