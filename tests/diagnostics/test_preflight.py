"""Bad input gets one clear line (SPEC, section 4): the thing, its value, the way out."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import Tensor, nn

from unmask.classifier import Classifier
from unmask.data import load
from unmask.diagnostics import preflight
from unmask.errors import ModelFailed, UnmaskError, UnusableInput
from unmask.randomness import Streams

from .conftest import Noisy, Quantised, Scaled

OF_THESE_IMAGES = ("1 of 10 classes has no image among the 32: 3",)  # and about the network nothing


class Around(nn.Module):
    """A network with a function before it and one behind it."""

    def __init__(self, base, *, before=lambda x: x, behind=lambda z: z):
        super().__init__()
        self.base, self.before, self.behind = base, before, behind

    def forward(self, x):
        return self.behind(self.base(self.before(x)))


@dataclass
class Answer:
    """As Hugging Face's model outputs: more than the logits."""

    logits: Tensor
    loss: Tensor | None = None


@pytest.fixture
def fly(digits, streams):
    def run(network, *, x=None, y=None, **options):
        x = digits[0] if x is None else x
        y = digits[1] if y is None else y
        return preflight(Classifier(network), x, y, generator=streams[: len(x)], **options)

    return run


@pytest.fixture
def refused(fly):
    """The one line with which an input is refused."""

    def run(network, *, error=UnusableInput, **fields) -> str:
        with pytest.raises(UnmaskError) as caught:
            fly(network, **fields)
        assert isinstance(caught.value, error)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return run


def in_train_mode(*layers) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), *layers).train()


# What passes ------------------------------------------------------------------------------------------------


def test_honest_networks_pass(honest, fly):
    result = fly(honest, claim=0.5)
    assert result.num_classes == 10
    assert result.deterministic
    assert result.seedable
    assert result.gradient_available
    assert not result.label_only
    assert not result.has_detector
    assert result.clean_accuracy > 0.9
    assert result.warnings == OF_THESE_IMAGES


def test_nothing_is_changed(digits, fly):
    network = Around(trained("plain_cnn"), before=lambda x: x.mul_(1.0).clamp_(0.2, 0.8)).train()
    before = digits[0].clone()
    flags = [(m, m.training) for m in network.modules()]
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    fly(network)
    assert torch.equal(digits[0], before)
    assert [(m, m.training) for m in network.modules()] == flags
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert (np.random.get_state()[1] == state[2]).all()


def test_clean_accuracy_covers_every_example_in_batches(base, digits, fly):
    x, y = digits
    expected = float((base(x).argmax(1) == y).double().mean())
    assert fly(base, batch_size=5).clean_accuracy == expected


@pytest.mark.parametrize("defence", [Quantised, Scaled])
def test_masked_networks_are_not_bad_input(defence, base, fly):
    assert fly(defence(base)).deterministic


def test_log_probabilities_are_fine(base, fly):
    assert fly(Around(base, behind=lambda z: z.log_softmax(1))).warnings == OF_THESE_IMAGES


def test_one_hot_outputs_are_a_label_only_network(base, fly):
    one_hot = Around(base, behind=lambda z: nn.functional.one_hot(z.argmax(1), 10).float())
    result = fly(one_hot)
    assert result.label_only
    assert not result.gradient_available
    assert "one-hot" in " ".join(result.warnings)


def test_votes_are_labels_and_no_probabilities(base, fly):
    def votes(z):
        return torch.stack(
            [nn.functional.one_hot(v.argmax(1), 10).float() for v in (z, -z, z.roll(1, 1))]
        ).mean(0)

    assert fly(Around(base, behind=votes)).label_only


def test_one_output_more_than_labels_may_be_a_class_for_rejection(base, digits, fly):
    more = Around(base, behind=lambda z: torch.cat([z, z.amax(1, keepdim=True) - 5], 1))
    assert len(digits[0]) < 110
    assert len(fly(more).warnings) == 1  # of so few images a class may be missing
    many = {"x": digits[0].repeat(8, 1, 1, 1), "y": digits[1].repeat(8)}
    streams = Streams.seeded(0, torch.arange(len(many["x"])), "many")
    told = preflight(Classifier(more), **many, generator=streams).warnings
    assert any("11 outputs and the labels end at 9" in line for line in told)
    told = preflight(Classifier(base), **many, generator=streams).warnings
    assert not any("outputs" in line for line in told)


