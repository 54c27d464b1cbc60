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


def write_processor(folder, kind, **stated):
    """The processor's configuration as its own library writes it, and the processor."""
    getattr(transformers, kind)(**stated).save_pretrained(folder)
    return transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)


PROCESSORS = {
    "ConvNeXt, cropped": ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    "ConvNeXt, whole": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "EfficientNet": (
        "EfficientNetImageProcessor",
        {"size": {"height": 16, "width": 16}, "rescale_offset": True},
    ),
    "EfficientNet, once": ("EfficientNetImageProcessor", {"include_top": False, "rescale_factor": 1 / 255}),
    "LeViT": (
        "LevitImageProcessor",
        {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
    ),
    "MobileViT": (
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    ),
    "CLIP": ("CLIPImageProcessor", {}),
    "bytes": ("ViTImageProcessor", {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [64.0] * 3}),
    "[-1, 1] by its factor": ("ViTImageProcessor", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3}),
}


@pytest.mark.parametrize(("kind", "stated"), PROCESSORS.values(), ids=list(PROCESSORS))
def test_images_are_prepared_as_the_processor_itself_prepares_them(folder, kind, stated):
    processor = write_processor(folder, kind, **stated)
    network, _ = open_source(f"hf:{folder}")
    network.network, network.read = torch.nn.Identity(), lambda outputs: outputs
    coarse = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    x = (torch.nn.functional.interpolate(coarse, (100, 137), mode="bilinear") * 255).round().byte()
    said = processor(images=list(x.numpy()), return_tensors="pt", input_data_format="channels_first")
    wanted = said["pixel_values"]
    assert network(x / 255).shape == wanted.shape
    assert (network(x / 255) - wanted).abs().mean() < 0.02 * wanted.std()


def test_a_processor_that_does_more_than_it_states_is_refused_until_the_user_states_it(folder):
    write_processor(folder, "PerceiverImageProcessor", size={"height": 16, "width": 16})
    with pytest.raises(UnmaskError, match=r"what the Perceiver.* does to images is more"):
        open_source(f"hf:{folder}")
    network, _ = open_source(f"hf:{folder}(resize=16, crop=16)")
    assert network(torch.rand(2, 3, 20, 20)).shape == (2, 5)


def test_a_size_of_another_kind_is_one_line(folder):
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"longest_edge": 48}, "do_resize": True})
    )
    with pytest.raises(UnmaskError, match="longest_edge"):
        open_source(f"hf:{folder}")
