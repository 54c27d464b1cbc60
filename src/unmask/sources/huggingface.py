"""`hf:FOLDER_OR_ID`: image classifiers of Hugging Face transformers, with what their processor's file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UnusableInput, first_line
from .missing import optional
from .preprocessing import Preprocessing, SourceOptions

# PIL's numbers in a processor's configuration.
_INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def open_network(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """The classifier in a folder or on the hub; `Preprocessing` from its processor's configuration, if it has one."""
    transformers: Any = optional("transformers", "hf", f"hf:{place}")
    folder = Path(place).expanduser()
    name = str(folder) if folder.exists() else place
    try:
        network = transformers.AutoModelForImageClassification.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise UnusableInput(
            f"hf:{place} cannot be loaded ({type(error).__name__}: {first_line(error)}); give a folder with "
            "config.json and weights, or the id of an image classifier"
        ) from error
    return network.eval(), _processor(transformers, name)


def _processor(transformers: Any, name: str) -> Preprocessing:
    try:
        stated, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:  # no such file: the network takes what it is given
        return Preprocessing()
    resize = stated["size"] if stated.get("do_resize", "size" in stated) else None
    crop = stated.get("crop_size") if stated.get("do_center_crop") else None
    size = _size(resize)
    percentage = stated.get("crop_pct")
    if percentage and isinstance(size, int):
        crop, size = crop or size, int(size / percentage)
    normalised = stated.get("do_normalize", "image_mean" in stated)
    mean, std = (stated.get("image_mean"), stated.get("image_std")) if normalised else (None, None)
    # A factor other than 1/255 changes the range that the mean and deviation are stated in.
    factor = 255 * float(stated.get("rescale_factor", 1 / 255)) if stated.get("do_rescale", True) else 255.0
    if abs(factor - 1) > 1e-3:
        mean = [m / factor for m in mean or [0.0]]
        std = [s / factor for s in std or [1.0]]
    return Preprocessing(
        resize=size,
        crop=_size(crop),
        mean=tuple(mean) if mean else None,
        std=tuple(std) if std else None,
        interpolation=_INTERPOLATION.get(stated.get("resample", 2), "bilinear"),
    )


def _size(stated: Any) -> int | tuple[int, int] | None:
    if stated is None or isinstance(stated, int):
        return stated
    if "shortest_edge" in stated:
        return int(stated["shortest_edge"])
    return int(stated["height"]), int(stated["width"])