def test_two_classes_go_on_with_a_warning(base, digits, fly):
    result = fly(Around(base, behind=lambda z: z[:, :2]), y=digits[1] % 2)
    assert result.num_classes == 2
    assert "2 classes" in " ".join(result.warnings)


# Images and labels ------------------------------------------------------------------------------------------


def test_range_0_255(base, digits, refused):
    line = refused(base, x=digits[0] * 255)
    assert "[0, 255]" in line
    assert "divide by 255" in line


def test_normalised_images(base, digits, refused):
    line = refused(base, x=(digits[0] - 0.5) / 0.5)
    assert "[-1, 1]" in line
    assert "put the normalisation inside the network" in line


def test_bytes(base, digits, refused):
    line = refused(base, x=(digits[0] * 255).to(torch.uint8))
    assert "uint8" in line
    assert "x.float() / 255" in line


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, base, refused, fly):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(dtype).eval()
    line = refused(network)
    assert "`1.weight`" in line
    assert str(dtype).removeprefix("torch.") in line
    assert f"self.net(x.{'half' if dtype == torch.float16 else 'bfloat16'}()).float()" in line
    facts = fly(Around(network, before=lambda x: x.to(dtype), behind=lambda z: z.float()))
    assert any(str(dtype).removeprefix("torch.") in line for line in facts.warnings)


@pytest.mark.parametrize("last", [nn.Linear(64, 10), nn.Bilinear(64, 64, 10), nn.BatchNorm1d(64)])
def test_double_precision(last, refused, fly):
    called = nn.Sequential(nn.Flatten(), last if isinstance(last, nn.Linear) else Twice(last)).double().eval()
    line = refused(called)
    assert "`1." in line
    assert "is float64 and the network does not take float32 images" in line
    assert "self.net(x.double()).float()" in line
    assert not any("float64" in line for line in fly(Around(called, before=Tensor.double)).warnings)
    # One whose input it converts fails for a reason of its own.
    deaf = nn.Sequential(nn.Flatten(), nn.Linear(63, 10)).double().eval()
    assert "float64" not in refused(Around(deaf, before=Tensor.double), error=ModelFailed)


class Twice(nn.Module):
    """What takes its input twice, or once."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x) if isinstance(self.inner, nn.Bilinear) else self.inner(x)


# Modes and batches ------------------------------------------------------------------------------------------


def test_batch_norm_in_train_mode_is_refused_before_it_runs(refused):
    network = in_train_mode(nn.Linear(64, 10), nn.BatchNorm1d(10))
    before = network[2].running_mean.clone()
    line = refused(network)
    assert "`2` (BatchNorm1d)" in line
    assert "network.eval()" in line
    assert torch.equal(network[2].running_mean, before)


def test_one_batch_norm_left_in_train_mode_is_enough(refused):
    network = in_train_mode(nn.Linear(64, 10), nn.BatchNorm1d(10)).eval()
    network[2].train()
    assert "BatchNorm1d" in refused(network)


def test_dropout_in_a_network_that_was_never_put_in_eval_mode(refused):
    line = refused(in_train_mode(nn.Linear(64, 10), nn.Dropout(0.2)))
    assert "`2` (Dropout)" in line
    assert "only that layer" in line


def test_dropout_left_on_in_an_eval_network_is_a_defence(fly):
    network = in_train_mode(nn.Linear(64, 10), nn.Dropout(0.2)).eval()
    network[2].train()
    result = fly(network)
    assert not result.deterministic
    assert result.seedable
    assert network[2].training


def test_a_wrapper_that_was_never_switched_is_nothing(base, fly):
    assert fly(nn.Sequential(base)).clean_accuracy > 0.9


def test_train_mode_that_changes_nothing_is_nothing(fly):
    assert fly(in_train_mode(nn.Linear(64, 10))).deterministic


def test_unseedable_noise_is_not_taken_for_train_mode(fly):
    source = np.random.default_rng()
    network = in_train_mode(nn.Linear(64, 10))
    assert not fly(Around(network, before=lambda x: x * float(source.uniform(0.8, 1)))).seedable


def test_train_mode_that_changes_outputs(refused):
    class Custom(nn.Module):
        def forward(self, x):
            return 2 * x if self.training else x

    network = in_train_mode(nn.Linear(64, 10), Custom())
    line = refused(network)
    assert "train mode" in line
    assert "network.eval()" in line
    assert all(m.training for m in network.modules())


def test_predictions_that_depend_on_the_batch(base, refused):
    line = refused(Around(base, before=lambda x: x - x.mean(0, keepdim=True)))
    assert "when the other images of the batch change" in line
    assert "running statistics" in line


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_activations_quantised_by_the_batch_are_evaluated_alone(fly):
    """The scale of int8 activations is that of the batch's largest: slight, and no label changes."""
    network = trained("plain_mlp")
    quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    result = fly(quantised)
    assert result.batch_dependent
    assert any("batches of 1" in warning for warning in result.warnings)
    assert not fly(network).batch_dependent


