"""Other toolboxes' classifiers: the module answers as their own predict does."""

import numpy as np
import pytest
import torch

from unmask import UnmaskError
from unmask.classifier import Classifier
from unmask.sources import open_source
from unmask.target.target import load_target
from unmask.tracing.record.passes import record

pytestmark = pytest.mark.filterwarnings("ignore")

WRAPPED = """
import numpy as np
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()

def art_classifier():
    from art.defences.preprocessor import SpatialSmoothing
    from art.estimators.classification import PyTorchClassifier
    return PyTorchClassifier(net(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 255),
                             preprocessing_defences=[SpatialSmoothing(window_size=3, channels_first=True)])

def art_standardised():
    from art.estimators.classification import PyTorchClassifier
    half = np.array([127.5], "float32")
    return PyTorchClassifier(net(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 255),
                             preprocessing=(half, half))

def foolbox_model():
    import foolbox
    return foolbox.PyTorchModel(net(), bounds=(0, 255), preprocessing=dict(mean=0.5, std=0.25), device="cpu")
"""


@pytest.fixture
def wrapped(tmp_path):
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    return tmp_path / "wrapped.py"


def images():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["art_classifier", "art_standardised"])
def test_art(wrapped, name):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    network, _ = open_source(f"art:{wrapped}:{name}")
    from unmask.target.load import called

    theirs = called(f"{wrapped}:{name}", wanted=object)[0].predict((images() * 255).numpy())
    assert np.allclose(network(images()).detach().numpy(), theirs, atol=1e-5)


def test_a_defence_of_arts_is_named_where_it_was_built(wrapped):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    target = load_target(f"art:{wrapped}:art_classifier")
    left = next(r for r in record(Classifier(target.network), images(), seed=0).records if r.name == "numpy")
    assert left.site.file == str(wrapped)
    assert "SpatialSmoothing(window_size=3" in left.site.code


def test_foolbox(wrapped):
    pytest.importorskip("foolbox", reason="foolbox is not installed")
    network, _ = open_source(f"foolbox:{wrapped}:foolbox_model")
    from unmask.target.load import called

    theirs = called(f"{wrapped}:foolbox_model", wanted=object)[0](images() * 255)
    x = images().requires_grad_()
    assert torch.allclose(network(x), theirs, atol=1e-5)
    assert torch.autograd.grad(network(x).sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("prefix", ["art", "foolbox"])
def test_a_bare_network_is_no_toolbox(wrapped, prefix):
    with pytest.raises(UnmaskError, match="give a"):
        open_source(f"{prefix}:{wrapped}:net")


def test_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="keras is not installed")
    layers = keras.layers
    dense = [layers.Dense(10, activation="softmax")], [layers.Dense(10), layers.Softmax()]
    for number, last in enumerate(dense):
        model = keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), *last])
        model.save(tmp_path / f"{number}.keras")
        network, _ = open_source(str(tmp_path / f"{number}.keras"))
        theirs = torch.as_tensor(model(images().permute(0, 2, 3, 1)))
        assert torch.allclose(network(images()).softmax(1), theirs, atol=1e-6)
        assert not torch.allclose(network(images()).sum(1), torch.ones(3))
