"""ONNX graphs: the translation against the network that was exported, and onnxruntime where it is installed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from unmask import UnmaskError  # noqa: E402
from unmask.sources import open_source  # noqa: E402


def saved(tmp_path, nodes, constants=(), *, batch="n", shape=(2, 6, 6), opset=17, rank=4):
    """A graph from `x` to `y` in a file."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(value.numpy(), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    file = tmp_path / "graph.onnx"
    onnx.save(model, str(file))
    return str(file)


def images(n=3):
    return torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


W = random(4, 2, 3, 3)
CASES = {
    "convolution padded on one side": (
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 0], strides=[2, 1])],
        [("w", W)],
        lambda x: F.conv2d(F.pad(x, (1, 0, 0, 2)), W, stride=(2, 1)),
    ),
    "convolution of the same size": (
        [helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        [("w", W)],
        lambda x: F.conv2d(F.pad(x, (0, 1, 0, 1)), W, stride=2),
    ),
    "average pool that counts no padding": (
        [
            helper.make_node(
                "AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]
            )
        ],
        [],
        lambda x: F.avg_pool2d(x, 2, 2, 1, count_include_pad=False),
    ),
    "gemm with factors": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0, transB=1),
        ],
        [("w", random(5, 72)), ("b", random(5))],
        lambda x: 0.5 * x.flatten(1) @ random(5, 72).T + 2 * random(5),
    ),
    "steps backwards": (
        [helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        [
            ("s", torch.tensor([-1, 1])),
            ("e", torch.tensor([-(2**63) + 1, 5])),
            ("a", torch.tensor([3, 2])),
            ("t", torch.tensor([-2, 3])),
        ],
        lambda x: x.flip(3)[:, :, 1:5:3, ::2],
    ),
    "three equal parts, as old exporters write them": (
        [
            helper.make_node("Split", ["x"], ["a", "b", "c"], axis=2),
            helper.make_node("Sub", ["c", "b"], ["d"]),
            helper.make_node("Add", ["d", "a"], ["y"]),
        ],
        [],
        lambda x: x[:, :, 4:] - x[:, :, 2:4] + x[:, :, :2],
    ),
    "old soft-max flattens": (
        [helper.make_node("Softmax", ["x"], ["y"], axis=1)],
        [],
        lambda x: x.flatten(1).softmax(1).reshape(x.shape),
    ),
    "eight-bit integers between": (
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        [("s", torch.tensor(0.1)), ("z", torch.tensor(3, dtype=torch.uint8))],
        lambda x: (torch.round(x / 0.1)).clamp(-3, 252) * 0.1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_says_what_the_specification_says(tmp_path, case):
    nodes, constants, truth = CASES[case]
    network, _ = open_source(
        saved(tmp_path, nodes, constants, opset=12 if "old" in case else 17, rank=truth(images()).ndim)
    )
    x = images().requires_grad_()
    assert torch.allclose(network(x), truth(x), atol=1e-6)
    if "integers" not in case:
        assert torch.autograd.grad(network(x).square().sum(), x)[0].abs().sum() > 0


def test_a_fixed_batch_is_asked_in_parts(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    constants = [("s", torch.tensor([2, 72])), ("w", random(72, 5))]
    network, _ = open_source(saved(tmp_path, nodes, constants, batch=2, rank=2))
    assert torch.allclose(network(images(5)), images(5).flatten(1) @ random(72, 5), atol=1e-6)


def test_an_unknown_operator_runs_in_onnxruntime_without_a_gradient(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Hardmax", ["f"], ["y"], axis=1),
    ]
    network, _ = open_source(saved(tmp_path, nodes, rank=2))
    assert network(images()).sum(1).tolist() == [1, 1, 1]


def test_what_is_no_graph_is_one_line(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(UnmaskError, match="no ONNX graph"):
        open_source(str(tmp_path / "bad.onnx"))


@pytest.mark.slow
def test_a_network_that_torch_exported(tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.GroupNorm(2, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()
    file = str(tmp_path / "net.onnx")
    torch.onnx.export(
        network, (images(),), file, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
    )
    opened, _ = open_source(file)
    assert torch.allclose(opened(images(5)), network(images(5)), atol=1e-5)


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE"])
def test_images_reach_a_graph_in_its_own_numbers(tmp_path, kind):
    number = getattr(TensorProto, kind)
    dtype = helper.tensor_dtype_to_np_dtype(number)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", number, ["n", 2, 6, 6])],
        [helper.make_tensor_value_info("y", number, ["n", 3])],
        [numpy_helper.from_array(random(72, 3).numpy().astype(dtype), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "g.onnx",
    )
    network, _ = open_source(str(tmp_path / "g.onnx"))
    answer = network(images())
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, images().flatten(1) @ random(72, 3), atol=0.05)


@pytest.mark.parametrize(
    "order", [["label", "p", "logits"], ["p", "logits"], ["label", "logits"], ["logits", "p"]]
)
def test_of_several_outputs_the_logits_are_read(tmp_path, order):
    types = {
        "label": (TensorProto.INT64, ["n"]),
        "p": (TensorProto.FLOAT, ["n", 3]),
        "logits": (TensorProto.FLOAT, ["n", 3]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["h"]),
            helper.make_node("MatMul", ["h", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["p"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [helper.make_tensor_value_info(name, *types[name]) for name in order],
        [numpy_helper.from_array(random(72, 3).numpy(), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "g.onnx",
    )
    network, _ = open_source(str(tmp_path / "g.onnx"))
    assert torch.allclose(network(images()), images().flatten(1) @ random(72, 3), atol=1e-5)


def test_a_graph_of_bytes_is_refused_by_its_type(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "g.onnx",
    )
    with pytest.raises(UnmaskError, match="images of type uint8"):
        open_source(str(tmp_path / "g.onnx"))
