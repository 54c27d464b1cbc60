"""The architectures: parameter counts, depth, shapes, normalisation inside, no coupling of examples."""

import pytest
import torch

from unmask.zoo import CNN, MLP, Normalize, PreActResNet18, ResNet20, StridedCNN

NORMALIZE = Normalize([0.5], [0.25])
NETWORKS = {
    "mlp": lambda n: MLP((64, 32, 10), normalize=n),
    "cnn": lambda n: CNN(8, normalize=n),
    "strided_cnn": lambda n: StridedCNN(8, normalize=n),
    "resnet8": lambda n: ResNet20(channels=1, blocks=1, width=8, normalize=n),
    "resnet20": lambda n: ResNet20(channels=1, normalize=n),
    "preact_resnet18": lambda n: PreActResNet18(channels=1, normalize=n),
}


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts():
    assert parameters(MLP((784, 256, 10))) == 784 * 256 + 256 + 256 * 10 + 10
    assert parameters(CNN(8)) == 160 + 4640 + (32 * 4 * 4 + 1) * 64 + 65 * 10
    assert parameters(StridedCNN(28, widths=(16, 32), hidden=100)) == 166_406  # Wong & Kolter's
    stages8 = 2 * 8 * 8 * 9 + 3 * 8 * 16 * 9 + 3 * 16 * 32 * 9 + 4 * (8 + 16 + 32)
    assert parameters(ResNet20(blocks=1, width=8)) == 3 * 8 * 9 + 16 + stages8 + 330
    blocks16 = 6 * (16 * 16 * 9 + 32)
    blocks32 = 16 * 32 * 9 + 5 * 32 * 32 * 9 + 6 * 64
    blocks64 = 32 * 64 * 9 + 5 * 64 * 64 * 9 + 6 * 128
    assert parameters(ResNet20()) == 3 * 16 * 9 + 32 + blocks16 + blocks32 + blocks64 + 650 == 269_722
    assert (
        parameters(PreActResNet18())
        == 3 * 64 * 9
        + sum(
            2 * wide_in
            + wide_in * wide * 9
            + 2 * wide
            + wide * wide * 9  # first block of the stage
            + (wide_in * wide if wide_in != wide else 0)  # its shortcut
            + 4 * wide
            + 2 * wide * wide * 9  # second block
            for wide_in, wide in ((64, 64), (64, 128), (128, 256), (256, 512))
        )
        + 2 * 512
        + 5130
        == 11_172_170
    )


def test_depth_is_what_the_name_says():
    def weighted(network):
        return [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]

    assert len(weighted(ResNet20())) == 20
    not_shortcuts = [m for m in weighted(PreActResNet18()) if getattr(m, "kernel_size", None) != (1, 1)]
    assert len(not_shortcuts) == 18


@pytest.mark.parametrize("name", NETWORKS)
def test_forward(name):
    torch.manual_seed(0)
    network = NETWORKS[name](None).eval()
    x = torch.rand(3, 1, 8, 8)
    logits = network(x)
    assert logits.shape == (3, 10)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(network(x[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_normalize_equals_normalised_input(name):
    torch.manual_seed(0)
    bare = NETWORKS[name](None).eval()
    torch.manual_seed(0)
    inside = NETWORKS[name](NORMALIZE).eval()
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(inside(x), bare((x - 0.5) / 0.25))
    assert not any(key.split(".")[-1] == "mean" and "normalize" in key for key in inside.state_dict())


def test_shortcut_of_resnet20_pads_channels():
    # With zero convolutions a block is its shortcut: subsampled, zero channels around it, then ReLU.
    from unmask.zoo.resnet20 import BasicBlock

    block = BasicBlock(2, 4, 2).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[:, 1:3] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), expected)
