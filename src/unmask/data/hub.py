"""Images and labels through Hugging Face `datasets`: a hub id, or a local folder of the same schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import NoSuchSplit, UnusableInput, first_line
from .pictures import Size, stack
from .sample import Choice

HUB_IDS = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
# Other usual names; a configuration stands behind the colon.
ALIASES = {
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar100": "uoft-cs/cifar100",
    "svhn": "ufldl-stanford/svhn:cropped_digits",
    "imagenet": "ILSVRC/imagenet-1k",
}


def read_hugging_face(
    name: str, split: str | None, choose: Choice, size: Size
) -> tuple[Any, Any, Any, str, tuple[str, ...]]:
    """Images, labels, their places, split and class names. Only the chosen pictures are decoded.

    **Raises** `UnusableInput` where it cannot be read.
    """
    import datasets  # here, for it takes a second to import

    set_, split = _open(name, _place(name), split)
    image, label, names = _columns(set_, name, datasets)
    labels = np.asarray(set_[label])
    chosen = choose(labels)
    set_ = set_.select(chosen).select_columns([image]).cast_column(image, datasets.Image())

    def pictures() -> Iterator[tuple[str, Any]]:
        for n, place in enumerate(chosen):
            try:
                picture = set_[n][image]
            except (OSError, SyntaxError, ValueError) as error:  # PIL's for bytes that are no picture
                raise UnusableInput(
                    f"image {place} of {name} cannot be read ({first_line(error)}); remove it"
                ) from error
            yield f"image {place}", picture

    x = stack(pictures(), size, name, len(chosen))
    return torch.from_numpy(x).to(torch.float32).div_(255), labels[chosen], chosen, split, names


def _columns(set_: Any, name: str, datasets: Any) -> tuple[str, str, tuple[str, ...]]:
    """The columns of pictures and labels, and the classes' names where they are declared."""
    features = set_.features
    images = [c for c, f in features.items() if isinstance(f, datasets.Image)]
    if not images:  # a table written by another tool: bytes and path in a record, or bytes alone
        images = [c for c, f in features.items() if isinstance(f, dict) and "bytes" in f]
        images += [c for c, f in features.items() if getattr(f, "dtype", "") in ("binary", "large_binary")]
    labels = {c: tuple(f.names) for c, f in features.items() if isinstance(f, datasets.ClassLabel)}
    if not labels:
        integers = [c for c in ("label", "labels") if "int" in getattr(features.get(c), "dtype", "")]
        labels = dict.fromkeys(integers, ())
    if len(images) != 1 or not labels:
        columns = ", ".join(f"{c} ({type(f).__name__})" for c, f in features.items())
        raise UnusableInput(
            f"{name} has the columns {columns}; it needs one of type Image and one of type ClassLabel: "
            "save x and y as .npz instead"
        )
    label = "label" if "label" in labels else max(labels, key=lambda c: len(labels[c]))
    return images[0], label, labels[label]


def _place(name: str) -> str:
    """Where a data set lives: a folder, or a hub id."""
    root = os.environ.get("UNMASK_DATA")
    if name in HUB_IDS:
        local = Path(root, name) if root else None
        return str(local) if local is not None and local.is_dir() else HUB_IDS[name]
    if name in ALIASES:
        return ALIASES[name]
    path = Path(name).expanduser()
    if path.is_dir() or (path.suffix == ".parquet" and path.is_file()):
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise UnusableInput(
            f"there is no file or folder {name!r}; give digits, mnist, cifar10, a Hugging Face data set, "
            "or a .npz or .safetensors file"
        )
    return name


def _open(name: str, place: str, split: str | None) -> tuple[Any, str]:
    import datasets

    path = Path(place)
    saved = [path / file for file in ("dataset_dict.json", "state.json")]
    first, whole = None, None
    for candidate in ("test", "validation", "train") if split is None else (split,):
        try:
            if any(file.is_file() for file in saved):
                return _saved(datasets.load_from_disk(place), candidate)
            if path.suffix == ".parquet":
                # Whatever it is called, its rows are what there is.
                found = datasets.load_dataset(
                    "parquet", data_files={split or "test": place}, split=split or "test"
                )
                return found, split or ""
            if path.is_dir():
                # Every call looks at every file of a folder, whatever split it asks for.
                whole = whole or datasets.load_dataset(place)
                return _saved(whole, candidate)
            where, _, configuration = place.partition(":") if place in ALIASES.values() else (place, "", "")
            return datasets.load_dataset(where, configuration or None, split=candidate), candidate
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
    refusal = NoSuchSplit if split is not None and "split" in str(first) else UnusableInput
    raise refusal(
        f"the data set {name} cannot be loaded ({reason}); give digits, mnist, cifar10, the id or folder of "
        "a Hugging Face image-classification set, or a .npz or .safetensors file"
    ) from first


def _saved(found: Any, split: str) -> tuple[Any, str]:
    """What `save_to_disk` wrote: a set, or a dictionary of splits."""
    if not isinstance(found, dict):
        return found, str(found.split or "")
    if split not in found:
        raise ValueError(f"there is no split {split!r}; it has {', '.join(found)}")
    return found[split], split
