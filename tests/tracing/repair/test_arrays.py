"""A gradient's way through NumPy: the trail leads where the numbers went, and no number changes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unmask.tracing.repair.arrays import follow, following
from unmask.tracing.repair.arrays.followed import trail_of
from unmask.tracing.repair.rewrite import Rewritten, _Rewriter
from unmask.tracing.repair.rules import Rewrite

WEIGHT = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)


def there_and_back(between):
    """A network that leaves torch for `between`, from arrays `[batch, 4, 4]`."""

    def network(x: Tensor) -> Tensor:
        return torch.tensor(between(x.detach().cpu().numpy()), dtype=torch.float32)

    return network


def assigned(a):
    b = np.zeros_like(a)
    b[:, 1:] = a[:, :-1] * 2
    b[b < 0] = 0.0
    return b


def in_place(a):
    a = a.astype(np.float64)
    a *= 3
    a -= a.mean(axis=(1, 2), keepdims=True)
    np.clip(a, -1, 1, out=a)
    return a


def perceptron(a):
    h = np.maximum(a.reshape(len(a), -1) @ WEIGHT, 0)
    return h / h.sum(axis=1, keepdims=True).clip(1e-6)


def channels_last(a):
    a = np.transpose(a[:, None], (0, 2, 3, 1))
    return np.ascontiguousarray(a.repeat(3, axis=-1)).transpose(0, 3, 1, 2)[:, :2]


# Each beside the same in torch.
CASES = {
    "as it was": (lambda a: a, lambda x: x),
    "astype, scaled": (lambda a: (a.astype(np.float64) - 0.5) / 0.25, lambda x: (x - 0.5) / 0.25),
    "transposed": (
        lambda a: a.transpose(0, 2, 1) * [[1.0], [2], [3], [4]],
        lambda x: x.mT * torch.arange(1, 5)[:, None],
    ),
    "channels last": (channels_last, lambda x: x[:, None].expand(-1, 2, -1, -1)),
    "cropped, flipped": (lambda a: np.flip(a[:, 1:, :3], 2).copy(), lambda x: x[:, 1:, :3].flip(2)),
    "padded": (
        lambda a: np.pad(a, ((0, 0), (1, 1), (0, 2))),
        lambda x: torch.nn.functional.pad(x, (0, 2, 1, 1)),
    ),
    "image by image": (lambda a: np.stack([i * 2 + 1 for i in a]), lambda x: x * 2 + 1),
    "a list of images": (lambda a: [i.T for i in a], lambda x: x.mT),
    "rows by index": (lambda a: np.array([a[n] for n in range(len(a))])[:, [2, 0]], lambda x: x[:, [2, 0]]),
    "concatenated": (lambda a: np.concatenate([a, a**2], axis=1), lambda x: torch.cat([x, x**2], 1)),
    "functions": (lambda a: np.tanh(np.exp(a) - np.sqrt(a + 1)), lambda x: (x.exp() - (x + 1).sqrt()).tanh()),
    "in place": (in_place, lambda x: (x * 3 - (x * 3).mean((1, 2), keepdim=True)).clamp(-1, 1)),
    "assigned": (assigned, lambda x: torch.cat([torch.zeros(len(x), 1, 4), x[:, :-1] * 2], 1).relu()),
    "a network": (
        perceptron,
        lambda x: (
            (h := (x.flatten(1) @ torch.from_numpy(WEIGHT)).relu()) / h.sum(1, keepdim=True).clamp(1e-6)
        ),
    ),
    "einsum": (
        lambda a: np.einsum("bij,kj->bik", a, WEIGHT[:3, :4]),
        lambda x: torch.einsum("bij,kj->bik", x, torch.from_numpy(WEIGHT[:3, :4])),
    ),
    "rounded": (lambda a: np.round(a * 4) / 4, lambda x: x),
    "bytes": (lambda a: (a * 255).astype(np.uint8).astype(np.float32) / 255, lambda x: x),
    "asarray": (lambda a: np.asarray(a)[..., ::-1].copy(), lambda x: x.flip(-1)),
}


@pytest.mark.filterwarnings("ignore:Creating a tensor from a list")
@pytest.mark.parametrize("name", CASES)
def test_as_the_same_in_torch(name):
    between, same = CASES[name]
    network = there_and_back(between)
    x = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    made = Rewritten(network, Rewrite(heal_cuts=True))(x)
    assert torch.equal(made, network(x))
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((made * weight).sum(), x)
    (truth,) = torch.autograd.grad((same(x) * weight).sum(), x)
    assert torch.allclose(found, truth, rtol=1e-4, atol=1e-5)


DOORS_OUT = {
    "numpy": lambda x: x.detach().numpy(),
    "asarray": lambda x: np.asarray(x.detach()),
    "array": lambda x: np.array(x.detach()),
}
DOORS_IN = {
    "from_numpy": lambda a: torch.from_numpy(a),
    "as_tensor": lambda a: torch.as_tensor(a),
    "tensor": lambda a: torch.tensor(a),
    "asarray": lambda a: torch.asarray(a),
}


@pytest.mark.parametrize("way_back", DOORS_IN)
@pytest.mark.parametrize("way_out", DOORS_OUT)
def test_every_door(way_out, way_back):
    def network(x):
        return DOORS_IN[way_back](DOORS_OUT[way_out](x) * 2)

    x = torch.rand(3, 4, requires_grad=True)
    made = Rewritten(network, Rewrite(heal_cuts=True))(x)
    (found,) = torch.autograd.grad(made.sum(), x)
    assert torch.equal(found, torch.full_like(x, 2.0))


def test_a_threshold_is_softened():
    network = there_and_back(lambda a: np.where(a > 0.5, 1.0, 0.0))
    x = torch.rand(3, 4, 4, requires_grad=True)
    (found,) = torch.autograd.grad(Rewritten(network, Rewrite(heal_cuts=True))(x).sum(), x)
    assert (found > 0).all()


def test_numpy_is_as_it_was():
    before = np.asarray, np.array, np.ascontiguousarray

    def fails(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Rewritten(fails, Rewrite(heal_cuts=True))(torch.rand(2, 3, requires_grad=True))
    assert (np.asarray, np.array, np.ascontiguousarray) == before


@pytest.mark.parametrize("images", [1, 2])
def test_a_copy_written_over_by_what_came_from_elsewhere_has_no_trail_left(images):
    """As a codec's loop does: then a bridge across the loop leads, which a trail of constants would hide."""
    with following():
        a = follow(np.ones((2, 4, 4), np.float32), torch.ones(2, 4, 4, requires_grad=True))
        b = a.copy()
        for n in range(images):
            b[n, 0, 0] = 0.0
            b[n] = np.full((4, 4), n, np.float32)
        assert (trail_of(b / 255) is None) == (images == 2)
        b[0] = a[0]
        assert trail_of(b) is None or trail_of(b).requires_grad


def test_the_operations_of_a_trail_are_shown_to_nobody(monkeypatch):
    """Else a loop over pixels is followed at ten times its cost."""
    seen = []
    on_call = _Rewriter.on_call

    def noted(self, kind, name, *rest):
        seen.append(name)
        return on_call(self, kind, name, *rest)

    def dithered(a):
        a = a.copy()
        for row in a.reshape(-1, 16):
            for n in range(15):
                row[n + 1] += 0.5 * (row[n] - np.round(row[n]))
                row[n] = np.round(row[n])
            row[15] = row[:15].max()
        return a

    monkeypatch.setattr(_Rewriter, "on_call", noted)
    Rewritten(there_and_back(dithered), Rewrite(heal_cuts=True))(torch.rand(2, 4, 4).requires_grad_())
    arrival = {"_set_grad_enabled", "SurrogateGradient"}
    assert set(seen) <= {"detach", "cpu", "numpy", "from_numpy", "tensor"} | arrival
    assert len(seen) < 20  # of 32 pixels, each with half a dozen operations
