"""Tightness: certified counts on networks that other people trained, beside the counts their folder records."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.attacks import PGD
from unmask.bounds import certify, certify_box
from unmask.classifier import Classifier
from unmask.judge import fooled
from unmask.objectives import margin_loss
from unmask.threat import Linf

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def folder():
    if not os.environ.get("UNMASK_DATA"):
        pytest.skip("UNMASK_DATA is not set")
    return Path(os.environ["UNMASK_DATA"])


@pytest.fixture(scope="module")
def networks(folder):
    spec = importlib.util.spec_from_file_location("networks", folder.parent / "models" / "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mnist(folder, count):
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(folder / "mnist"), split="test").select(range(count))
    x = np.stack([np.asarray(row["image"], dtype=np.float32) for row in rows])[:, None] / 255
    return torch.from_numpy(x), torch.tensor(rows["label"])


def cifar(folder, count):
    """Rows 0 to 99 are test images 0 to 99 in their original pixels; the recorded counts are over these."""
    stored = np.load(folder / "cifar10_exact.npz")
    x = stored["x"][:count].astype(np.float32).transpose(0, 3, 1, 2) / 255
    return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(stored["y"][:count]).long()


def test_intervals_on_mnist_ibp(folder, networks):
    x, y = mnist(folder, 1000)
    found = certify(networks.mnist_ibp(), x, y, Linf(epsilon=0.3), methods=("interval",))
    assert int(found.certified.sum()) == 883  # recorded: 88.3 %


def test_crown_on_cifar10_wong_kolter_8px(folder, networks):
    x, y = cifar(folder, 100)
    found = certify(networks.cifar10_wong_kolter_8px(), x, y, Linf(epsilon=8 / 255))
    assert int(found.certified.sum()) == 33  # recorded: CROWN certifies 33 of 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epsilon", "recorded"),
    [("mnist_wong_kolter", 0.1, 96), ("cifar10_sdp_mix4", 2 / 255, 43)],
)
def test_crown_in_full(folder, networks, name, epsilon, recorded):
    x, y = (mnist if name.startswith("mnist") else cifar)(folder, 100)
    found = certify(getattr(networks, name)(), x, y, Linf(epsilon=epsilon))
    assert int(found.certified.sum()) >= recorded


@pytest.mark.parametrize("name", ["mnist_fc_256x2", "mnist_sigmoid_6x200"])
def test_verification_instances(folder, networks, name):
    """Nothing with a known adversarial example is certified, and PGD breaks nothing that is certified."""
    stored = np.load(folder / "verification" / f"{name}.npz")
    lower, upper, y, verdict = (
        torch.from_numpy(stored[k])[:12] for k in ("lower", "upper", "label", "verdict")
    )
    network = getattr(networks, name)()
    found = certify_box(network, lower, upper, y)
    assert not found.certified[verdict == 1].any()
    assert found.certified[verdict == 0].sum() >= 3
    middle = (lower + upper) / 2
    threat = Linf(epsilon=float((upper - lower).max()) / 2)
    attack = PGD(steps=20, rel_step_size=0.2, objective=margin_loss)
    door = Classifier(network, deterministic=True)
    generator = torch.Generator().manual_seed(0)
    point = attack.run(door, middle, y, threat, generator=generator)
    point = torch.maximum(torch.minimum(point, upper), lower)
    broken = fooled(door(point, generator=generator), y, threat)
    assert not (broken & (found.certified | (verdict == 0))).any()
