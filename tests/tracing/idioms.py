"""Ways in which people write a forward pass, one table: what is written, what the tracer must say, and at which line.

Each idiom changes 16 pixels in [0, 1] before a fixed linear layer reads them. `SEEN` holds those that lose the gradient
(with the symptoms, one of which must be named, and text of the line), `HONEST` those that lose none.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tests.tracing.networks import linear
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint


class Network(nn.Module):
    """Pixels `[batch, 16]`, changed by `step(self, pixels)`, and a linear layer on them."""

    def __init__(self, step: Callable[..., Any]):
        super().__init__()
        self.step = step
        self.inner = linear(16, 16, seed=3)
        self.last = linear()
        self.register_buffer("mean", torch.full((16,), 0.5))
        self.seen: list[Any] = []

    def forward(self, x):
        return self.last(self.step(self, x.flatten(1)))


def energy(z):
    return (z.diff(dim=1) ** 2).sum() + ((z - 0.4) ** 2).sum()


# --- gradients taken inside the network -----------------------------------------------------------------------------


def flag_by_assignment(net, x):
    with torch.no_grad():
        z = net.inner(x)
    z.requires_grad = True
    with torch.enable_grad():
        (g,) = torch.autograd.grad(energy(z), z)
    return (z - 0.1 * g).detach()


def flag_by_call(net, x):
    z = x.detach()
    z.requires_grad_()
    with torch.enable_grad():
        g = torch.autograd.grad(energy(z), [z])[0]
    return z.data - 0.1 * g


def adam(net, x):
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([z], lr=0.05)
        for _ in range(3):
            optimiser.zero_grad()
            energy(z).backward()
            optimiser.step()
    return z.detach()


def lbfgs(net, x):
    z = nn.Parameter(x.detach().clone())
    optimiser = torch.optim.LBFGS([z], lr=0.1, max_iter=4)

    def closure():
        optimiser.zero_grad()
        loss = energy(z)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return z.detach()


def accumulated(net, x):
    with torch.enable_grad():
        d = x.detach().clone().requires_grad_(True)
        for part in d.split(8, dim=1):
            (part**2).sum().backward()
        energy(d).backward()
    return (d - 0.02 * d.grad).detach()


def backward_twice(net, x):
    with torch.enable_grad():
        d = x.detach().requires_grad_()
        loss = energy(net.inner(d))
        loss.backward(retain_graph=True)
        loss.backward()
    return x.detach() - 0.001 * d.grad


def in_place_steps(net, x):
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_(True)
        for _ in range(2):
            energy(z).backward()
            with torch.no_grad():
                z -= 0.05 * z.grad
            z.grad.zero_()
    return z.detach()


def steps_through_data(net, x):
    with torch.enable_grad():
        d = torch.zeros_like(x, requires_grad=True)
        for _ in range(2):
            (g,) = torch.autograd.grad(energy(x.detach() + d), d)
            d.data = (d - 0.05 * g).clamp(-0.2, 0.2)
    return x + d.detach()


@torch.enable_grad()
def decorated(net, x):
    d = x.detach().requires_grad_()
    return (d - 0.1 * torch.autograd.grad(energy(d), d)[0]).detach()


def graph_kept_for_more(net, x):
    with torch.enable_grad():
        d = x.detach().clone().requires_grad_()
        (g,) = torch.autograd.grad(energy(d), d, create_graph=True)
        (h,) = torch.autograd.grad((g**2).sum(), d)
    return (d - 0.01 * h).detach()


def hooked_for_its_gradient(net, x):
    kept = []
    with torch.enable_grad():
        d = x.detach().clone().requires_grad_()
        h = net.inner(d)
        h.register_hook(lambda grad: kept.append(grad))
        energy(h).backward()
    return (d - 0.02 * kept[0]).detach()


def retained(net, x):
    with torch.enable_grad():
        h = net.inner(x.detach().requires_grad_())
        h.retain_grad()
        energy(h).backward()
    return (x - 0.02 * h.grad).detach()


def functional_jacobian(net, x):
    return x.detach() + 0.01 * torch.autograd.functional.jacobian(energy, x.detach())


def functional_hvp(net, x):
    return x.detach() + 0.01 * torch.autograd.functional.hvp(energy, x.detach(), x.detach())[1]


def func_grad(net, x):
    return x.detach() - 0.05 * torch.func.grad(energy)(x.detach())


def func_vmap_of_grad(net, x):
    step = torch.func.vmap(torch.func.grad(lambda z: (z.diff() ** 2).sum()))
    return x.detach() - 0.05 * step(x.detach())


def questions_answered(net, x):
    with torch.no_grad():
        z = net.inner(x)
        assert not torch.is_grad_enabled()
    assert (z.is_leaf, z.grad_fn, z.requires_grad, z.grad) == (True, None, False, None)
    z = z.requires_grad_()
    assert (z.is_leaf, z.requires_grad) == (True, True)
    return z.detach()


def inference(net, x):
    with torch.inference_mode():
        z = net.inner(x)
    return z.clone()


def deep_copied(net, x):
    return copy.deepcopy(x.detach()) * 2


def parameter_made(net, x):
    return nn.Parameter(x * 2, requires_grad=False).detach()


def flag_taken_away(net, x):
    y = (x * 2).detach_()
    y.requires_grad_(False)
    return y


def view_written_behind_a_cut(net, x):
    y = x.detach().clone()
    y[:, :8].mul_(2)
    y[:, 8:] += 0.5
    return y


def given_out(net, x):
    with torch.no_grad():
        made = torch.empty_like(x)
        torch.mul(x, 2, out=made)
    return made


def tangled(net, x):
    """The same tensor with and without its graph: half of the change has a gradient."""
    return x + x.detach() ** 2


SEEN: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "requires_grad = True on what no_grad made": (flag_by_assignment, {"cut"}, "with torch.no_grad():"),
    "requires_grad_() on what detach made": (flag_by_call, {"cut"}, "z = x.detach()"),
    "Adam on a copy": (adam, {"cut"}, "z = x.detach().clone().requires_grad_()"),
    "LBFGS on a Parameter made in forward": (lbfgs, {"cut"}, "z = nn.Parameter(x.detach().clone())"),
    "gradients accumulated over several backward()": (accumulated, {"cut"}, "d = x.detach().clone()"),
    "backward() twice through one graph": (backward_twice, {"cut"}, "return x.detach() - 0.001 * d.grad"),
    "in-place steps under no_grad": (in_place_steps, {"cut"}, "z = x.detach().clone().requires_grad_(True)"),
    "steps assigned through .data": (steps_through_data, {"cut"}, "energy(x.detach() + d)"),
    "enable_grad as a decorator": (decorated, {"cut"}, "d = x.detach().requires_grad_()"),
    "create_graph for a second gradient": (graph_kept_for_more, {"cut"}, "d = x.detach().clone()"),
    "a hook that keeps its gradient": (hooked_for_its_gradient, {"cut"}, "d = x.detach().clone()"),
    "retain_grad": (retained, {"cut"}, "return (x - 0.02 * h.grad).detach()"),
    "autograd.functional.jacobian": (functional_jacobian, {"cut"}, "functional.jacobian(energy"),
    "autograd.functional.hvp": (functional_hvp, {"cut"}, "functional.hvp(energy"),
    "torch.func.grad": (func_grad, {"cut"}, "torch.func.grad(energy)(x.detach())"),
    "torch.func.vmap of a gradient": (func_vmap_of_grad, {"cut"}, "0.05 * step(x.detach())"),
    "asks whether its tensors are leaves": (questions_answered, {"cut"}, "with torch.no_grad():"),
    "inference_mode": (inference, {"cut"}, "with torch.inference_mode():"),
    "deepcopy of a detached tensor": (deep_copied, {"cut"}, "copy.deepcopy(x.detach())"),
    "a Parameter without gradient": (parameter_made, {"cut"}, "nn.Parameter(x * 2, requires_grad=False)"),
    "detach_ and requires_grad_(False)": (flag_taken_away, {"cut"}, ".detach_()"),
    "views written into behind a cut": (view_written_behind_a_cut, {"cut"}, "y = x.detach().clone()"),
    "out= under no_grad": (given_out, {"cut"}, "with torch.no_grad():"),
    "beside its own detached square": (tangled, {"cut"}, "return x + x.detach() ** 2"),
}


# --- ordinary code that loses nothing -------------------------------------------------------------------------------


class Tagged(torch.Tensor):
    """A subclass that goes through every operation."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


