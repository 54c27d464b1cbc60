"""Networks from files: what is loaded answers as the network that was saved."""

import sys

import pytest
import torch
from torch import nn

from unmask import UnmaskError
from unmask.bounds.relaxation.graph import read_graph
from unmask.errors import first_line
from unmask.sources import is_source, open_source
from unmask.sources.opening import with_options
from unmask.target.load import build
from unmask.target.target import load_target

ARCHITECTURE = """
import torch
from torch import nn

def Net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
"""


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
    ).eval()


def images(n=5):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def arch(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(ARCHITECTURE)
    return f"{file}:Net"


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"pytorch-lightning_version": "2.4", "state_dict": {f"model.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {**{f"net.{k}": v for k, v in s.items()}, "loss.weight": torch.ones(10)}},
        lambda s: {
            "state_dict": {**{f"net._orig_mod.{k}": v for k, v in s.items()}, "loss.weight": torch.ones(10)}
        },
        lambda s: {"n_averaged": torch.tensor(5), **{f"module.{k}": v for k, v in s.items()}},
        lambda s: {"best": {"weights": s}, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda s: {"ema": {f"module.{k}": v for k, v in s.items()}, "model": s},
        lambda s: {f"encoder.student.{k}": v for k, v in s.items()},
    ],
    ids=[
        *("plain", "container", "data parallel", "compiled", "lightning", "a part", "a compiled part"),
        *("averaged", "other words", "twice the same", "a part of a part"),
    ],
)
def test_a_state_dict_is_found_under_what_scripts_wrap_it_in(tmp_path, arch, wrapped):
    file = tmp_path / "weights.pth"
    torch.save(wrapped(network().state_dict()), file)
    opened, path = open_source(with_options(str(file), {"arch": arch}))
    assert path == file
    assert torch.equal(opened(images()), network()(images()))
    assert not opened.training


@pytest.mark.parametrize(
    ("wrapped", "part"),
    [
        (lambda s, t: {"state_dict": t, "state_dict_ema": s}, "state_dict_ema"),
        (lambda s, t: {"model": t, "ema": {"module": s}}, "ema"),
        (
            lambda s, t: {**{f"m.{k}": v for k, v in t.items()}, **{f"m_ema.{k}": v for k, v in s.items()}},
            "m_ema.",
        ),
        (lambda s, t: {**t, **{f"teacher.{k}": v for k, v in s.items()}}, "teacher"),
    ],
    ids=["two containers", "one deeper", "two prefixes", "beside its own names"],
)
def test_of_several_sets_of_weights_the_user_says_which(tmp_path, arch, wrapped, part):
    weights = network().state_dict()
    torch.save(wrapped(weights, {k: v + 1 for k, v in weights.items()}), tmp_path / "w.pth")
    with pytest.raises(UnmaskError, match="2 sets of weights that fit") as refused:
        open_source(with_options(str(tmp_path / "w.pth"), {"arch": arch}))
    assert f"(part='{part.rstrip('.')}" in str(refused.value)
    opened, _ = open_source(with_options(f"{tmp_path / 'w.pth'}(part={part!r})", {"arch": arch}))
    assert torch.equal(opened(images()), network()(images()))
    with pytest.raises(UnmaskError, match="no weights whose names begin with other"):
        open_source(with_options(f"{tmp_path / 'w.pth'}(part='other')", {"arch": arch}))


def test_safetensors_and_a_target_that_the_report_can_name(tmp_path, arch):
    from safetensors.torch import save_file

    file = tmp_path / "weights.safetensors"
    save_file(network().state_dict(), file)
    spec = with_options(str(file), {"arch": arch, "mean": [0.5], "std": [0.25]})
    target = load_target(spec)
    assert target.spec == spec
    assert torch.allclose(target.network(images()), network()((images() - 0.5) / 0.25))


def test_every_name_that_does_not_fit_is_shown(tmp_path, arch):
    weights = network().state_dict()
    weights["head.weight"] = weights.pop("4.weight")
    weights["1.bias"] = torch.zeros(9)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(
        UnmaskError, match=r"missing: 4\.weight; unknown: head\.weight; other shapes: 1\.bias \[9\]"
    ):
        open_source(with_options(str(tmp_path / "w.pt"), {"arch": arch}))


def test_weights_alone_ask_for_their_class_and_pickled_code_is_refused(tmp_path, arch):
    torch.save(network().state_dict(), tmp_path / "w.pt")
    with pytest.raises(UnmaskError, match="--arch"):
        open_source(str(tmp_path / "w.pt"))
    torch.save(network(), tmp_path / "whole.pt")
    with pytest.raises(UnmaskError, match="run the code"):
        open_source(with_options(str(tmp_path / "whole.pt"), {"arch": arch}))
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(UnmaskError, match="broken"):
        open_source(with_options(str(tmp_path / "broken.pt"), {"arch": arch}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tmp_path):
    torch.jit.script(network()).save(str(tmp_path / "net.pt"))
    opened, _ = open_source(str(tmp_path / "net.pt"))
    assert torch.allclose(opened(images()), network()(images()))


def test_an_exported_program_with_batch_norm_is_in_evaluation_mode(tmp_path):
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(10))
    x = torch.rand(4, 1, 8, 8)
    layers(x)
    torch.export.save(torch.export.export(layers.eval(), (x,)), tmp_path / "net.pt2")
    opened, _ = open_source(str(tmp_path / "net.pt2"))
    assert not any(module.training for module in opened.eval().modules())
    assert torch.allclose(opened(x), layers(x), atol=1e-6)


def test_an_exported_program_of_any_batch_size(tmp_path):
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(network(), (images(4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    opened, _ = open_source(str(tmp_path / "net.pt2"))
    assert opened.eval() is opened
    assert torch.allclose(opened(images(7)), network()(images(7)), atol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_an_exported_program_of_one_batch_size_answers_any_number(tmp_path, count):
    torch.export.save(torch.export.export(network(), (images(4),)), tmp_path / "net.pt2")
    opened, _ = open_source(str(tmp_path / "net.pt2"))
    x = images(count).requires_grad_()
    assert torch.allclose(opened(x), network()(x), atol=1e-6)
    assert torch.autograd.grad(opened(x).sum(), x)[0].abs().sum() > 0


def test_preprocessing_comes_in_its_order(tmp_path, arch):
    file = tmp_path / "w.pth"
    torch.save(network().state_dict(), file)
    big = torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    opened, _ = open_source(with_options(str(file), {"arch": arch, "resize": 10, "crop": 8}))
    sized = torch.nn.functional.interpolate(big, (10, 12), mode="bilinear", antialias=True)[..., 1:9, 2:10]
    assert torch.allclose(opened(big), network()(sized))
    with pytest.raises(UnmaskError, match="--crop is 8 x 8"):
        open_source(with_options(str(file), {"arch": arch, "crop": 8}))[0](torch.rand(1, 1, 6, 6))


@pytest.mark.parametrize("option", ["std=[0.0]", "resize=0", "mena=[0.5]", "'x'", "crop=(1.5, 2)"])
def test_a_wrong_option_is_one_line(tmp_path, option):
    with pytest.raises(UnmaskError) as refused:
        open_source(f"{tmp_path / 'w.pth'}({option})")
    assert "\n" not in str(refused.value)


def test_what_is_a_source():
    assert not is_source("net.py:build")
    assert not is_source("package.module:build")
    assert is_source("net.PT2")
    assert is_source("w.pth(arch='net.py:Net')")


def test_steps_stand_before_a_python_callable_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "stepped.py").write_text(
        "from torch import nn\n"
        "from unmask import Outputs\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return Outputs(x.flatten(1), x.flatten(1)[:, 0])\n"
        "def build():\n"
        "    return Net().train()\n"
        "def bare():\n"
        "    return lambda x: x\n"
    )
    spec = with_options(f"{tmp_path}/stepped.py:build + median(size=3)", {"mean": [0.5], "bgr": True})
    assert spec == f"{tmp_path}/stepped.py:build(mean=[0.5], bgr=True) + median(size=3)"
    network, source = build(spec.partition(" + ")[0])
    assert source == tmp_path / "stepped.py"
    assert network.training  # the modes are the user's
    x = torch.rand(2, 3, 1, 1)
    assert torch.equal(network(x).logits, (x - 0.5).flip(1).flatten(1))
    assert torch.equal(network(x).detector_score, network(x).logits[:, 0])
    with pytest.raises(UnmaskError, match="--arch names the class of a file of weights"):
        with_options("net.py:build", {"arch": "a.py:Net"})
    for wrong in ("build(arch='a.py:Net')", "build(mena=[1])", "bare(mean=[0.5])"):
        with pytest.raises(UnmaskError) as refused:
            build(f"{tmp_path}/stepped.py:{wrong}")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spec", ["no.onnx", "no.pt2", "no.pth", "no.keras"])
def test_a_missing_file_is_one_line(spec):
    with pytest.raises(UnmaskError, match=r"there is no file|is not installed"):
        open_source(spec)


def test_bounds_pass_through_what_stands_before_a_network(tmp_path, arch):
    """The reader of a network's graph hands on symbols, which have any attribute that one asks for."""
    torch.save(network().state_dict(), tmp_path / "w.pth")
    opened, _ = open_source(
        with_options(str(tmp_path / "w.pth"), {"arch": arch, "mean": [0.5], "std": [0.5]})
    )
    graph = read_graph(opened, images(1))
    assert graph.nodes


@pytest.mark.parametrize(
    "name", ["best.pth.tar", "last.CKPT", "step.1000", "model_best", "w.chk", "weights.weights"]
)
def test_weights_bear_any_name(tmp_path, arch, name):
    torch.save({"epoch": 3, "state_dict": network().state_dict()}, tmp_path / name)
    opened, _ = open_source(with_options(str(tmp_path / name), {"arch": arch}))
    assert torch.equal(opened(images()), network()(images()))


def test_a_file_that_is_not_there_is_no_python_callable(arch):
    with pytest.raises(UnmaskError, match=r"there is no file model_best;"):
        with_options("model_best", {"arch": arch})


class KeepsItsBatch(nn.Module):
    """Traced, the number of images becomes a constant."""

    def __init__(self, spread=False):
        super().__init__()
        self.last, self.spread = nn.Linear(64, 10), spread

    def forward(self, x):
        if self.spread:
            return self.last(x.reshape(-1, 64).mean(0, keepdim=True)).expand(len(x), -1)
        return self.last(x.reshape(len(x), 64))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("size", [1, 3])
def test_a_traced_network_that_keeps_its_batch_size_is_asked_in_such_batches(tmp_path, size):
    plain = KeepsItsBatch().eval()
    torch.jit.trace(plain, images(size)).save(str(tmp_path / "net.pt"))
    with pytest.raises(RuntimeError):
        torch.jit.load(str(tmp_path / "net.pt"))(images())
    opened, _ = open_source(str(tmp_path / "net.pt"))
    assert torch.allclose(opened(images()), plain(images()))
    # One that answers for its own number of images, whatever it is given, is asked in such batches, too.
    torch.jit.trace(KeepsItsBatch(spread=True), images(size)).save(str(tmp_path / "spread.pt"))
    assert len(open_source(str(tmp_path / "spread.pt"))[0](images())) == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_scripted_network_raised_is_told_in_its_own_words(tmp_path):
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(9, 10))).save(str(tmp_path / "net.pt"))
    opened, _ = open_source(str(tmp_path / "net.pt"))
    with pytest.raises(RuntimeError) as raised:
        opened(images())
    assert "mat1 and mat2 shapes" in first_line(raised.value)
