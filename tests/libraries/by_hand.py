"""Attacks by someone who knows the library: what to differentiate in the place of a network that it built.

Each function takes the network and returns callables with a gradient; `hand` climbs along every one of them, with the
bare loops of `tests.fixtures.hand_attacks`, and checks success on the network itself. Nothing here is `unmask`'s.
"""

from functools import partial

import torch
from tests.fixtures.hand_attacks import climb, climb_average, straight_through
from tests.libraries import art_defences
from tests.libraries.digits import mlp, trained_mlp
from torch import nn


def rested(network):
    """The network as nobody has asked it: what it keeps between calls is put back before each, as in an audit."""
    kept = [
        (m, name, b.clone()) for m in network.modules() for name, b in m._buffers.items() if b is not None
    ]

    def call(x):
        for module, name, buffer in kept:
            module._buffers[name] = buffer.clone()
        return network(x)

    return call


def hand(network, ways, x, y, epsilon, *, random=False):
    """The share of the images that none of the attacks breaks, and the points, `[n, 1, 8, 8]`."""
    network = rested(network)
    found, right = x.clone(), right_on(network, x, y, random)
    for n, forward in enumerate(ways):
        left = (right > 0.5).nonzero()[:, 0]
        if not len(left):
            break
        generator = torch.Generator().manual_seed(n)
        run = climb_average if random else partial(climb, steps=40, targets=2)
        torch.manual_seed(n)
        found[left] = run(forward, network, x[left], y[left], epsilon, generator)
        assert float((found - x).abs().max()) <= epsilon + 1e-6
        right = torch.minimum(right, right_on(network, found, y, random))
    return float(right.mean()), found


def right_on(network, x, y, random):
    """`[n]`: whether, or for a random network how often of 20 times, each image is right by itself."""
    rounds = 20 if random else 1
    with torch.no_grad():
        return torch.stack(
            [torch.cat([network(v[None]).argmax(1) for v in x]) == y for _ in range(rounds)]
        ).float().mean(0)  # fmt: skip


def own(network):
    """Nothing to get around: the gradient that the library returns."""
    return [network]


class Spike(torch.autograd.Function):
    """A step at zero whose backward is a fast sigmoid's of the given width, whatever the library declares."""

    @staticmethod
    def forward(ctx, v, width):
        ctx.save_for_backward(v)
        ctx.width = width
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad / (1 + v.abs() / ctx.width) ** 2, None


WIDTHS = (0.1, 0.5, 2.0)


def snntorch(network):
    """The library's own neurons with wider and narrower surrogates in them."""

    def with_width(width):
        def forward(x):
            declared = network.hidden.spike_grad
            network.hidden.spike_grad = network.out.spike_grad = lambda v: Spike.apply(v, width)
            try:
                return network(x)
            finally:
                network.hidden.spike_grad = network.out.spike_grad = declared

        return forward

    return [with_width(width) for width in WIDTHS]


def leaky(network, update, readout, steps):
    """An own loop over time: current in, `update(voltage, current)` returns what is thresholded and how it is reset."""

    def with_width(width):
        def forward(x):
            current = network.first(x.flatten(1))
            state, spikes = None, []
            for _ in range(steps):
                state, over = update(state, current)
                spike = Spike.apply(over, width)
                state = update.reset(state, spike)
                spikes.append(spike)
            return readout(spikes)

        return forward

    return [with_width(width) for width in WIDTHS]


class NorseUpdate:
    """norse's `LIFCell`: dt 0.001, exponential synapse, reset to zero."""

    def __init__(self, p):
        self.p = p

    def __call__(self, state, current):
        v, i = (torch.zeros_like(current), torch.zeros_like(current)) if state is None else state
        dv = 0.001 * self.p.tau_mem_inv * ((self.p.v_leak - v) + i)
        decayed = v + dv, i - 0.001 * self.p.tau_syn_inv * i + current
        return decayed, decayed[0] - self.p.v_th

    def reset(self, state, spike):
        v, i = state
        return v - spike.detach() * (v - self.p.v_reset), i


def norse(network):
    update = NorseUpdate(network.hidden.p)

    def readout(spikes):
        total, state = 0, None
        for spike in spikes:
            voltage, state = network.out(network.second(spike), state)
            total = total + voltage
        return total

    return [network, *leaky(network, update, readout, 16)]