@dataclasses.dataclass
class Named:
    pixels: torch.Tensor
    scale: float = 2.0


def switched(x):
    return x * 2 if x.ndim == 2 else x


def checkpointed(net, x):
    return checkpoint(net.inner, x, use_reentrant=False)


def saved_elsewhere(net, x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        return net.inner(x).tanh()


def mixed(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = net.inner(x)
    return h.float()


def filtered(net, x):
    spectrum = torch.fft.rfft(x)
    return torch.fft.irfft(spectrum * torch.linspace(1, 0.2, spectrum.shape[1]), n=16)


def weight_kept_sparse(net, x):
    return torch.sparse.mm(net.weight, x.T).T


def called_functionally(net, x):
    return torch.func.functional_call(net.inner, {"weight": net.inner.weight * 2}, (x,))


def copied_inside(net, x):
    return copy.deepcopy(net.inner)(x)


def own_loader(net, x):
    net.spare.load_state_dict(net.inner.state_dict())
    return net.spare(x)


def initialised_anew(net, x):
    nn.init.constant_(net.spare.weight, 0.25)
    return net.spare(x) + x


def buffer_of_the_mean(net, x):
    net.mean.copy_(net.mean * 0.5 + 0.25)
    return x - net.mean


def weight_assigned_through_data(net, x):
    net.spare.weight.data = net.inner.weight.data * 2
    return net.spare(x)


def parameter_set_anew(net, x):
    net.spare.weight = nn.Parameter(net.inner.weight * 2)
    return net.spare(x)


def in_pieces(net, x):
    y = torch.zeros_like(x)
    y[:, ::2] = x[:, ::2] * 2
    y[:, 1::2].add_(x[:, 1::2])
    return y


def through_a_subclass(net, x):
    return net.inner(x.as_subclass(Tagged)).as_subclass(torch.Tensor)


def generated(net, x):
    return torch.cat([piece * 2 for piece in (part for part in x.split(4, dim=1))], 1)


def in_a_dataclass(net, x):
    named = Named(x)
    return named.pixels * named.scale


def branching(net, x):
    h = net.inner(x)
    return h * 2 if float(h.detach().mean()) < 1e6 else -h


def nested(net, x):
    ragged = torch.nested.nested_tensor(list(x.split(1)), layout=torch.strided)
    return ragged.to_padded_tensor(0.0)[:, 0] * 2 if not x.requires_grad else x * 2


def compiled(net, x):
    return torch.compile(switched, backend="eager")(x)


class Tied(nn.Module):
    """Encoder and decoder share their weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = linear(16, 16, seed=4), nn.Linear(16, 16, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


def wrapped(make: Callable[[], nn.Module]) -> Callable[[], Network]:
    """A network whose step is a module."""

    def build() -> Network:
        net = Network(lambda net, x: net.extra(x))
        torch.manual_seed(0)
        net.extra = make()
        return net.eval()

    return build


def spare(step: Callable[..., Any]) -> Callable[[], Network]:
    """A network with a layer more, which its step fills."""

    def build() -> Network:
        net = Network(step)
        net.spare = linear(16, 16, seed=5)
        return net

    return build


def sparse(layout: str) -> Callable[[], Network]:
    """A network with a weight stored sparse."""

    def build() -> Network:
        net = Network(weight_kept_sparse)
        weight = linear(16, 16, seed=6).weight.detach()
        weight = torch.where(weight.abs() < 0.5, 0, weight)
        net.weight = nn.Parameter(getattr(weight, layout)(), requires_grad=False)
        return net

    return build


def pruned():
    layer = linear(16, 16, seed=7)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return layer


def lazy():
    layer = nn.LazyLinear(16)
    layer(torch.zeros(1, 16))
    return layer


def plain(step: Callable[..., Any]) -> Callable[[], Network]:
    """The table's usual network."""
    return lambda: Network(step)


HONEST: dict[str, Callable[[], nn.Module]] = {
    "checkpoint": plain(checkpointed),
    "saved_tensors_hooks": plain(saved_elsewhere),
    "autocast": plain(mixed),
    "a filter in the Fourier domain": plain(filtered),
    "a weight stored sparse, COO": sparse("to_sparse"),
    "a weight stored sparse, CSR": sparse("to_sparse_csr"),
    "functional_call": plain(called_functionally),
    "deepcopy of a layer in forward": plain(copied_inside),
    "load_state_dict in forward": spare(own_loader),
    "nn.init in forward": spare(initialised_anew),
    "a buffer written in each pass": plain(buffer_of_the_mean),
    "a weight assigned through .data": spare(weight_assigned_through_data),
    "a new Parameter in each pass": spare(parameter_set_anew),
    "slices assigned and added in place": plain(in_pieces),
    "a subclass of Tensor": plain(through_a_subclass),
    "generator expressions": plain(generated),
    "a dataclass between layers": plain(in_a_dataclass),
    "a branch on a number": plain(branching),
    "nested tensors where no gradient is wanted": plain(nested),
    "torch.compile, eager": plain(compiled),
    "tied weights": wrapped(Tied),
    "weight_norm": wrapped(lambda: parametrizations.weight_norm(nn.Linear(16, 16))),
    "spectral_norm": wrapped(lambda: parametrizations.spectral_norm(nn.Linear(16, 16))),
    "pruned": wrapped(pruned),
    "lazy modules": wrapped(lazy),
    "a recurrent layer": wrapped(lambda: nn.Sequential(nn.Unflatten(1, (4, 4)), _Last())),
    "attention": wrapped(lambda: nn.Sequential(nn.Unflatten(1, (4, 4)), _Attention(), nn.Flatten())),
    "jit.script": wrapped(lambda: torch.jit.script(nn.Sequential(nn.Linear(16, 16), nn.Tanh()))),
    "jit.trace": wrapped(lambda: torch.jit.trace(nn.Linear(16, 16), torch.zeros(2, 16))),
    "jit.freeze": wrapped(lambda: torch.jit.freeze(torch.jit.script(nn.Linear(16, 16).eval()))),
    "parts of a ModuleDict": wrapped(lambda: _Parts()),
    "dropout outside of training": wrapped(
        lambda: nn.Sequential(nn.Linear(16, 16), nn.Dropout(), nn.BatchNorm1d(16))
    ),
}


class _Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(4, 16, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0][:, -1]


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return x + self.heads(x, x, x, need_weights=False)[0]


class _Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Linear(16, 16), "b": nn.Softplus()})

    def forward(self, x):
        for part in self.parts.values():
            x = part(x)
        return x


