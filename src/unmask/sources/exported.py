"""`.pt2`: programs written by `torch.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnusableInput, first_line
from .batches import FixedBatch
from .preprocessing import Preprocessing, SourceOptions


class Program(nn.Module):
    """An exported program as a module that can be asked for evaluation mode: it has the one it was exported in."""

    def __init__(self, program: Any):
        super().__init__()
        self.graph = program.module()
        for module in self.graph.modules():  # holders of parameters, born in train mode, which nothing reads
            module.training = False

    def train(self, mode: bool = True) -> Program:
        # `eval()` of an exported graph raises.
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Any:
        return self.graph(x)


def open_program(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """Loads a program; one that was exported for a fixed batch size is asked in batches of that size."""
    path = Path(place).expanduser()
    if not path.is_file():
        raise UnusableInput(f"there is no file {path}; give the .pt2 that torch.export.save wrote")
    try:
        program = torch.export.load(path)
    except Exception as error:  # its zip, schema and pickle errors have no common base
        raise UnusableInput(
            f"{path} cannot be loaded by torch.export ({type(error).__name__}: {first_line(error)}); save it again "
            "with this version of torch"
        ) from error
    inputs = [
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1:
        raise UnusableInput(
            f"{path} takes {len(inputs)} inputs; export a program that takes the images alone"
        )
    size = inputs[0].shape[0]
    network: nn.Module = Program(program)
    return (FixedBatch(network, size) if isinstance(size, int) else network), Preprocessing()
