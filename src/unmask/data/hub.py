"""Images and labels through Hugging Face `datasets`: a hub id, or a local folder of the same schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UnusableInput, first_line

HUB_IDS = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB", "RGBA": "RGB", "CMYK": "RGB", "LA": "L"}


def read_hugging_face(name: str, split: str | None, examples: int | None) -> tuple[Any, Any, str, int | None]:
    """Images, labels, split and number of classes. **Raises** `UnusableInput` where it cannot be read."""
    import datasets  # here, for it takes a second to import

    place = _place(name)
    set_, split = _open(name, place, split)
    features = set_.features
    images = [c for c, f in features.items() if isinstance(f, datasets.Image)]
    labels = {c: len(f.names) for c, f in features.items() if isinstance(f, datasets.ClassLabel)}
    if not labels:
        integers = [c for c in ("label", "labels") if "int" in getattr(features.get(c), "dtype", "")]
        labels = dict.fromkeys(integers)
    if len(images) != 1 or not labels:
        columns = ", ".join(f"{c} ({type(f).__name__})" for c, f in features.items())
        raise UnusableInput(
            f"{name} has the columns {columns}; it needs one of type Image and one of type ClassLabel: "
            "save x and y as .npz instead"
        )
    label = "label" if "label" in labels else max(labels, key=lambda c: labels[c] or 0)
    if examples is not None:
        if examples > len(set_):
            raise UnusableInput(
                f"--examples is {examples}, but {name} holds {len(set_)}; give at most that many"
            )
        set_ = set_.select(range(examples))
    set_ = set_.select_columns([images[0], label])
    pixels = [_pixels(row[images[0]], n, name) for n, row in enumerate(set_)]
    shapes = sorted({p.shape for p in pixels})
    if len(shapes) > 1:
        raise UnusableInput(
            f"images of {name} differ in shape, for instance {list(shapes[0])} and {list(shapes[-1])}; "
            "bring them to one size and save x and y as .npz"
        )
    x = np.stack(pixels) if pixels else np.zeros((0, 1, 1, 1), np.uint8)
    return torch.from_numpy(x).to(torch.float32) / 255, np.asarray(set_[label]), split, labels[label]


def _place(name: str) -> str:
    """Where a data set lives: a folder, or a hub id."""
    root = os.environ.get("UNMASK_DATA")
    if name in HUB_IDS:
        local = Path(root, name) if root else None
        return str(local) if local is not None and local.is_dir() else HUB_IDS[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise UnusableInput(
            f"there is no file or folder {name!r}; give digits, mnist, cifar10, a Hugging Face data set, "
            "or a .npz or .safetensors file"
        )
    return name


def _open(name: str, place: str, split: str | None) -> tuple[Any, str]:
    import datasets

    first = None
    for candidate in ("test", "validation", "train") if split is None else (split,):
        try:
            return datasets.load_dataset(place, split=candidate), candidate
        except (
            ValueError
        ) as error:  # the library's way to say that there is no such split; it lists those there are
            first = first or error
            if "split" not in str(error):
                break
        except Exception as error:  # its network, parsing and Arrow errors have no common base
            first = error
            break
    assert first is not None
    reason = f"{type(first).__name__}: {first_line(first).rstrip('.')}"
    raise UnusableInput(
        f"the data set {name} cannot be loaded ({reason}); give digits, mnist, cifar10, the id or folder of "
        "a Hugging Face image-classification set, or a .npz or .safetensors file"
    ) from first


def _pixels(image: Any, row: int, name: str) -> np.ndarray:
    """Bytes of one PIL image, `[channels, height, width]`."""
    mode = MODES.get(image.mode)
    if mode is None:
        raise UnusableInput(
            f"image {row} of {name} has mode {image.mode}, not 8-bit grey or RGB; convert it and "
            "save x and y as .npz"
        )
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