# --- weights drawn anew ---------------------------------------------------------------------------------------------


def drawn_by_copy(net, x):
    net.spare.weight.data.copy_(net.inner.weight * (1 + 0.3 * torch.randn(16, 16)))
    return net.spare(x)


def drawn_by_assignment(net, x):
    net.spare.weight.data = net.inner.weight + 0.3 * torch.randn(16, 16)
    return net.spare(x)


def drawn_by_init(net, x):
    nn.init.normal_(net.spare.weight, std=0.3)
    return net.spare(x)


def drawn_into_a_buffer(net, x):
    net.mean.normal_(0.5, 0.2)
    return x - net.mean


def drawn_as_a_parameter(net, x):
    net.spare.bias = nn.Parameter(0.3 * torch.randn(16))
    return net.spare(x)


def drawn_and_loaded(net, x):
    state = {key: value + 0.1 * torch.randn_like(value) for key, value in net.inner.state_dict().items()}
    net.spare.load_state_dict(state)
    return net.spare(x)


def drawn_by_a_generator_of_its_own(net, x):
    own = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))
    return x + 0.2 * torch.randn(x.shape, generator=own)


DRAWN: dict[str, tuple[Callable[..., Any], str]] = {
    "weights drawn by copy_": (drawn_by_copy, ".copy_(net.inner.weight * (1 + 0.3"),
    "weights drawn through .data": (drawn_by_assignment, "= net.inner.weight + 0.3 * torch.randn"),
    "weights drawn by nn.init": (drawn_by_init, "nn.init.normal_(net.spare.weight"),
    "a buffer drawn in place": (drawn_into_a_buffer, "net.mean.normal_(0.5"),
    "a Parameter drawn": (drawn_as_a_parameter, "= nn.Parameter(0.3 * torch.randn"),
    "weights drawn and loaded": (drawn_and_loaded, "0.1 * torch.randn_like(value)"),
    "a generator seeded by a draw": (drawn_by_a_generator_of_its_own, "manual_seed(int(torch.randint"),
}


