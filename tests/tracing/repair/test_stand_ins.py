"""Every rule: the value is the operation's, bit for bit, and the slope is that of the operation seen from afar."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import Rewrite

TABLE = torch.linspace(-1, 1, 6) ** 3 * 2
ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))
EDGES = torch.linspace(-1.5, 1.5, 5)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


POWERS = torch.tensor([1, 2, 4])
TABLES = torch.randn(8, generator=torch.Generator().manual_seed(6))  # no order among neighbours


def gray(x: Tensor) -> Tensor:
    """Whole numbers of which two neighbours differ in one bit."""
    level = (4 * x + 16).round().long()
    return level ^ (level >> 1)


def votes(x: Tensor) -> Tensor:
    """Three ballots over three classes, `[batch, 3]`."""
    return x.reshape(len(x), 2, 3).argmax(2)


def counted(x: Tensor) -> Tensor:
    return torch.zeros(len(x), 3).scatter_add_(1, votes(x), torch.ones(len(x), 2))


def overwritten(x: Tensor) -> Tensor:
    i = x.abs().topk(2, 1).indices
    return torch.zeros_like(x).scatter(1, i, x.gather(1, i))


def filled(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0.2] = 2.0
    return y


def ranks(x: Tensor) -> Tensor:
    return x.argsort(1).argsort(1).float()


# What an operation is, as a function of floats `[4, 6]`. Every name of the table of rules stands in one of them.
CASES = {
    "round": lambda x: torch.round(2 * x),
    "floor": lambda x: torch.floor(2 * x),
    "ceil": lambda x: (2 * x).ceil(),
    "trunc": lambda x: (2 * x + 9).trunc(),
    "fix": lambda x: torch.fix(2 * x + 9),
    "staircase by remainder": lambda x: x - torch.remainder(x, 0.5),
    "staircase by fmod": lambda x: x + 9 - (x + 9).fmod(0.5),
    "staircase by frac": lambda x: x - x.frac(),
    "floor_divide": lambda x: torch.floor_divide(x + 9, 0.5),
    "//": lambda x: x // 0.5,
    "number // tensor": lambda x: 9.0 // (x.abs() + 0.5),
    "div, floor": lambda x: torch.div(x, 0.5, rounding_mode="floor"),
    "sign": torch.sign,
    "sgn": lambda x: x.sgn(),
    "signbit": lambda x: torch.signbit(x).float(),
    "heaviside": lambda x: torch.heaviside(x, torch.tensor(0.5)),
    ">": lambda x: (x > 0.1).float(),
    ">=": lambda x: torch.ge(x, 0.1).float(),
    "<": lambda x: (x < 0.1).float(),
    "<=": lambda x: x.le(0.1).double().float(),
    "equal after rounding": lambda x: (torch.round(x) == 1).float(),
    "unequal after rounding": lambda x: (torch.round(x) != 1).float(),
    "isclose": lambda x: torch.isclose(x, torch.tensor(0.3), atol=0.5).float(),
    "where": lambda x: torch.where(x > 0.1, 2.0, -1.0),
    "where, by method": lambda x: torch.full_like(x, 2.0).where(x > 0.1, torch.tensor(-1.0)),
    "masked_fill": lambda x: torch.zeros_like(x).masked_fill(x > 0.1, 2.0),
    "assignment": filled,
    "rows where a mask is true": lambda x: x[(x[:, 0] > -9).bool()] ** 2,
    "~": lambda x: (~(x > 0.1)).float(),
    "logical_not": lambda x: torch.logical_not(x > 0.1).float(),
    "&": lambda x: ((x > -0.3) & (x < 0.8)).float(),
    "logical_and": lambda x: torch.logical_and(x > -0.3, x.roll(1, 1) > 0).float(),
    "|": lambda x: ((x > 0.5) | (x < -0.9)).float(),
    "^": lambda x: ((x > 0.5) ^ (x.roll(1, 1) > 0)).float(),
    "any": lambda x: (x > 0.9).any(1).float(),
    "all": lambda x: (x > -0.9).all(1).float(),
    "count": lambda x: (x > 0.1).sum(1).float(),
    "count_nonzero": lambda x: torch.count_nonzero((x > 0.1).int(), 1).float(),
    "int": lambda x: (2 * x + 9).int().float(),
    "uint8 and back": lambda x: (20 * x + 100).to(torch.uint8).to(torch.float32) / 20,
    "quantize_per_tensor": lambda x: torch.quantize_per_tensor(x, 0.3, 10, torch.quint8).dequantize(),
    "int_repr": lambda x: torch.quantize_per_tensor(x, 0.3, 10, torch.quint8).int_repr().float(),
    "bitwise shift": lambda x: ((20 * x + 100).int() >> 3).float(),
    "bitwise and": lambda x: ((20 * x + 100).int() & 0xF0).float(),
    "shift left": lambda x: ((2 * x + 9).int() << 2).float(),
    "shift of one": lambda x: (1 << (x + 5).int()).float() / 32,
    "bitwise or": lambda x: ((20 * x + 100).int() | 7).float(),
    "bitwise not": lambda x: (~(20 * x + 100).int()).float(),
    "one bit": lambda x: ((4 * x + 16).int() & 8).float(),
    "a Gray code's bit": lambda x: (gray(x) >> 3 & 1).float(),
    "a code of weighted truth values": lambda x: TABLES[((x[:, :3] > 0).long() * POWERS).sum(1)],
    "a code of shifted truth values": lambda x: TABLES[((x[:, :3] > 0).long() << torch.arange(3)).sum(1)],
    "a code by a product": lambda x: F.one_hot((x[:, :3] > 0).long() @ POWERS, 8).float(),
    "a code of two terms": lambda x: TABLES[(x[:, 0] > 0).long() + 2 * (x[:, 1] > 0.1).long()],
    "the first true": lambda x: TABLE[(x > 0.4).int().argmax(1)],
    "the first true, in floats": lambda x: TABLE[(x > 0.4).float().argmax(1)],
    "the first false": lambda x: (x > -0.4).long().argmin(1, keepdim=True).float(),
    "argmax": lambda x: TABLE[x.argmax(1)],
    "argmin": lambda x: TABLE[x.argmin(1)],
    "argmax, kept": lambda x: x.argmax(1, keepdim=True).float(),
    "max, indices": lambda x: TABLE[x.max(1)[1]],
    "min, indices": lambda x: TABLE[torch.min(x, dim=1).indices],
    "topk, indices": lambda x: TABLE[x.topk(2, 1).indices],
    "topk, mask": lambda x: torch.zeros_like(x).scatter(1, x.topk(2, 1).indices, 1.0),
    "sort, indices": lambda x: TABLE[x.sort(1).indices],
    "argsort": lambda x: TABLE[x.argsort(1)],
    "ranks": ranks,
    "kthvalue, index": lambda x: TABLE[x.kthvalue(2, 1).indices],
    "median, index": lambda x: TABLE[x.median(1).indices],
    "cummax, indices": lambda x: TABLE[x.cummax(1).indices],
    "cummin, indices": lambda x: TABLE[torch.cummin(x, 1).indices],
    "mode of votes": lambda x: TABLE[torch.round(x).clamp(0, 2).long().mode(1).values],
    "mode of arg-maxima": lambda x: TABLE[x.reshape(len(x), 3, 2).argmax(2).mode(1).values],
    "bucketize": lambda x: torch.bucketize(x, EDGES).float(),
    "searchsorted": lambda x: torch.searchsorted(EDGES, x).float(),
    "histc": lambda x: torch.histc(x[0], 5, -2, 2),
    "bincount": lambda x: torch.bincount(torch.round(x[0] + 2).clamp(0, 4).long(), minlength=5).float(),
    "votes by scatter_add_": counted,
    "votes by one_hot": lambda x: F.one_hot(votes(x), 3).sum(1).float(),
    "votes by ==": lambda x: (votes(x)[..., None] == torch.arange(3)).float().sum(1),
    "votes by bincount": lambda x: torch.bincount(votes(x)[0], minlength=3).float(),
    "scatter of kept values": overwritten,
    "embedding": lambda x: F.embedding(x.argmax(1), ROWS),
    "embedding of a rounded index": lambda x: F.embedding(torch.round(x + 2).clamp(0, 5).long(), ROWS),
    "index_select": lambda x: ROWS.index_select(0, x.argmax(1)),
    "gather": lambda x: TABLE.expand(len(x), 6).gather(1, x.argmax(1, keepdim=True)),
    "take_along_dim": lambda x: torch.take_along_dim(TABLE.expand(len(x), 6), x.argmin(1, keepdim=True), 1),
    "take": lambda x: TABLE.take(x.argmax(1)),
    "rows and index": lambda x: TABLE.expand(len(x), 6)[torch.arange(len(x)), x.argmax(1)],
    "labels of labels": lambda x: ROWS[LABELS[x.argmax(1)]],
    "ne of an index": lambda x: (x.argmax(1) != 2).float(),
    "integer arithmetic": lambda x: ((2 * x + 9).long() * 3 + 1).float(),
    "no rule: running products of ranks": lambda x: (x.argsort(1).argsort(1) + 1).cumprod(1).float() / 99,
    "no rule: gcd": lambda x: (
        torch.gcd((4 * x + 20).int(), torch.tensor(1 << 20, dtype=torch.int32)).float() * 0
        + (4 * x + 20).int().float()
    ),
}


# Where all rows make one result.
TOGETHER = {"histc", "bincount", "votes by bincount"}


@pytest.fixture(scope="module")
def points():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
@pytest.mark.parametrize("name", CASES)
def test_value_and_slope(name, points):
    step = CASES[name]
    rewritten = Rewritten(step, Rewrite(heal_cuts=True, soften=1.0))
    with torch.no_grad():
        shape = step(points).shape
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(shape, generator=generator)

    def loss(x):  # one number for each row, where rows are independent
        value = step(x) * weight
        return value.reshape(4, -1).sum(1) if name not in TOGETHER else value.sum().expand(4)

    # Truth: the slope of the mean over a cloud, by its Gaussian weight function.
    truth, found = torch.zeros_like(points), torch.zeros_like(points)
    with torch.no_grad():
        for _ in range(400):
            noise = 0.5 * torch.randn(points.shape, generator=generator)
            rise = loss(points + noise) - loss(points - noise)
            truth += rise[:, None] * noise
    for _ in range(40):
        x = (points + 0.5 * torch.randn(points.shape, generator=generator)).requires_grad_()
        made = rewritten(x)
        assert isinstance(made, Tensor)
        with torch.no_grad():
            assert torch.equal(made, step(x.detach()))
        assert made.requires_grad, "no gradient at all"
        (grad,) = torch.autograd.grad((made * weight).sum(), x)
        assert torch.isfinite(grad).all()
        found += grad
    cosine = torch.cosine_similarity(found.flatten(), truth.flatten(), dim=0)
    assert cosine > 0.5, f"{name}: cosine {cosine:.2f}"


def test_rows_that_a_mask_chose_lead_on_and_away():
    """An early exit: rows that went another way have that way's slope, and the slope of going it."""

    def leaves(x: Tensor) -> Tensor:
        far = x[:, 0] > 0.2
        made = x * 1.0
        made[far] = 3 * x[far]
        return made

    x = torch.tensor([[0.5, 1.0], [-0.5, 1.0]]).requires_grad_()
    made = Rewritten(leaves, Rewrite(heal_cuts=True, soften=1.0))(x)
    assert isinstance(made, Tensor)
    assert torch.equal(made, leaves(x.detach()))
    (grad,) = torch.autograd.grad(made[:, 1].sum(), x)
    gone, stayed = grad
    assert gone[0] > 0  # three times as much is more: of the one that went, up to the rule's own softness
    assert 1 < gone[1] <= 3
    assert stayed.tolist() == [0.0, 1.0]
