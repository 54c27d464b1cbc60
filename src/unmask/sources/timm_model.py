"""`timm:NAME[@CHECKPOINT]`: networks of timm, with the preprocessing that their configuration states."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import UnusableInput, first_line
from .missing import optional
from .preprocessing import Preprocessing, SourceOptions


def open_network(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """`NAME` with its published weights, or with those of the file behind `@`."""
    timm: Any = optional("timm", "timm", f"timm:{place}")
    name, _, checkpoint = place.partition("@")
    try:
        network = timm.create_model(name, pretrained=not checkpoint, checkpoint_path=checkpoint or None)
    except (RuntimeError, OSError, ValueError) as error:
        raise UnusableInput(
            f"timm:{place} cannot be loaded ({type(error).__name__}: {first_line(error)}); give a name of "
            "timm.list_models(), and behind @ the file of its weights"
        ) from error
    stated = timm.data.resolve_model_data_config(network)
    side = int(stated["input_size"][-1])
    short = int(side / stated.get("crop_pct", 1.0))
    return network.eval(), Preprocessing(
        # "squash" makes every picture a square; "border", which pads, is read as "center".
        resize=(short, short) if stated.get("crop_mode") == "squash" else short,
        crop=side,
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        interpolation=stated.get("interpolation", "bicubic"),
    )
