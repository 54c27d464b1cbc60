"""Spiking networks, each as its library's tutorial writes one: a current for each pixel, some steps, a mean at the end.

Their forward steps; the libraries declare a surrogate backward. A line that is to be named says `# guilty`.
"""

import torch
from tests.libraries.digits import fit
from torch import nn

STEPS = 8


class SnnTorch(nn.Module):
    def __init__(self):
        super().__init__()
        import snntorch
        from snntorch import surrogate

        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 10)
        self.hidden = snntorch.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(slope=25))
        self.out = snntorch.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(slope=25))

    def forward(self, x):
        before, after = self.hidden.init_leaky(), self.out.init_leaky()
        total = 0
        for _ in range(STEPS):
            spikes, before = self.hidden(self.first(x.flatten(1)), before)  # guilty
            spikes, after = self.out(self.second(spikes), after)  # guilty
            total = total + spikes + 0.1 * after
        return total / STEPS


class Norse(nn.Module):
    def __init__(self):
        super().__init__()
        import norse.torch as norse

        torch.manual_seed(0)
        p = norse.LIFParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.3))
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 10)
        self.hidden, self.out = norse.LIFCell(p), norse.LICell()

    def forward(self, x):
        before = after = None
        total = 0
        for _ in range(2 * STEPS):
            spikes, before = self.hidden(self.first(x.flatten(1)), before)  # guilty
            voltage, after = self.out(self.second(spikes), after)
            total = total + voltage
        return total


class Sinabs(nn.Module):
    def __init__(self, *, reset: bool):
        super().__init__()
        from sinabs.layers import LIF

        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 10)
        self.hidden = LIF(tau_mem=10.0, spike_threshold=0.3)
        self.reset = reset

    def forward(self, x):
        if self.reset or self.training:
            self.hidden.reset_states()
        current = self.first(x.flatten(1))[:, None].expand(-1, STEPS, -1)
        return self.second(self.hidden(current).mean(1))  # guilty


class SpikingJelly(nn.Module):
    def __init__(self):
        super().__init__()
        from spikingjelly.activation_based import neuron, surrogate

        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 10)
        self.hidden = neuron.LIFNode(tau=2.0, v_threshold=0.5, surrogate_function=surrogate.ATan())

    def forward(self, x):
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        total = 0
        for _ in range(STEPS):
            total = total + self.second(self.hidden(self.first(x.flatten(1))))  # guilty
        return total / STEPS


def snntorch_leaky():
    return fit(SnnTorch())


def norse_lif():
    return fit(Norse())


def sinabs_reset():
    return fit(Sinabs(reset=True))


def sinabs_kept():
    return fit(Sinabs(reset=False))


def spikingjelly_lif():
    return fit(SpikingJelly())