def test_a_network_that_cannot_take_one_image(refused):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    line = refused(
        Around(linear, behind=lambda z: nn.functional.batch_norm(z, None, None, training=True)).eval()
    )
    assert "not one alone" in line


def test_random_networks_are_not_accused_of_batch_dependence(base, fly):
    result = fly(Noisy(base))
    assert not result.deterministic
    assert result.seedable
    assert result.warnings == OF_THESE_IMAGES


def test_draws_whose_number_depends_on_the_values_are_no_batch_dependence(base, fly, refused):
    """`torch.poisson` takes more random numbers for larger rates: other neighbours, other noise, same law."""
    result = fly(Around(base, before=lambda x: torch.poisson(20 * x.clamp(0, 1)) / 20))
    assert not result.deterministic
    line = refused(Around(base, before=lambda x: torch.poisson(2000 * x.clamp(0, 1)) / 2000 - x.mean(0)))
    assert "when the other images of the batch change" in line


# Randomness and gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise",
    [
        lambda x: x + 0.1 * torch.tensor(np.random.randn(*x.shape), dtype=x.dtype),
        lambda x: x * (1 - 0.2 * random.random()),
    ],
    ids=["numpy", "python"],
)
def test_randomness_from_elsewhere_is_seen(noise, base, fly):
    result = fly(Around(base, before=noise))
    assert not result.deterministic
    assert result.seedable


def test_randomness_that_nobody_can_seed(base, fly):
    source = np.random.default_rng()
    result = fly(Around(base, before=lambda x: x * float(source.uniform(0.8, 1))))
    assert not result.deterministic
    assert not result.seedable
    assert "cannot be seeded" in " ".join(result.warnings)


def test_noise_that_sets_in_beside_the_data_only(base, digits, fly):
    def suspicious(x: Tensor) -> Tensor:
        clean = (16 * x == (16 * x).round()).flatten(1).all(1).reshape(-1, 1, 1, 1)
        return torch.where(clean, x, x + 0.1 * torch.randn_like(x))

    assert not fly(Around(base, before=suspicious)).deterministic


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.detach(),
        lambda x: torch.from_numpy(x.detach().numpy().copy()),
        lambda x: torch.from_numpy(x.numpy().copy()),  # raises when a gradient is asked for
        lambda x: torch.floor_divide((255 * x).to(torch.uint8), 1) / 255,
    ],
    ids=["detach", "numpy", "numpy that raises", "bytes"],
)
def test_a_cut_graph(cut, base, fly):
    result = fly(Around(base, before=cut))
    assert not result.gradient_available
    assert "no gradient" in " ".join(result.warnings)
    assert all("\n" not in w for w in result.warnings)


def test_a_backward_that_raises(base, fly):
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

    result = fly(Around(base, before=NoBackward.apply))
    assert not result.gradient_available


def test_a_zero_gradient_is_available(base, fly):
    assert fly(Quantised(base)).gradient_available


# Claims -----------------------------------------------------------------------------------------------------


def test_clean_accuracy_below_the_claim(base, digits, fly, refused):
    wrong_order = Around(base, behind=lambda z: z.flip(1))
    line = refused(wrong_order, claim=0.83)
    assert "claim of 83.0%" in line
    assert "label order" in line
    assert "no better than chance" in " ".join(fly(wrong_order).warnings)


def test_the_claim_is_judged_by_the_interval(base, digits, fly):
    # 31 of 32 are right; the exact interval reaches 99.92 %
    assert fly(base, claim=0.995).clean_accuracy == pytest.approx(31 / 32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [4, 16])
def test_a_program_exported_for_one_batch_size_is_told_how_to_export_it(size):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    program = torch.export.export(network, (torch.rand(size, 1, 8, 8),)).module()
    data = load("digits", examples=20)
    with pytest.raises(UnusableInput, match="dynamic batch dimension"):
        preflight(Classifier(program), data.x, data.y, generator=torch.Generator().manual_seed(0))
