import sys

import pytest
import torch
from tests.audit.small_audit import write_target
from torch import nn

from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.target.load import checkpoint_hash
from unmask.target.target import load_target


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield write_target(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_file_is_loaded_with_its_source_and_hash(file):
    target = load_target(f"{file}:linear")
    assert isinstance(target.network, nn.Module)
    assert target.source == file
    assert len(target.checkpoint_hash) == 64
    assert target.network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert load_target(f"{file}:linear").checkpoint_hash == target.checkpoint_hash


def test_the_files_own_folder_is_importable(file):
    (file.parent / "neighbour_of_target.py").write_text("WIDTH = 64\n")
    user = file.parent / "user.py"
    user.write_text(
        "from neighbour_of_target import WIDTH\nfrom torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 10))\n"
    )
    assert isinstance(load_target(f"{user}:net").network, nn.Sequential)


def test_a_file_named_like_a_standard_module_is_no_trouble(file):
    import json

    named = file.parent / "json.py"
    named.write_text("from torch import nn\nnet = nn.Linear\ndef f(): return nn.Flatten()\n")
    assert isinstance(load_target(f"{named}:f").network, nn.Flatten)
    assert sys.modules["json"] is json


def test_a_module_by_name(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, file.stem, raising=False)
    target = load_target("nearest_mean:linear")
    assert target.source == file


def test_instances_classes_and_our_classifier_are_targets(file):
    other = file.parent / "other.py"
    other.write_text(
        "from torch import nn\nfrom unmask.classifier import Classifier\nready = nn.Flatten()\n"
        "class Net(nn.Flatten): pass\nclass Zoo:\n    small = Net\n"
        "def wrapped(): return Classifier(nn.Linear(2, 3), passes=4)\n"
    )
    for name in ("ready", "Net", "Zoo.small"):
        assert isinstance(load_target(f"{other}:{name}").network, nn.Flatten)
    wrapped = load_target(f"{other}:wrapped")
    assert isinstance(wrapped.network, Classifier)
    assert wrapped.network.passes == 4
    assert wrapped.checkpoint_hash


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", r"has no 'absent'; it has .*linear"),
        ("needs", r"needs the argument width; wrap it in a function that takes none"),
        ("broken", r"raised RuntimeError: no weights here \(.*nearest_mean\.py:42\)"),
        ("deep", r"raised KeyError: 'layer7' \(.*nearest_mean\.py:58\)"),
        ("number", r"returned a int; return a torch\.nn\.Module"),
        ("SIZE", r"is a int; give a callable"),
    ],
)
def test_a_bad_callable_gets_one_line(file, name, message):
    with pytest.raises(UnusableInput, match=message) as caught:
        load_target(f"{file}:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("model.py", "names no callable; give path/to/file.py:callable"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("no_such_package.models:f", "there is no module 'no_such_package.models'"),
        ("folder/file.txt:f", "there is no file"),
    ],
)
def test_a_bad_spec_gets_one_line(spec, message):
    with pytest.raises(UnusableInput, match=message):
        load_target(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import torch_nonsense\n", "ModuleNotFoundError: No module named 'torch_nonsense'"),
        ("def f(:\n", "SyntaxError"),
        ("import sys\nsys.exit(4)\n", "SystemExit: 4"),
        ("x = 1 / 0\n", r"ZeroDivisionError: division by zero \(.*bad\.py:1\)"),
    ],
)
def test_a_file_that_cannot_be_imported_gets_one_line(file, source, message):
    bad = file.parent / "bad.py"
    bad.write_text(source)
    with pytest.raises(UnusableInput, match=message):
        load_target(f"{bad}:f")


def test_the_hash_sees_every_parameter_and_buffer_of_a_checkpoint():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2).bfloat16())
    first = checkpoint_hash(network)
    for tensor in (*network.parameters(), *network.buffers()):
        kept = tensor.detach().clone()
        tensor.data += 1
        assert checkpoint_hash(network) != first
        tensor.data = kept
        assert checkpoint_hash(network) == first
    network.register_buffer("scratch", torch.ones(1), persistent=False)
    assert checkpoint_hash(network) == first  # the network says itself that it is no part of its state
    network.register_buffer("mean", torch.ones(1))
    assert checkpoint_hash(network) != first
    assert checkpoint_hash(lambda x: x) == ""


@pytest.mark.parametrize("layers", [slice(0, 3), slice(2, 3)], ids=["all of it", "a part"])
def test_a_network_without_numbers_gets_one_line(layers):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for layer in network[layers]:
        layer.to("meta")
    with pytest.raises(UnusableInput, match=r"on the meta device, holds no numbers.*assign=True"):
        checkpoint_hash(network)
    network.to_empty(device="cpu")
    assert checkpoint_hash(network)
