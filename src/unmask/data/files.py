"""Images and labels from a file of the user's own. Pickles run code: refused unless the user says so."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UnusableInput, first_line

PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy"}
EXTENSIONS = {".npz", ".safetensors"} | PICKLES


def read_file(path: Path, allow_pickle: bool) -> tuple[Any, Any]:
    """What the file calls x and y, unchecked. **Raises** `UnusableInput` where it cannot be read."""
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
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever its reader's parser happens to trip over
        if kind == ".npz" and "allow_pickle" in str(error):
            raise UnusableInput(
                f"{path} holds Python objects, and reading them runs the code inside; save plain arrays x "
                "and y, or add --allow-pickle if you trust the file"
            ) from error
        raise UnusableInput(
            f"{path} cannot be read as {kind} ({type(error).__name__}: {first_line(error)}); "
            "save it again with x and y"
        ) from error
    if isinstance(content, tuple | list) and len(content) == 2:
        return content[0], content[1]
    if isinstance(content, Mapping):
        if "x" in content and "y" in content:
            return content["x"], content["y"]
        keys = ", ".join(map(str, content)) or "nothing"
        raise UnusableInput(
            f"{path} holds {keys}; it must hold x (float32 images, NCHW) and y (int64 labels)"
        )
    raise UnusableInput(f"{path} holds a {type(content).__name__}; it must hold x (images) and y (labels)")


def _read(path: Path, kind: str, allow_pickle: bool) -> Any:
    if kind == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if kind == ".npz":
        if not zipfile.is_zipfile(path):
            raise ValueError("not a zip archive")
        with np.load(path, allow_pickle=allow_pickle) as archive:
            return {key: archive[key] for key in archive.files}
    if kind == ".npy":
        content = np.load(path, allow_pickle=True)
        return content.item() if content.dtype == object and content.ndim == 0 else content
    if kind in (".pkl", ".pickle"):
        with path.open("rb") as file:
            return pickle.load(file)
    return torch.load(path, map_location="cpu", weights_only=False)
