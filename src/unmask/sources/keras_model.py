"""`.keras`: networks of Keras 3 on its torch backend, which take NHWC and mostly return probabilities."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnusableInput, first_line
from .missing import optional
from .preprocessing import Preprocessing, SourceOptions


class KerasNetwork(nn.Module):
    """A Keras model in evaluation mode, which Keras takes as an argument of the call."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> KerasNetwork:
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, training=False)


def open_network(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """Loads a saved model. A soft-max at its end is taken off, for attacks need logits.

    **Raises** `UnusableInput` where Keras runs on another backend than torch.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        raise UnusableInput(f"there is no file {path}; give the .keras that model.save wrote")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras: Any = optional("keras", "keras", str(path))
    if keras.backend.backend() != "torch":
        raise UnusableInput(
            f"Keras runs on {keras.backend.backend()} here, which has no torch gradients; set KERAS_BACKEND=torch"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # its deserialisation errors have no common base
        raise UnusableInput(
            f"{path} cannot be loaded ({type(error).__name__}: {first_line(error)}); save it again with model.save"
        ) from error
    last = model.layers[-1]
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
    elif isinstance(last, keras.layers.Softmax) and len(model.layers) > 1:
        model = keras.Model(model.inputs, last.input)
    channels_last = keras.config.image_data_format() == "channels_last"
    # Variables live on Keras's default device; there is no other on a CPU.
    return KerasNetwork(model.to(torch.device("cpu"))), Preprocessing(channels_last=channels_last)
