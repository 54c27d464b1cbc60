"""ONNX's operators in torch's words, those that image classifiers are made of.

Each takes the node's inputs (None where left out), its attributes and the opset, and returns the node's output, or a
tuple of them. **Source**: the operator specification, onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Inputs = list[Any]
Attributes = dict[str, Any]
Operator = Callable[[Inputs, Attributes, int], Any]


def attributes(node: Any) -> Attributes:
    """A node's attributes as Python values and tensors."""
    helper, numpy_helper = import_module("onnx.helper"), import_module("onnx.numpy_helper")
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Split":  # before opset 18 the outputs alone say how many parts there are
        found.setdefault("num_outputs", len(node.output))
    return {
        k: v.decode()
        if isinstance(v, bytes)
        else torch.from_numpy(numpy_helper.to_array(v).copy())
        if hasattr(v, "raw_data") and hasattr(v, "data_type")
        else v
        for k, v in found.items()
    }


def _whole(values: Any) -> list[int]:
    return [int(v) for v in (values.tolist() if isinstance(values, Tensor) else values)]


def _axes(inputs: Inputs, stated: Attributes, place: int = 1) -> list[int] | None:
    if len(inputs) > place and inputs[place] is not None:
        return _whole(inputs[place].reshape(-1))
    return list(stated["axes"]) if "axes" in stated else None