# --- decisions, of which only an index, a place or a count goes on --------------------------------------------------

CENTRES = torch.rand(16, 16, generator=torch.Generator().manual_seed(8)).round()


def scores(net, x):
    return net.inner(x)


def by_index(choose: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """Pixels scaled by what a table holds for the index that is chosen; the scores themselves go nowhere."""

    def step(net, x):
        index = choose(scores(net, x))
        return x * CENTRES[index].reshape(len(x), -1, 16).mean(1)

    return step


def count_of_levels(net, x):
    levels = torch.stack([torch.tensor(float(len(torch.unique(row.round(decimals=1))))) for row in x])
    return x * levels[:, None] / 8


def rank_among_edges(net, x):
    return torch.searchsorted(torch.linspace(0, 1, 9), x.contiguous()) / 8


def bucket(net, x):
    return torch.bucketize(x, torch.linspace(0, 1, 6)).float() / 5


def places_of_bright_pixels(net, x):
    y = torch.zeros_like(x)
    rows, columns = torch.nonzero(x > 0.5, as_tuple=True)
    y[rows, columns] = 1.0
    return y


def masked(net, x):
    y = x.clone()
    y[x < 0.5] = 0
    return y


def filled_where_dark(net, x):
    return x.masked_fill(x < 0.5, 0.0)


def histogram(net, x):
    return torch.stack([torch.histc(row, bins=16, min=0, max=1) for row in x]) / 4


def counted(net, x):
    return torch.stack([torch.bincount((row * 16).long().clamp(0, 15), minlength=16) for row in x]) / 4.0


def scattered(net, x):
    brightest = x.topk(4, dim=1).indices
    return torch.zeros_like(x).scatter(1, brightest, 1.0)


def ranked(net, x):
    return x.argsort(1).argsort(1) / 16


def one_hot(net, x):
    return F.one_hot(scores(net, x).argmax(1), 16) + 0.1 * x


def every_other_sign(net, x):
    return torch.sign(x - 0.5)


def floored(net, x):
    return (x * 5) // 1 / 5


def heaviside(net, x):
    return torch.heaviside(x - 0.5, torch.tensor(0.5))


def picked_by_a_dict(net, x):
    rows = []
    for row, index in zip(x, scores(net, x).argmax(1).tolist(), strict=True):
        rows.append(row * CENTRES[index])
    return torch.stack(rows)


def stair_after_large_moves_only(net, x):
    """A step so wide that the smallest moves seldom cross it."""
    return x * CENTRES[(scores(net, x).mean(1) * 3).long() % 16]


DECIDED: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "argmax": (by_index(lambda h: h.argmax(1)), {"discrete"}, "h.argmax(1))"),
    "max, its index": (
        by_index(lambda h: torch.max(h, dim=1)[1]),
        {"discrete"},
        "torch.max(h, dim=1)",
    ),
    "min over a dimension, its index": (
        by_index(lambda h: h.min(1).indices),
        {"discrete"},
        "h.min(1).indices",
    ),
    "topk, its indices": (by_index(lambda h: h.topk(2, dim=1)[1]), {"discrete"}, "h.topk(2"),
    "sort, its indices": (by_index(lambda h: h.sort(1).indices[:, :3]), {"discrete"}, "h.sort(1).indices"),
    "argsort": (by_index(lambda h: h.argsort(1)[:, 0]), {"discrete"}, "h.argsort(1)[:, 0]"),
    "kthvalue, its index": (by_index(lambda h: h.kthvalue(8, dim=1)[1]), {"discrete"}, "h.kthvalue(8"),
    "median, its index": (by_index(lambda h: h.median(1).indices), {"discrete"}, "h.median(1).indices"),
    "mode, its index": (by_index(lambda h: h.round().mode(1).indices), {"discrete"}, "h.round().mode(1)"),
    "cummax, its indices": (by_index(lambda h: h.cummax(1).indices[:, -1]), {"discrete"}, "h.cummax(1)"),
    "cummin, its indices": (by_index(lambda h: h.cummin(1).indices[:, -1]), {"discrete"}, "h.cummin(1)"),
    "aminmax and equality": (
        by_index(lambda h: (h == h.amax(1, True)).int().argmax(1)),
        {"discrete"},
        "h.amax(1",
    ),
    "unique, a count": (count_of_levels, {"zero", "discrete", "cut"}, "torch.unique(row"),
    "searchsorted": (rank_among_edges, {"discrete"}, "torch.searchsorted(torch"),
    "bucketize": (bucket, {"discrete"}, "torch.bucketize(x"),
    "nonzero": (places_of_bright_pixels, {"discrete"}, "torch.nonzero(x > 0.5"),
    "a boolean mask assigned": (masked, {"discrete", "effect"}, "y[x < 0.5] = 0"),
    "masked_fill": (filled_where_dark, {"discrete", "effect"}, "x.masked_fill(x < 0.5"),
    "histc": (histogram, {"zero"}, "torch.histc(row"),
    "bincount": (counted, {"discrete", "zero"}, "torch.bincount((row"),
    "scatter at the indices of topk": (scattered, {"discrete"}, "x.topk(4, dim=1).indices"),
    "ranks": (ranked, {"discrete"}, "x.argsort(1).argsort(1)"),
    "one_hot": (one_hot, {"discrete"}, "F.one_hot(scores"),
    "sign": (every_other_sign, {"zero"}, "torch.sign(x - 0.5)"),
    "floor division": (floored, {"zero"}, "(x * 5) // 1"),
    "heaviside": (heaviside, {"zero"}, "torch.heaviside(x"),
    "a table read by Python numbers": (picked_by_a_dict, {"discrete", "cut"}, ".argmax(1).tolist()"),
    "a wide step": (stair_after_large_moves_only, {"discrete"}, ".mean(1) * 3).long()"),
}
