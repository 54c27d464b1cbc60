"""Small networks by their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...classifier import seeded
from ...errors import UnusableInput, first_line

Made = TypeVar("Made", bound=nn.Module, covariant=True)


class _Stored(Protocol[Made]):
    __name__: str

    def of(self, weights: dict[str, Tensor]) -> Made: ...


def stored(network: nn.Module | str, kind: _Stored[Made]) -> Made:
    """A network as it is, or read from a `.safetensors` file of a kind's weights; in eval mode, its weights frozen.

    **Raises** `UnusableInput` for a file that holds no such weights, and for a network of another kind.
    """
    found: Any = network
    if isinstance(network, str):
        file = Path(network)
        try:
            with seeded(0, torch.device("cpu")):
                found = kind.of(load_file(file))
        except Exception as error:  # safetensors' errors share no base with those of the file system
            raise UnusableInput(
                f"{file} holds no weights of a `{kind.__name__}` ({first_line(error)})"
            ) from error
    if not isinstance(found, kind):  # type: ignore[arg-type]
        raise UnusableInput(
            f"this is a {type(found).__name__}; give a `{kind.__name__}` or the path of its weights"
        )
    return found.eval().requires_grad_(False)
