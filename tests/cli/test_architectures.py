"""The names that `--arch` knows, and the file that loads what was trained."""

import pytest
import torch
from safetensors.torch import save_file

from unmask.cli.architectures import ARCHITECTURES, architecture, target_file
from unmask.target.target import load_target


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_name_is_a_network_that_its_target_file_loads(name, tmp_path):
    shape, classes = (3, 16, 16), 7
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        built = architecture(name, shape, classes).eval()
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    assert built(x).shape == (2, classes)
    save_file(built.state_dict(), tmp_path / "network.safetensors")
    (tmp_path / "network.py").write_text(target_file(name, shape, classes), encoding="utf-8")
    loaded = load_target(f"{tmp_path / 'network.py'}:network").network
    assert not loaded.training
    assert torch.equal(loaded(x), built(x))


def test_wide_resnet8_has_as_many_parameters_as_resnet20():
    wide, deep = (
        sum(p.numel() for p in architecture(name, (3, 32, 32), 10).parameters())
        for name in ("wide_resnet8", "resnet20")
    )
    assert wide == pytest.approx(deep, rel=0.15)
