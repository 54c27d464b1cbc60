"""`hf:FOLDER_OR_ID`: image classifiers of Hugging Face transformers, with what their processor's file says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnusableInput, first_line
from .missing import optional
from .preprocessing import Preprocessed, Preprocessing, SourceOptions

# PIL's numbers in a processor's configuration.
_INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}
# Below this size ConvNeXt's processor crops, and from it on it resizes both sides.
_CROPPED_BELOW = 384
# Share of a prepared picture's deviation by which ours may be off on average: bytes are rounded once more there. Ours.
ROUNDING = 0.05


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
    steps = _processor(transformers, name)
    if not any(getattr(options, field.name) is not None for field in fields(Preprocessing)):
        _compare(steps, transformers, name, getattr(network.config, "num_channels", 3))
    return network.eval(), steps


def _processor(transformers: Any, name: str) -> Preprocessing:
    try:
        stated, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:  # no such file: the network takes what it is given
        return Preprocessing()
    resize, crop = _sizes(stated)
    # MobileViT's, which alone turns the channels round, does not normalise by the mean that it saves.
    flipped = stated.get("do_flip_channel_order")
    normalised = stated.get("do_normalize", "image_mean" in stated and flipped is None)
    mean, std = (stated.get("image_mean"), stated.get("image_std")) if normalised else (None, None)
    # A factor other than 1/255 changes the range that the mean and deviation are stated in; EfficientNet's may take
    # one off then, and divide by the deviation twice.
    factor = 255 * float(stated.get("rescale_factor", 1 / 255)) if stated.get("do_rescale", True) else 255.0
    offset = 1.0 if stated.get("rescale_offset") and stated.get("do_rescale", True) else 0.0
    twice = normalised and stated.get("include_top", False)
    if abs(factor - 1) > 1e-3 or offset or twice:
        mean = [(m + offset) / factor for m in mean or [0.0]]
        std = [(s * s if twice else s) / factor for s in std or [1.0]]
    return Preprocessing(
        resize=resize,
        crop=crop,
        mean=tuple(mean) if mean else None,
        std=tuple(std) if std else None,
        bgr=True if flipped else None,
        interpolation=_INTERPOLATION.get(stated.get("resample", 2), "bilinear"),
    )


def _sizes(stated: dict[str, Any]) -> tuple[Any, Any]:
    """To what a processor resizes, and what it keeps of the centre then."""
    size = _size(stated["size"] if stated.get("do_resize", "size" in stated) else None)
    crop = _size(stated.get("crop_size") if stated.get("do_center_crop") else None)
    if not isinstance(size, int):
        return size, crop
    if stated.get("crop_pct") and size < _CROPPED_BELOW:
        return int(size / stated["crop_pct"]), crop or size
    if stated.get("crop_pct") and str(stated.get("image_processor_type", "")).startswith("ConvNext"):
        return (size, size), crop
    if str(stated.get("image_processor_type", "")).startswith("Levit"):
        return int(256 / 224 * size), crop
    return size, crop


def _size(stated: Any) -> int | tuple[int, int] | None:
    if stated is None or isinstance(stated, int):
        return stated
    if "shortest_edge" in stated:
        return int(stated["shortest_edge"])
    if "height" in stated and "width" in stated:
        return int(stated["height"]), int(stated["width"])
    raise UnusableInput(
        f"the size {dict(stated)} of preprocessor_config.json is neither a shortest edge nor height and width; state "
        "those there, or write the steps inside a Python callable"
    )


def _compare(steps: Preprocessing, transformers: Any, name: str, channels: int) -> None:
    """**Raises** `UnusableInput` where the processor itself makes something else of a picture than `steps` do."""
    x = torch.rand(1, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    x = (nn.functional.interpolate(x, (480, 608), mode="bilinear") * 255).round().byte()
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, use_fast=False)
        said = processor(images=list(x.numpy()), return_tensors="pt", input_data_format="channels_first")
        theirs: Tensor = said["pixel_values"].float()
    except Exception:  # none is there, or a library that it needs, or it takes other pictures
        return
    ours = _prepared(x / 255, steps)
    if ours is not None and ours.shape == theirs.shape:
        gap = float((ours - theirs).abs().mean() / theirs.std().clamp(min=1e-6))
        if gap <= ROUNDING:
            return
    raise UnusableInput(
        f"what the {type(processor).__name__} of hf:{name} does to images is more than its size, mean and deviation "
        "say; state them with --resize, --crop, --mean and --std, or put the steps inside a Python callable"
    )


def _prepared(x: Tensor, steps: Preprocessing) -> Tensor | None:
    try:
        return Preprocessed(nn.Identity(), steps)(x)
    except (UnusableInput, RuntimeError):
        return None
