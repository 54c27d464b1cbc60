"""timm's configuration of a network as steps before it. The library itself is not needed: its answer is stated."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unmask.sources import open_source


@pytest.mark.parametrize(
    ("mode", "shape"), [("center", (16, 20)), (None, (16, 20)), ("squash", (16, 16))], ids=str
)
def test_a_picture_is_squashed_where_the_configuration_says_so(monkeypatch, mode, shape):
    stated = {"input_size": (3, 12, 12), "crop_pct": 0.75, "mean": (0.5,), "std": (0.25,), "crop_mode": mode}
    timm = SimpleNamespace(
        create_model=lambda name, **_: nn.Identity(),
        data=SimpleNamespace(
            resolve_model_data_config=lambda network: {**stated, "interpolation": "bilinear"}
        ),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    x = torch.rand(2, 3, 24, 30)
    sized = nn.functional.interpolate(x, shape, mode="bilinear", antialias=True)
    top, left = (side // 2 - 6 for side in shape)
    wanted = (sized[..., top : top + 12, left : left + 12] - 0.5) / 0.25
    assert torch.allclose(open_source("timm:some_network")[0](x), wanted, atol=1e-6)