class Charge:
    """Voltage that leaks, `v <- keep v + gain i`, and falls by the threshold (`soft`) or to zero at a spike."""

    def __init__(self, keep, gain, threshold, soft):
        self.keep, self.gain, self.threshold, self.soft = keep, gain, threshold, soft

    def __call__(self, state, current):
        v = self.gain * current if state is None else self.keep * state + self.gain * current
        return v, v - self.threshold

    def reset(self, state, spike):
        spike = spike.detach()
        return state - self.threshold * spike if self.soft else state * (1 - spike)


def sinabs(network):
    keep = float(torch.exp(torch.tensor(-1 / 10.0)))
    update = Charge(keep, 1 - keep, 0.3, soft=True)

    def readout(spikes):
        return network.second(torch.stack(spikes).mean(0))

    return [rested(network), *leaky(network, update, readout, 8)]


def spikingjelly(network):
    update = Charge(0.5, 0.5, 0.5, soft=False)

    def readout(spikes):
        return torch.stack([network.second(spike) for spike in spikes]).mean(0)

    return [network, *leaky(network, update, readout, 8)]


def brevitas(network):
    """The straight-through estimators that it was trained with, and the same weights in floating point."""
    first, second = network.first, network.second

    def float_copy(x):
        h = torch.relu(nn.functional.linear(x.flatten(1), first.weight, first.bias))
        return nn.functional.linear(h, second.weight, second.bias)

    through = straight_through(network, float_copy)
    return [network, through, averaged(network)]


def averaged(network, sigma=0.05, draws=16):
    """The network's mean over a Gaussian around the input."""

    def mean(x):
        return torch.stack([network(x + sigma * torch.randn_like(x)) for _ in range(draws)]).mean(0)

    return mean


def float_copy(network):
    """The float network that was quantised: its values too close for a stair to matter, its gradient whole."""
    plain = trained_mlp()
    return [plain, straight_through(network, plain)]


def forest(network):
    """Every comparison of every tree as a sigmoid, from scikit-learn's own trees; several widths."""

    def soft(width):
        def forward(x):
            x = x.flatten(1)
            votes = torch.stack([soft_tree(tree.tree_, x, width) for tree in network.forest.estimators_])
            return (votes.mean(0) + 1e-3).log()

        return forward

    return [soft(width) for width in (0.02, 0.05, 0.1)]


def soft_tree(tree, x, width):
    """`[n, classes]`: class shares of the leaves, weighted by the probability of getting there."""
    reach = {0: torch.ones(len(x))}
    votes = 0
    for node in range(tree.node_count):  # parents have smaller numbers than their children
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            share = torch.tensor(tree.value[node][0] / tree.value[node][0].sum(), dtype=torch.float32)
            votes = votes + reach[node][:, None] * share
            continue
        goes = torch.sigmoid((float(tree.threshold[node]) - x[:, tree.feature[node]]) / width)
        reach[left], reach[right] = reach[node] * goes, reach[node] * (1 - goes)
    return votes


def filtered(network):
    """The operation of kornia taken for the identity going back, and its own gradient."""
    through = straight_through(network.operation)
    return [lambda x: network.network(through(x)), network]


def art(network):
    """The network behind ART's preprocessing, which is taken for the identity; in torch its own gradient, too."""
    wrapped = network.network  # unmask's module of the classifier

    def preprocess(x):
        for step in wrapped.steps:
            if step.in_torch:
                x = step.operation.forward(x, None)[0].float()
            else:
                x = torch.as_tensor(step.operation(x.detach().numpy().copy(), None)[0]).float()
        return x

    through = straight_through(preprocess)
    identity = [lambda x: wrapped.network(through(x))]
    return [*identity, network] if all(step.in_torch for step in wrapped.steps) else identity


def art_coded(network):
    """A code whose every level is a sigmoid."""
    behind = network.network.network
    return [lambda x, width=width: behind(art_defences.thermometer(x, width)) for width in (0.02, 0.05, 0.2)]


def private(network):
    """The network inside without opacus's hooks, which raise where a gradient is asked for in evaluation mode."""
    inside = mlp()
    inside.load_state_dict(network._module.state_dict())
    return [inside]


def eager(network):
    """The Python network that was exported, scripted or compiled."""
    return [trained_mlp()]
