"""Labelled examples to audit on. Every defect of the data gets one line."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import NoSuchSplit, UnusableInput, first_line
from .arrays import in_unit, laid_out
from .box import Box
from .files import EXTENSIONS, read_file
from .hub import HUB_IDS, read_hugging_face
from .pictures import Size
from .sample import places
from .table import read_table


@dataclass(frozen=True)
class Data:
    """Labelled images, vectors, signals or volumes.

    **Fields**
    - `x`: `[n, channels, height, width]`, `[n, features]`, `[n, channels, time]` or `[n, channels, depth, height,
      width]`, float32 in [0, 1].
    - `y`: `[n]`, int64, zero or larger.
    - `name`: the specification it was loaded by.
    - `split`: name of the split; empty for files, which have none.
    - `index`: `[n]`, int64, place of each example in its split.
    - `class_names`: what the classes are called, where the data set says so.
    - `notes`: a sentence for each thing that was changed on the way in, for the report.
    - `sample_seed`: of a stratified sample, its seed; None for all examples or the first ones.
    - `box`: what 0 and 1 of `x` stand for; None where the network takes `x` as it is.
    """

    x: Float[Tensor, "n *dims"]
    y: Int[Tensor, " n"]
    name: str
    split: str
    index: Int[Tensor, " n"]
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sample_seed: int | None = None
    box: Box | None = None

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
    seed: int | None = None,
    allow_pickle: bool = False,
    without: int | None = None,
) -> Data:
    """Some images of a data set, ascending by their place in it.

    **Arguments**
    - `spec`: `digits` (8 x 8, from scikit-learn: split by a fixed permutation into 1297 for training and 500
      for testing); `mnist` or `cifar10` (from the folder `$UNMASK_DATA/<name>` if it is there, else from the
      Hugging Face hub); `fashion_mnist`, `cifar100`, `svhn`, `imagenet`, or any Hugging Face image-classification data
      set by hub id; a folder of pictures by class, or what `save_to_disk` wrote; a `.parquet`; a `.csv` of picture
      files and labels, or of numbers and labels; or arrays in `.npz`, `.safetensors` or `.npy`, see
      `unmask.data.arrays`. Where a data set has several label columns, one named `label` is taken, else the one with
      the most classes. Pictures of several sizes are brought to one by `SPEC(resize=64, crop=64)`, to grey
      by `SPEC(channels=1)`, to colour by `(channels=3)`; `SPEC(box=data)`,
      `(box=[0, 255])` or `(box=ranges.npz)` says what 0 and 1 stand for, `(kind=signals)` what a shape leaves open.
    - `split`: `test` by default, else `validation`, else the only one.
    - `examples`: how many, all by default.
    - `seed`: of a random sample stratified by class; without it the first `examples` are taken.
    - `without`: a class of which none is taken.
    - `allow_pickle`: also read `.pt`, `.pth` and `.pkl`. Reading a pickle runs the code inside it.

    **Raises** `UnusableInput` with one line that says what was found and what to do.

    >>> data = load("digits", examples=3)
    >>> data.x.shape, data.y.tolist(), data.split
    (torch.Size([3, 1, 8, 8]), [1, 7, 6], 'test')
    """
    name = os.fspath(spec)
    if examples is not None and examples < 1:
        raise UnusableInput(f"--examples is {examples}; give at least 1")
    place, size, reading = _brackets(name)
    if not place.strip():
        raise UnusableInput(
            f"{name!r} names no data; give digits, mnist, cifar10, a file, a folder or a hub's id"
        )
    path = Path(place).expanduser()
    kind = path.suffix.lower()
    names: tuple[str, ...] = ()
    index, read = None, []
    choose = partial(places, examples=examples, seed=seed, name=place, without=without)
    if place == "digits":
        x, y, split = _digits(split)
    elif kind == ".csv":
        x, y, index, names, read = read_table(path, choose, size)
        split = ""
    elif place not in HUB_IDS and (kind in EXTENSIONS or (path.is_file() and kind != ".parquet")):
        x, y, split = read_file(path, allow_pickle, split)
    else:
        x, y, index, split, names = read_hugging_face(place, split, choose, size)
    if size != Size() and index is None:  # only pictures have been brought to a size
        raise UnusableInput(
            f"{place} holds arrays, and resize, crop and channels in its brackets are for pictures; --resize and "
            "--crop stand before the network instead"
        )
    x, y, notes = laid_out(x, y, name=place, classes=len(names) or None, kind=reading.get("kind"))
    chosen = None if index is not None else torch.from_numpy(choose(y.numpy()))
    x, said, box = in_unit(x, chosen, name=place, box=reading.get("box"))
    if chosen is not None:
        y = y[chosen]
    sampled = seed if examples is not None else None
    index = torch.as_tensor(index if chosen is None else chosen, dtype=torch.int64)
    return Data(x, y, name, split, index, names, (*read, *notes, *said), sampled, box)


def load_training(spec: str | os.PathLike[str]) -> Data:
    """All examples to learn from: the training split, or everything where a set has no split of that name.

    **Raises** `UnusableInput` as `load`.
    """
    try:
        return load(spec, split="train")
    except NoSuchSplit:
        return load(spec)


_BRACKETS = re.compile(r"(?P<place>.*?)\((?P<options>[^()]*=[^()]*)\)", re.DOTALL)


def with_option(spec: str, name: str, value: str) -> str:
    """A data set's name with one more option in its brackets; the one stated last wins.

    >>> with_option("wine.npz", "box", "data"), with_option("a(resize=8)", "box", "0,255")
    ('wine.npz(box=data)', 'a(resize=8, box=[0,255])')
    """
    if "," in value:
        value = f"[{value.strip('[]()')}]"
    match = _BRACKETS.fullmatch(spec)
    return f"{match['place']}({match['options']}, {name}={value})" if match else f"{spec}({name}={value})"


_WORDS = re.compile(r"(box|kind)\s*=\s*([^\s\[\](),'\"][^\[\](),]*)")


def _brackets(spec: str) -> tuple[str, Size, dict[str, Any]]:
    """A data set's name, the size that the brackets behind it ask for, and how its arrays are to be read."""
    match = _BRACKETS.fullmatch(spec)
    if match is None:
        return spec, Size(), {}
    quoted = _WORDS.sub(lambda m: f"{m[1]}={m[2].strip()!r}", match["options"])
    try:
        call = ast.parse(f"f({quoted})", mode="eval").body
        assert isinstance(call, ast.Call)
        values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        reading = {k: values.pop(k) for k in ("box", "kind") if k in values}
        if not all(isinstance(v, int) and v > 0 for v in values.values()):
            raise ValueError("sizes are whole numbers of pixels")
        return match["place"], Size(**values), reading
    except (SyntaxError, ValueError, TypeError) as error:
        raise UnusableInput(
            f"the brackets of {spec} cannot be read ({first_line(error)}); write for instance (resize=64, crop=64) or "
            "(box=data)"
        ) from error


def _digits(split: str | None) -> tuple[Tensor, Tensor, str]:
    split = "test" if split is None else split
    if split not in ("train", "test"):
        raise UnusableInput(f"--split is {split!r}; digits has train and test")
    images, target = _digits_file()
    order = np.random.default_rng(0).permutation(1797)
    order = order[:1297] if split == "train" else order[1297:]
    x = torch.from_numpy(images[order].astype(np.float32) / 16)
    return x[:, None], torch.from_numpy(target[order].astype(np.int64)), split


@cache
def _digits_file() -> tuple[np.ndarray, np.ndarray]:
    """Images `[1797, 8, 8]` from 0 to 16 and labels, from the file that scikit-learn brings along.

    It is read without importing scikit-learn, which takes a second, and through its loader where it lies elsewhere.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images, bunch.target
