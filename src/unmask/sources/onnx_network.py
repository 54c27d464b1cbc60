"""`.onnx`: a graph translated to torch, so that gradients exist; what does not translate runs in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UnusableInput, first_line
from .batches import FixedBatch
from .missing import optional
from .onnx_operators import OPERATORS, attributes
from .preprocessing import Preprocessing, SourceOptions

# Translation and onnxruntime compute in float32 by other kernels: logits may differ by this share of the largest. Ours.
AGREEMENT = 1e-3


class OnnxGraph(nn.Module):
    """The operators of an ONNX graph, run one after the other by torch; initialisers are buffers."""

    def __init__(self, graph: Any, constants: dict[str, Tensor], opset: int):
        super().__init__()
        self.opset = opset
        self.nodes = [
            (OPERATORS[node.op_type], list(node.input), list(node.output), attributes(node))
            for node in graph.node
        ]
        self.names: dict[str, str] = {}
        for number, (name, value) in enumerate(constants.items()):
            self.names[name] = f"constant_{number}"
            self.register_buffer(f"constant_{number}", value)
        self.input = _inputs(graph, constants)[0].name
        self.output = graph.output[0].name
        # A value is dropped after its last reader, so that a deep network keeps one layer at a time.
        self.last = {name: n for n, (_, read, _, _) in enumerate(self.nodes) for name in read}

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Any] = {name: getattr(self, own) for name, own in self.names.items()}
        values[self.input] = x
        for number, (operator, read, written, stated) in enumerate(self.nodes):
            found = operator([values[name] if name else None for name in read], stated, self.opset)
            for name, value in zip(written, found if isinstance(found, tuple) else (found,), strict=False):
                values[name] = value
            for name in read:
                if name and self.last[name] == number and name != self.output:
                    values.pop(name, None)
        return values[self.output]


class OnnxSession(nn.Module):
    """A graph that does not translate, as onnxruntime runs it: no gradient, which the audit bridges or does without."""

    def __init__(self, session: Any):
        super().__init__()
        self.session = session
        self.input = session.get_inputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        (answer, *_) = self.session.run(None, {self.input: x.detach().cpu().numpy()})
        return torch.from_numpy(np.asarray(answer)).to(x.device)


def open_network(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """Translates a graph and, where onnxruntime is installed, holds the translation against it on random images.

    **Raises** `UnusableInput` where the file is no graph of one image input, or an operator is unknown and onnxruntime
    missing, or the two disagree.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        raise UnusableInput(f"there is no file {path}; give an ONNX graph")
    onnx: Any = optional("onnx", "onnx", str(path))
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and file errors have no common base
        raise UnusableInput(
            f"{path} is no ONNX graph ({type(error).__name__}: {first_line(error)})"
        ) from error
    graph = model.graph
    opset = next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)
    constants = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}
    inputs = _inputs(graph, constants)
    if len(inputs) != 1:
        raise UnusableInput(f"{path} takes {len(inputs)} inputs; export a graph that takes the images alone")
    shape = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim]
    unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys())
    if unknown:
        network: nn.Module = OnnxSession(_session(path, f"its operators {', '.join(unknown)}"))
    else:
        network = OnnxGraph(graph, constants, opset)
        _compare(network, path, shape)
    return (FixedBatch(network, shape[0]) if shape and shape[0] else network), Preprocessing()


def _inputs(graph: Any, constants: dict[str, Tensor]) -> list[Any]:
    return [i for i in graph.input if i.name not in constants]


def _session(path: Path, why: str) -> Any:
    runtime: Any = optional("onnxruntime", "onnx", f"{path} ({why})")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _compare(network: nn.Module, path: Path, shape: list[int | None]) -> None:
    """**Raises** `UnusableInput` where translation and onnxruntime give other logits for the same images."""
    try:
        session = _session(path, "a comparison")
    except UnusableInput:
        return  # not installed: the translation's operators are tested, this graph is not
    generator = torch.Generator().manual_seed(0)
    x = torch.rand([shape[0] or 2, *(n or 32 for n in shape[1:])], generator=generator)
    try:
        with torch.no_grad():
            ours, theirs = network(x), OnnxSession(session)(x)
    except Exception as error:  # onnxruntime's errors have no common base
        raise UnusableInput(
            f"{path} does not run on images of shape {list(x.shape)} ({first_line(error)}); export it again with a "
            "dynamic batch dimension"
        ) from error
    gap = float((ours - theirs).abs().max())
    if ours.shape != theirs.shape or not gap <= AGREEMENT * max(1.0, float(theirs.abs().max())):
        raise UnusableInput(
            f"{path} translated to torch differs from onnxruntime by {gap:.2g}; please report the graph's operators"
        )
