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
COARSE = 1e-2  # in sixteen bits
# Types of numbers by their code in the format: images reach the graph in its own.
_FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


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
        taken = _inputs(graph, constants)[0]
        self.input, self.dtype = taken.name, _FLOATS[taken.type.tensor_type.elem_type]
        self.output = _logits(graph)
        # A value is dropped after its last reader, so that a deep network keeps one layer at a time.
        self.last = {name: n for n, (_, read, _, _) in enumerate(self.nodes) for name in read}

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Any] = {name: getattr(self, own) for name, own in self.names.items()}
        values[self.input] = x.to(self.dtype)
        for number, (operator, read, written, stated) in enumerate(self.nodes):
            found = operator([values[name] if name else None for name in read], stated, self.opset)
            for name, value in zip(written, found if isinstance(found, tuple) else (found,), strict=False):
                values[name] = value
            for name in read:
                if name and self.last[name] == number and name != self.output:
                    values.pop(name, None)
        return values[self.output].float()


class OnnxSession(nn.Module):
    """A graph that does not translate, as onnxruntime runs it: no gradient, which the audit bridges or does without."""

    def __init__(self, session: Any, dtype: torch.dtype, output: str):
        super().__init__()
        self.session, self.dtype, self.output = session, dtype, output
        self.input = session.get_inputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        images = x.detach().cpu().to(self.dtype).numpy()
        (answer,) = self.session.run([self.output], {self.input: images})
        return torch.from_numpy(np.asarray(answer)).to(x.device, torch.float32)


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
    dtype = _FLOATS.get(inputs[0].type.tensor_type.elem_type)
    if dtype is None:
        kind = onnx.TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type).lower()
        raise UnusableInput(
            f"{path} takes images of type {kind}; export a graph that takes float32 in [0, 1]"
        )
    shape = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim]
    unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys())
    if unknown:
        session = _session(path, f"its operators {', '.join(unknown)}")
        network: nn.Module = OnnxSession(session, dtype, _logits(graph))
    else:
        network = translated = OnnxGraph(graph, constants, opset)
        _compare(translated, path, shape)
    return (FixedBatch(network, shape[0]) if shape and shape[0] else network), Preprocessing()


def _inputs(graph: Any, constants: dict[str, Tensor]) -> list[Any]:
    return [i for i in graph.input if i.name not in constants]


def _logits(graph: Any) -> str:
    """Name of the output to read: the one that calls itself logits, else the first of numbers for each class."""
    scores = [o for o in graph.output if o.type.tensor_type.elem_type in _FLOATS]
    scores = (
        [o for o in scores if len(o.type.tensor_type.shape.dim) in (0, 2)] or scores or list(graph.output)
    )
    return next((o.name for o in scores if "logit" in o.name.lower()), scores[0].name)


def _session(path: Path, why: str) -> Any:
    runtime: Any = optional("onnxruntime", "onnx", f"{path} ({why})")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _compare(network: OnnxGraph, path: Path, shape: list[int | None]) -> None:
    """**Raises** `UnusableInput` where translation and onnxruntime give other logits for the same images."""
    try:
        session = _session(path, "a comparison")
    except UnusableInput:
        return  # not installed: the translation's operators are tested, this graph is not
    generator = torch.Generator().manual_seed(0)
    x = torch.rand([shape[0] or 2, *(n or 32 for n in shape[1:])], generator=generator)
    try:
        with torch.no_grad():
            ours, theirs = network(x), OnnxSession(session, network.dtype, network.output)(x)
    except Exception as error:  # onnxruntime's errors have no common base
        raise UnusableInput(
            f"{path} does not run on images of shape {list(x.shape)} ({first_line(error)}); export it again for "
            "images of any number, with a dynamic batch dimension"
        ) from error
    gap = float((ours - theirs).abs().max())
    share = COARSE if network.dtype in (torch.float16, torch.bfloat16) else AGREEMENT
    if ours.shape != theirs.shape or not gap <= share * max(1.0, float(theirs.abs().max())):
        raise UnusableInput(
            f"{path} translated to torch differs from onnxruntime by {gap:.2g}; please report the graph's operators"
        )
