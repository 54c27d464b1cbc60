"""Gradients that a network takes of its own, one table: what it does with them is to be differentiated, too.

Each moves 16 pixels in [0, 1] by such gradients before a fixed linear layer reads them, as in `idioms.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
from tests.tracing.idioms import energy


def purified_from_zero(net, x):
    with torch.enable_grad():
        d = torch.zeros_like(x, requires_grad=True)
        optimiser = torch.optim.SGD([d], lr=0.03, momentum=0.9)
        for _ in range(5):
            optimiser.zero_grad()
            energy(net.inner(x.detach() + d)).backward()
            optimiser.step()
    return (x + d).detach()


def rms(net, x):
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        optimiser = torch.optim.RMSprop([z], lr=0.02)
        for _ in range(3):
            optimiser.zero_grad(set_to_none=False)
            energy(net.inner(z)).backward()
            optimiser.step()
    return z.detach()


def by_autograd_backward(net, x):
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        for _ in range(4):
            torch.autograd.backward(energy(net.inner(z)))
            z.data -= 0.02 * z.grad
            z.grad = None
    return z.detach()


def normalised(net, x):
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        for _ in range(3):
            (g,) = torch.autograd.grad(energy(net.inner(z)), z)
            z = (z - 0.4 * g / g.norm(dim=1, keepdim=True)).detach().requires_grad_()
    return z.detach()


def kept_with_its_graph(net, x):
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        for _ in range(2):
            (g,) = torch.autograd.grad(energy(net.inner(z)), z, create_graph=True)
            z = z - 0.05 * g
    return z.detach()


def retained_inside(net, x):
    with torch.enable_grad():
        h = net.inner(x.detach().requires_grad_())
        h.retain_grad()
        energy(h.tanh()).backward()
    return (x - 0.5 * h.grad).detach()


def grad_of_a_sum(net, x):
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        h = net.inner(z)
        (g,) = torch.autograd.grad(h, z, grad_outputs=h.detach().tanh())
    return (z + 0.3 * g).detach()


def weights_fitted(net, x):
    """A layer that adapts to the images at hand before it reads them."""
    with torch.enable_grad():
        w = torch.eye(16).repeat(len(x), 1, 1).requires_grad_()
        (g,) = torch.autograd.grad((torch.einsum("nij,nj->ni", w, x.detach() * 2).tanh() ** 2).sum(), w)
        w = w - 0.5 * g
    return torch.einsum("nij,nj->ni", w.detach(), x.detach())


def hooked(net, x):
    kept = []
    with torch.enable_grad():
        d = x.detach().clone().requires_grad_()
        h = net.inner(d)
        h.register_hook(lambda grad: kept.append(grad))
        energy(h).backward()
    return (d - 0.15 * kept[0]).detach()


def at_no_leaf(net, x):
    with torch.enable_grad():
        h = x.detach().requires_grad_() * 1.0
        torch.autograd.backward(energy(net.inner(h)), inputs=[h])
    return (h - 0.3 * h.grad).detach()


def at_no_leaf_by_method(net, x):
    with torch.enable_grad():
        h = x.detach().requires_grad_() * 1.0
        energy(net.inner(h)).backward(inputs=h)
    return (h - 0.3 * h.grad).detach()


def at_a_leaf_and_behind_it(net, x):
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        h = 2 * z - z
        torch.autograd.backward(
            [energy(net.inner(h)), energy(h)],
            [torch.tensor(1.0), torch.tensor(0.5)],
            None,
            False,
            None,
            (h, z),
        )
    return (z - 0.1 * h.grad - 0.1 * z.grad).detach()


def past_a_gradient_that_stays(net, x):
    """The second pass ends before the leaf, whose gradient is the first pass's alone; what lies between retains its."""
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        energy(z).backward()
        h = z * 1.0
        k = h * 3.0
        k.retain_grad()
        energy(net.inner(k)).backward(inputs=[h])
    return (z - 0.1 * z.grad - 0.02 * h.grad - 0.1 * k.grad).detach()


def projected(net, x):
    """The nearest that a generator makes: the image is in the loss alone, and no step begins at it."""
    with torch.enable_grad():
        z = torch.zeros_like(x).requires_grad_()
        optimiser = torch.optim.SGD([z], lr=0.3, momentum=0.7)
        for _ in range(5):
            optimiser.zero_grad()
            (net.inner(z).sigmoid() - x.detach()).square().sum().backward()
            optimiser.step()
    return net.inner(z).sigmoid().detach()


def projected_from_several_starts(net, x):
    starts = torch.stack([torch.full_like(x, v) for v in (-0.5, 0.0, 0.5)])
    with torch.enable_grad():
        z = starts.requires_grad_()
        for _ in range(4):
            (g,) = torch.autograd.grad((net.inner(z).sigmoid() - x.detach()).square().sum(), z)
            z = (z - 0.3 * g).detach().requires_grad_()
        made = net.inner(z).sigmoid()
        best = (made - x.detach()).square().sum(2).argmin(0)
    return made[best, torch.arange(len(x))].detach()


INNER: dict[str, tuple[Callable[..., Any], str]] = {
    "a purifier's step from zero, by SGD": (purified_from_zero, "(x + d).detach()"),
    "RMSprop, gradients set to zero": (rms, "z = x.detach().clone().requires_grad_()"),
    "torch.autograd.backward": (by_autograd_backward, "z = x.detach().clone().requires_grad_()"),
    "normalised steps": (normalised, "z = x.detach().requires_grad_()"),
    "steps with their graph": (kept_with_its_graph, "z = x.detach().requires_grad_()"),
    "a gradient retained inside": (retained_inside, "(x - 0.5 * h.grad).detach()"),
    "grad_outputs": (grad_of_a_sum, "z = x.detach().requires_grad_()"),
    "weights fitted to the images": (weights_fitted, '"nij,nj->ni", w.detach(), x.detach())'),
    "backward to no leaf": (at_no_leaf, "(h - 0.3 * h.grad).detach()"),
    "backward to no leaf, by the method": (at_no_leaf_by_method, "h = x.detach().requires_grad_() * 1.0"),
    "backward to a leaf and beyond": (at_a_leaf_and_behind_it, "z = x.detach().requires_grad_()"),
    "backward that ends before a leaf": (past_a_gradient_that_stays, "z = x.detach().requires_grad_()"),
    "a projection on a generator, by SGD": (projected, "(net.inner(z).sigmoid() - x.detach())"),
    "a projection from several starts": (
        projected_from_several_starts,
        "(net.inner(z).sigmoid() - x.detach())",
    ),
    "a gradient kept by a hook": (hooked, "(d - 0.15 * kept[0]).detach()"),
}
