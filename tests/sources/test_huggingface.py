"""Hugging Face classifiers from a local folder of the hub's schema: nothing is downloaded."""

import json

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

from unmask import UnmaskError  # noqa: E402
from unmask.sources import open_source  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=5,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).eval().save_pretrained(tmp_path)
    return tmp_path


def test_the_processor_says_size_and_mean(folder):
    stated = {"do_resize": True, "size": {"height": 16, "width": 16}, "resample": 2, "do_normalize": True,
              "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_rescale": True,
              "rescale_factor": 1 / 255, "image_processor_type": "ViTImageProcessor"}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    network, _ = open_source(f"hf:{folder}")
    x = torch.rand(3, 3, 20, 20)
    sized = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    plain = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    assert torch.allclose(network(x), plain((sized - mean) / std).logits, atol=1e-6)


def test_without_a_processor_the_network_takes_what_it_is_given(folder):
    network, _ = open_source(f"hf:{folder}")
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 5)


def test_what_is_no_classifier_is_one_line(tmp_path):
    with pytest.raises(UnmaskError, match="cannot be loaded"):
        open_source(f"hf:{tmp_path}")
