import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import Exact, ReducedGain
from unmask.objectives import margin_loss


class Functional(nn.Module):
    def __init__(self, steep, call):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.steep, self.call = steep, call

    def forward(self, x):
        return self.last(self.call(self.steep * self.first(x.flatten(1))))


CALLS = [torch.sigmoid, torch.Tensor.sigmoid, nn.Sigmoid(), torch.tanh, nn.Tanh()]


@pytest.mark.parametrize("call", CALLS)
def test_gradient_is_that_of_the_less_steep_network_and_value_its_own(call):
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(5, dtype=torch.long)
    steep, gentle = Functional(1e4, call), Functional(1.0, call)

    def estimate(estimator, network):
        return estimator.estimate(
            Classifier(network), margin_loss, x, y, generator=torch.Generator().manual_seed(0)
        )

    plain, repaired = estimate(Exact(), steep), estimate(ReducedGain(1e-4), steep)
    truth = estimate(Exact(), gentle).grad
    assert float(plain.grad.abs().amax()) < 1e-6 * float(truth.abs().amax())
    torch.testing.assert_close(repaired.grad, truth, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(repaired.outputs.logits, steep(x).detach())
    torch.testing.assert_close(repaired.value, plain.value)


@pytest.mark.parametrize("gain", [0.0, -1.0, 2.0, float("nan")])
def test_bad_gain_is_named(gain):
    with pytest.raises(UnusableInput, match=f"gain={gain}"):
        ReducedGain(gain)
