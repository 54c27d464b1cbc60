"""Two processes under torchrun beside one: the same loss curve, the same weights, up to floating point."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unmask.cli.main import main
from unmask.errors import UnusableInput
from unmask.training import Processes, Standard


def test_one_process_needs_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.join("cpu")
    x = torch.rand(5)
    assert alone == Processes()
    assert (alone.size, alone.rank, alone.first) == (1, 0, True)
    assert alone.part(x) is x
    assert alone.whole(x) is x
    assert alone.mean([0.5, 2.0]) == [0.5, 2.0]


def test_a_batch_that_cannot_be_shared_is_named():
    class Three:
        world_size = 3

    with pytest.raises(UnusableInput, match="batch_size=128 for 3 processes"):
        Standard(processes=Processes(Three()))


def test_batch_normalisation_over_parts_is_said():
    class Two:
        world_size = 2

    normalised = nn.Sequential(nn.BatchNorm2d(1), nn.InstanceNorm2d(1), nn.BatchNorm2d(1))
    said = Processes(Two()).parted(normalised)
    assert said is not None
    assert said.startswith("2 layers of batch normalisation")
    assert "\n" not in said
    assert Processes().parted(normalised) is None
    assert Processes(Two()).parted(nn.SyncBatchNorm.convert_sync_batchnorm(normalised)) is None
    assert Processes(Two()).parted(nn.Linear(1, 1)) is None


def test_torchrun_without_fabric_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(UnusableInput, match="pip install lightning-fabric"):
        Processes.join("cpu")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lightning_fabric") is None, reason="needs lightning-fabric")
@pytest.mark.parametrize("recipe", ["pgd --steps 3", "free --replays 2", "yopo --full 2"])
def test_two_processes_beside_one(recipe, tmp_path, capsys):
    words = (
        f"train {recipe} --arch mlp --epsilon 0.1 --epochs 4 --batch-size 64 --examples 520 --validation 200"
    ).split()
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "unmask", *words, "--out", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "batch normalisation" not in done.stderr
    one, two = (json.loads((tmp_path / n / "train.json").read_text()) for n in ("one", "two"))
    assert len(one["epochs"]) == len(two["epochs"]) > 1
    for alone, together in zip(one["epochs"], two["epochs"], strict=True):
        for name in ("loss", "accuracy", "clean_accuracy", "robust_accuracy"):
            assert together[name] == pytest.approx(alone[name], abs=2e-3), name
    weights = [load_file(tmp_path / n / "network.safetensors") for n in ("one", "two")]
    for name, t in weights[0].items():
        assert torch.allclose(t, weights[1][name], atol=2e-3), name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lightning_fabric") is None, reason="needs lightning-fabric")
def test_two_processes_with_batch_normalisation_say_that_they_differ(tmp_path):
    words = "train fgsm --arch resnet20 --epsilon 0.1 --epochs 1 --batch-size 32 --examples 300".split()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "unmask", *words, "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("do not give the loss curve of one") == 1
    assert len(json.loads((tmp_path / "train.json").read_text())["events"]) == 1
