"""Images and labels from a file of the user's own. Pickles run code: refused unless the user says so."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import NoSuchSplit, UnmaskError, UnusableInput, first_line
from .mapped import Archive, array_in
from .room import STREAMED, refuse_what_exceeds_memory

PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
EXTENSIONS = {".npz", ".npy", ".safetensors"} | PICKLES
# What people call images and their labels. `test_images` and its like, as in MedMNIST, are splits.
PAIRS = (
    ("x", "y"),
    ("images", "labels"),
    ("data", "labels"),
    ("data", "target"),
    ("X", "y"),
    ("X", "Y"),
    ("image", "label"),
    ("signals", "labels"),
)
# The file of labels beside a `.npy` of images: each name with the one that goes with it.
BESIDE = (
    ("images", "labels"),
    ("image", "label"),
    ("data", "labels"),
    ("data", "targets"),
    ("x", "y"),
    ("X", "y"),
)


def read_file(path: Path, allow_pickle: bool, split: str | None = None) -> tuple[Any, Any, str]:
    """What the file calls x and y, unchecked, and its split. Arrays stay in the file until rows are asked for.

    **Raises** `UnusableInput` where it cannot be read, or is more than this machine's memory and has to be read whole.
    """
    if not path.is_file():
        raise UnusableInput(
            f"there is no file {path}; give the path of a .npz or .safetensors file with x and y"
        )
    kind = path.suffix.lower()
    if kind in PICKLES and not allow_pickle:
        raise UnusableInput(
            f"{path} is a pickle, and reading one runs the code inside it; save x and y with numpy.savez "
            "instead, or add --allow-pickle if you trust the file"
        )
    if kind not in EXTENSIONS:
        raise UnusableInput(f"{path} is of an unknown kind; give a .npz or .safetensors file with x and y")
    try:
        content = _read(path, kind, allow_pickle)
        if isinstance(content, Mapping):
            return _from_keys(content, path, split)
    except (MemoryError, UnmaskError):
        raise
    except Exception as error:  # a damaged file raises whatever its reader's parser happens to trip over
        if kind in (".npz", ".npy") and ("allow_pickle" in str(error) or "pickled data" in str(error)):
            raise UnusableInput(
                f"{path} holds Python objects, and reading them runs the code inside; save plain arrays x "
                "and y, or add --allow-pickle if you trust the file"
            ) from error
        raise UnusableInput(
            f"{path} cannot be read as {kind} ({type(error).__name__}: {first_line(error)}); "
            "save it again with x and y"
        ) from error
    if isinstance(content, np.ndarray):
        return content, _labels_beside(path), _no_split(split, path)
    if isinstance(content, tuple | list) and len(content) == 2:
        return content[0], content[1], _no_split(split, path)
    raise UnusableInput(f"{path} holds a {type(content).__name__}; it must hold x (images) and y (labels)")


def _from_keys(content: Mapping[Any, Any], path: Path, split: str | None) -> tuple[Any, Any, str]:
    for x, y in PAIRS:
        if x in content and y in content:
            return content[x], content[y], _no_split(split, path)
    for part in ("test", "val", "valid", "validation", "train") if split is None else (split,):
        for x, y in PAIRS:
            for names in ((f"{part}_{x}", f"{part}_{y}"), (f"{x}_{part}", f"{y}_{part}")):
                if all(name in content for name in names):
                    return content[names[0]], content[names[1]], part
    keys = ", ".join(map(str, content)) or "nothing"
    wanted = "x (float32 images, NCHW) and y (int64 labels), or images and labels, data and target"
    refusal = NoSuchSplit if split else UnusableInput
    raise refusal(f"{path} holds {keys}; it must hold {wanted}{f' of {split!r}' if split else ''}")


def _no_split(split: str | None, path: Path) -> str:
    if split is not None:
        raise NoSuchSplit(f"--split is {split!r}, but the file {path} has no splits; leave --split out")
    return ""


def _labels_beside(path: Path) -> Any:
    """The labels that go with a `.npy` of images, as `labels.npy` with `images.npy`, `test_y.npy` with `test_x.npy`."""
    found = [path.with_stem(path.stem.replace(x, y)) for x, y in BESIDE if x in path.stem]
    for file in found:
        if file != path and file.is_file():
            return np.load(file, allow_pickle=False)
    names = ", ".join(dict.fromkeys(file.name for file in found)) or "labels.npy beside images.npy"
    raise UnusableInput(f"{path} holds images alone; put their labels beside it, as {names}")


def _read(path: Path, kind: str, allow_pickle: bool) -> Any:
    if kind == ".npz":
        return Archive(path, allow_pickle=allow_pickle)
    if kind == ".npy":
        return array_in(path, allow_pickle=allow_pickle)
    # These map what fits into memory, or read it as a whole.
    refuse_what_exceeds_memory(path.stat().st_size, f"{path} takes", STREAMED.format("x and y"))
    if kind == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if kind in (".pkl", ".pickle"):
        with path.open("rb") as file:
            return pickle.load(file)
    return torch.load(path, map_location="cpu", weights_only=False, mmap=zipfile.is_zipfile(path))