def _padded(x: Tensor, stated: Attributes, window: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with what `pads` or `auto_pad` ask for around its last axes."""
    dims = len(window)
    mode = stated.get("auto_pad", "NOTSET")
    pads = list(stated.get("pads", [0] * 2 * dims))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = stated.get("strides", [1] * dims), stated.get("dilations", [1] * dims)
        for n in range(dims):
            size = x.shape[2 + n]
            total = max(
                0, (-(-size // strides[n]) - 1) * strides[n] + (window[n] - 1) * dilations[n] + 1 - size
            )
            less = total // 2
            pads[n], pads[dims + n] = (less, total - less) if mode == "SAME_UPPER" else (total - less, less)
    if mode == "VALID" or not any(pads):
        return x
    return F.pad(x, [p for n in reversed(range(dims)) for p in (pads[n], pads[dims + n])], value=value)


def _conv(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    dims = weight.ndim - 2
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return convolve(
        _padded(x, stated, weight.shape[2:]),
        weight,
        bias,
        stride=tuple(stated.get("strides", [1] * dims)),
        dilation=tuple(stated.get("dilations", [1] * dims)),
        groups=stated.get("group", 1),
    )


def _conv_transpose(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    dims = weight.ndim - 2
    if "output_shape" in stated or stated.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError("ConvTranspose with output_shape or auto_pad")
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    pads = stated.get("pads", [0] * 2 * dims)
    y = convolve(
        x,
        weight,
        bias,
        stride=tuple(stated.get("strides", [1] * dims)),
        output_padding=tuple(stated.get("output_padding", [0] * dims)),
        dilation=tuple(stated.get("dilations", [1] * dims)),
        groups=stated.get("group", 1),
    )
    for n in range(dims):
        y = y.narrow(2 + n, pads[n], y.shape[2 + n] - pads[n] - pads[dims + n])
    return y


def _max_pool(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    window = stated["kernel_shape"]
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(window) - 1]
    return pool(
        _padded(inputs[0], stated, window, -torch.inf),
        window,
        tuple(stated.get("strides", [1] * len(window))),
        dilation=tuple(stated.get("dilations", [1] * len(window))),
        ceil_mode=bool(stated.get("ceil_mode", 0)),
    )


def _average_pool(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    window = stated["kernel_shape"]
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(window) - 1]
    options: dict[str, Any] = {"ceil_mode": bool(stated.get("ceil_mode", 0))}
    strides = tuple(stated.get("strides", [1] * len(window)))
    x = inputs[0]
    total = pool(_padded(x, stated, window), window, strides, **options)
    if stated.get("count_include_pad", 0):
        return total
    # The share of each window that lies on the image: padding does not count.
    inside = pool(_padded(torch.ones_like(x[:1, :1]), stated, window), window, strides, **options)
    return total / inside


def _batch_normalization(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, scale, bias, mean, var = inputs
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=stated.get("epsilon", 1e-5))


def _instance_normalization(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    return F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=stated.get("epsilon", 1e-5))


def _layer_normalization(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, scale, bias = [*inputs, None][:3]
    axis = stated.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale, bias, stated.get("epsilon", 1e-5))


def _group_normalization(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, scale, bias = inputs
    groups = stated["num_groups"]
    if opset < 21:  # then a scale for each group
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, stated.get("epsilon", 1e-5))


def _lrn(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    size = stated["size"]
    return F.local_response_norm(
        inputs[0], size, stated.get("alpha", 1e-4), stated.get("beta", 0.75), stated.get("bias", 1.0)
    )


def _gemm(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    a, b, c = [*inputs, None][:3]
    product = (a.T if stated.get("transA", 0) else a) @ (b.T if stated.get("transB", 0) else b)
    product = product * stated.get("alpha", 1.0)
    return product if c is None else product + stated.get("beta", 1.0) * c


def _reshape(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, shape = inputs[0], _whole(inputs[1]) if len(inputs) > 1 else list(stated["shape"])
    if not stated.get("allowzero", 0):
        shape = [x.shape[n] if size == 0 else size for n, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    axis = stated.get("axis", 1)
    x = inputs[0]
    axis = axis % x.ndim if axis < 0 else axis
    return x.reshape(x.shape[:axis].numel(), -1)


def _squeeze(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    axes = _axes(inputs, stated)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, axes = inputs[0], _axes(inputs, stated)
    assert axes is not None
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x = inputs[0]
    return x.permute(*stated.get("perm", tuple(reversed(range(x.ndim)))))


def _split(inputs: Inputs, stated: Attributes, opset: int) -> tuple[Tensor, ...]:
    x, axis = inputs[0], stated.get("axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        return x.split(_whole(inputs[1]), axis)
    if "split" in stated:
        return x.split(list(stated["split"]), axis)
    return x.chunk(stated["num_outputs"], axis)


def _slice(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x = inputs[0]
    if len(inputs) > 1:
        starts, ends = _whole(inputs[1]), _whole(inputs[2])
        axes = _axes(inputs, {}, 3)
        steps = _axes(inputs, {}, 4)
    else:
        starts, ends, axes, steps = stated["starts"], stated["ends"], stated.get("axes"), None
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(x.shape[axis])[max(-(2**62), start) : end if abs(end) < 2**62 else None : step]
        if step > 0:
            x = (
                x.narrow(axis, places.start, 0)
                if not places
                else x[(slice(None),) * (axis % x.ndim) + _cut(places)]
            )
        else:
            x = x.index_select(axis, torch.tensor(list(places), device=x.device, dtype=torch.long))
    return x


def _cut(places: range) -> tuple[slice]:
    return (slice(places.start, places.stop, places.step),)


def _gather(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, index, axis = inputs[0], inputs[1].long(), stated.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    if index.ndim == 0:
        return x.select(axis, int(index))
    axis = axis % x.ndim
    found = x.index_select(axis, index.reshape(-1))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _pad(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x = inputs[0]
    pads = _whole(inputs[1]) if len(inputs) > 1 else list(stated["pads"])
    given = inputs[2] if len(inputs) > 2 else None
    value = float(given) if given is not None else float(stated.get("value", 0.0))
    axes = _axes(inputs, {}, 3) or list(range(x.ndim))
    whole = [0] * 2 * x.ndim
    for n, axis in enumerate(axes):
        whole[axis % x.ndim], whole[x.ndim + axis % x.ndim] = pads[n], pads[len(axes) + n]
    flat = [p for n in reversed(range(x.ndim)) for p in (whole[n], whole[x.ndim + n])]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        stated.get("mode", "constant")
    ]
    if mode == "constant":
        return F.pad(x, flat, value=value)
    while len(flat) > 2 and flat[-2:] == [0, 0]:  # torch's other modes pad the last axes alone
        flat = flat[:-2]
    return F.pad(x, flat, mode=mode)


def _resize(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x = inputs[0]
    given = [*inputs[1:], None, None, None]
    scales, sizes = (given[0], None) if opset < 11 else (given[1], given[2])
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[stated.get("mode", "nearest")]
    size = _whole(sizes)[2:] if sizes is not None else None
    if size is None:
        assert scales is not None
        size = [int(n * s) for n, s in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    where = stated.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        if where == "asymmetric" and stated.get("nearest_mode", "round_prefer_floor") == "floor":
            return F.interpolate(x, size, mode="nearest")
        return F.interpolate(x, size, mode="nearest-exact")
    if where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotImplementedError(f"Resize with {where}")
    return F.interpolate(x, size, mode=mode, align_corners=where == "align_corners")


def _cast(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    kinds = {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
    return inputs[0].to(kinds[stated["to"]])


def _constant(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    for name, kind in (("value_float", torch.float32), ("value_int", torch.int64)):
        if name in stated:
            return torch.tensor(stated[name], dtype=kind)
    for name, kind in (("value_floats", torch.float32), ("value_ints", torch.int64)):
        if name in stated:
            return torch.tensor(list(stated[name]), dtype=kind)
    return stated["value"]


def _clip(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    low, high = ([*inputs[1:], None, None][:2]) if len(inputs) > 1 else (stated.get("min"), stated.get("max"))
    x = inputs[0]
    if low is not None:
        x = torch.clamp(x, min=low)
    return x if high is None else torch.clamp(x, max=high)


def _reduced(how: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
        x, axes = inputs[0], _axes(inputs, stated)
        if axes is None:
            if stated.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return how(x, axes, bool(stated.get("keepdims", 1)))

    return run


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
        x = inputs[0]
        if opset >= 13:
            return function(x, stated.get("axis", -1))
        axis = stated.get("axis", 1) % x.ndim  # before, everything from the axis on was one
        return function(x.reshape(x.shape[:axis].numel(), -1), 1).reshape(x.shape)

    return run


def _one(function: Callable[..., Any]) -> Operator:
    """An operator of tensors alone."""
    return lambda inputs, stated, opset: function(*inputs)


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of tensors, two by two."""

    def run(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
        total = inputs[0]
        for more in inputs[1:]:
            total = function(total, more)
        return total

    return run


def _divided(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _arg(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs, stated, opset: function(
        inputs[0], dim=stated.get("axis", 0), keepdim=bool(stated.get("keepdims", 1))
    )


def _per_channel(values: Tensor, x: Tensor, axis: int) -> Tensor:
    return (
        values.reshape([-1 if n == axis % x.ndim else 1 for n in range(x.ndim)])
        if values.ndim == 1
        else values
    )


def _quantized(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, scale, zero = [*inputs, None][:3]
    axis = stated.get("axis", 1)
    offset = 0 if zero is None else _per_channel(zero, x, axis).to(torch.float32)
    kind = torch.uint8 if zero is None else zero.dtype
    info = torch.iinfo(kind)
    return torch.clamp(torch.round(x / _per_channel(scale, x, axis)) + offset, info.min, info.max).to(kind)


def _dequantized(inputs: Inputs, stated: Attributes, opset: int) -> Tensor:
    x, scale, zero = [*inputs, None][:3]
    axis = stated.get("axis", 1)
    offset = 0 if zero is None else _per_channel(zero, x, axis).to(torch.float32)
    return (x.to(torch.float32) - offset) * _per_channel(scale, x, axis)


def _global(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs, stated, opset: function(inputs[0], tuple(range(2, inputs[0].ndim)), True)


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _one(torch.matmul),
    "Einsum": lambda inputs, stated, opset: torch.einsum(stated["equation"], *inputs),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "GroupNormalization": _group_normalization,
    "LRN": _lrn,
    "Relu": _one(torch.relu),
    "LeakyRelu": lambda inputs, stated, opset: F.leaky_relu(inputs[0], stated.get("alpha", 0.01)),
    "PRelu": lambda inputs, stated, opset: torch.where(inputs[0] < 0, inputs[0] * inputs[1], inputs[0]),
    "Elu": lambda inputs, stated, opset: F.elu(inputs[0], stated.get("alpha", 1.0)),
    "Celu": lambda inputs, stated, opset: F.celu(inputs[0], stated.get("alpha", 1.0)),
    "Selu": _one(torch.selu),
    "Sigmoid": _one(torch.sigmoid),
    "HardSigmoid": lambda inputs, stated, opset: torch.clamp(
        inputs[0] * stated.get("alpha", 0.2) + stated.get("beta", 0.5), 0, 1
    ),
    "HardSwish": _one(F.hardswish),
    "Mish": _one(F.mish),
    "Tanh": _one(torch.tanh),
    "Softplus": _one(F.softplus),
    "Softsign": _one(F.softsign),
    "Gelu": lambda inputs, stated, opset: F.gelu(inputs[0], approximate=stated.get("approximate", "none")),
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Clip": _clip,
    "Add": _one(torch.add),
    "Sub": _one(torch.sub),
    "Mul": _one(torch.mul),
    "Div": _one(_divided),
    "Pow": _one(torch.pow),
    "Mod": _one(torch.remainder),
    "Neg": _one(torch.neg),
    "Abs": _one(torch.abs),
    "Exp": _one(torch.exp),
    "Log": _one(torch.log),
    "Sqrt": _one(torch.sqrt),
    "Reciprocal": _one(torch.reciprocal),
    "Erf": _one(torch.erf),
    "Sin": _one(torch.sin),
    "Cos": _one(torch.cos),
    "Sign": _one(torch.sign),
    "Floor": _one(torch.floor),
    "Ceil": _one(torch.ceil),
    "Round": _one(torch.round),
    "Min": _many(torch.minimum),
    "Max": _many(torch.maximum),
    "Sum": _many(torch.add),
    "Equal": _one(torch.eq),
    "Greater": _one(torch.gt),
    "GreaterOrEqual": _one(torch.ge),
    "Less": _one(torch.lt),
    "LessOrEqual": _one(torch.le),
    "And": _one(torch.logical_and),
    "Or": _one(torch.logical_or),
    "Not": _one(torch.logical_not),
    "Where": _one(torch.where),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceL1": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda inputs, stated, opset: torch.cat(inputs, stated["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize,
    "Expand": lambda inputs, stated, opset: inputs[0] * torch.ones(_whole(inputs[1]), dtype=inputs[0].dtype),
    "Tile": lambda inputs, stated, opset: inputs[0].repeat(_whole(inputs[1])),
    "Shape": lambda inputs, stated, opset: torch.tensor(
        list(inputs[0].shape)[stated.get("start", 0) : stated.get("end")]
    ),
    "Size": lambda inputs, stated, opset: torch.tensor(inputs[0].numel()),
    "Constant": _constant,
    "ConstantOfShape": lambda inputs, stated, opset: (
        torch.full(
            _whole(inputs[0]),
            stated["value"].item() if "value" in stated else 0.0,
            dtype=stated["value"].dtype,
        )
        if "value" in stated
        else torch.zeros(_whole(inputs[0]))
    ),
    "Range": lambda inputs, stated, opset: torch.arange(*(i.item() for i in inputs), dtype=inputs[0].dtype),
    "Cast": _cast,
    "CumSum": lambda inputs, stated, opset: torch.cumsum(inputs[0], int(inputs[1])),
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _dequantized,
    "Identity": _one(lambda x: x),
    "Dropout": lambda inputs, stated, opset: inputs[0],
}
