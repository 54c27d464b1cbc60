"""What follows a surrogate in the script: each spelling keeps its own value, and no operation refuses."""

import pytest
import torch
from tests.report.script.test_write import record, rewrite, rule, written

F = torch.nn.functional  # for what is evaluated
FILE = "spelt.py"
ROWS = torch.arange(4)
TABLE = torch.arange(12.0).reshape(4, 3)
CODE = torch.tensor([True, False, True])


LABELS = torch.tensor([1, 0, 1])


def voted(nearest):
    """A vote for each of the nearest, by its label, as a nearest-neighbour classifier counts them."""
    votes = torch.zeros(len(nearest), 2)
    for rank in range(nearest.shape[1]):
        votes[torch.arange(len(nearest)), LABELS[nearest[:, rank]]] += 1.0 / (1 + rank)
    return votes


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The script's own names, for one operation at line 1 of `FILE`."""
    made = {}
    for operation in ("argmax", "gt", "topk", "sort", "argsort"):
        folder = tmp_path_factory.mktemp(operation)
        told = record(rewrite(rule("Smooth", operation, width=0.3, at={"file": FILE, "line": 1})))
        made[operation] = {"__name__": "attack", "__file__": str(folder / "attack.py")}
        exec(compile(written(folder, told).text, str(folder / "attack.py"), "exec"), made[operation])
    return made


def values(script, expression):
    """The network's value without the repair, with it, and its gradient."""
    network = eval(compile(f"lambda x: {expression}", FILE, "eval"), globals())
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with script["Repair"](torch.nn.Identity(), "the winner", x):
        made = network(x).float() + 0 * x.sum()
    slope = torch.autograd.grad((made * torch.arange(made.numel()).reshape(made.shape)).sum(), x)[0]
    return network(x.detach()).float(), made.detach(), slope


@pytest.mark.parametrize(
    ("operation", "expression", "leads"),
    [
        ("argmax", "TABLE.T[:, x.argmax(1)]", True),
        ("argmax", "TABLE.T[..., x.argmax(1)]", True),
        ("argmax", "TABLE[ROWS, x.argmax(1)]", True),
        ("argmax", "TABLE[x.argmax(1)[:, None]]", True),
        ("argmax", "TABLE[x.argmax(1), ROWS % 3]", False),
        ("argmax", "TABLE[None, x.argmax(1)]", False),
        ("argmax", "TABLE[x.argmax(1), 1:]", False),
        ("argmax", "x.index_select(0, x.argmax(1))", True),
        ("argmax", "TABLE.gather(1, x.argmax(1, keepdim=True))", True),
        ("argmax", "torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 2.0)", True),
        ("argmax", "torch.zeros_like(x).scatter(1, x.argmax(1).unsqueeze(1), 2.0)", True),
        ("argmax", "torch.zeros(3).index_add(0, x.argmax(1), torch.ones(4))", False),
        ("argmax", "torch.bincount(x.argmax(1), minlength=3)", False),
        ("argmax", "torch.isin(x.argmax(1), torch.tensor([0, 2]))", False),
        ("argmax", "TABLE[(x.argmax(1) == 1).nonzero()[:, 0]]", False),
        ("argmax", "x.argmax(1) == 1", False),
        ("argmax", "x.argmax(1) ^ 1", False),
        ("argmax", "torch.nn.functional.one_hot(x.argmax(1), 3) * 2.0", True),
        ("argmax", "x.argmax() * 1.0", False),
        ("topk", "voted(x.topk(2, largest=False).indices)", True),
        ("topk", "voted(x.topk(2, 1, False)[1])", True),
        ("topk", "voted(torch.topk(x, k=1, dim=-1).indices)", True),
        ("topk", "TABLE.T[x.topk(2, 1).indices]", True),
        ("topk", "LABELS[x.topk(2, 1).indices] * 1.0", True),
        ("topk", "LABELS[x.topk(2, 1).indices][..., -1] * 1.0", True),
        ("topk", "torch.zeros_like(x).scatter(1, x.topk(2, 1, largest=False).indices, 1.0)", True),
        ("topk", "torch.zeros_like(x).scatter(1, x.topk(2).indices, 1.0)", True),
        ("sort", "voted(x.sort(1).indices)", True),
        ("sort", "x.sort(dim=1, descending=True).indices[:, 0] * 1.0", True),
        ("argsort", "voted(x.argsort(1, descending=True)[:, :2])", True),
        ("argsort", "voted(torch.argsort(x, dim=-1))", True),
        ("gt", "((x > 0) ^ CODE).sum(-1)", False),
        ("gt", "((x > 0) ^ CODE) * 1.0", True),
        ("gt", "torch.logical_xor(x > 0, CODE) * 1.0", True),
        ("gt", "((x > 0) == CODE) * 1.0", True),
        ("gt", "((x > 0) & CODE | ~CODE) * 1.0", True),
        ("gt", "torch.stack([x > 0, x < 0]) * 1.0", True),
        ("gt", "(x > 0).any(1) * 1.0", True),
        ("gt", "x[x > 0]", True),
        ("gt", "(x > 0).nonzero()", False),
        ("gt", "TABLE[(x > 0).long().sum(1)]", False),
        ("gt", "(x > 0).long() << 1", False),
        ("gt", "torch.where(CODE, x > 0, x < 0) * 1.0", True),
        ("gt", "torch.where(x > 0, 1.0, 0.0)", True),
    ],
)
def test_every_spelling_keeps_its_value_and_none_refuses(scripts, operation, expression, leads):
    plain, made, slope = values(scripts[operation], expression)
    assert torch.equal(plain, made)
    assert not leads or slope.abs().max() > 0


@pytest.mark.parametrize("largest", [True, False])
def test_the_nearest_are_followed_towards_the_other_label(scripts, largest):
    """Against differences of the votes, averaged over where they step: far neighbours do not count, near ones do."""

    def votes(x):
        return eval(
            compile(f"voted(x.topk(2, 1, largest={largest}).indices)", FILE, "eval"), {**globals(), "x": x}
        )

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 3, generator=generator)
    leaf = x.clone().requires_grad_()
    with scripts["topk"]["Repair"](torch.nn.Identity(), "the winner", leaf):
        made = votes(leaf)
    slope = torch.autograd.grad((made[:, 1] - made[:, 0]).sum(), leaf)[0]
    steps = torch.randn(2000, 64, 3, generator=generator) * 0.5
    ahead, back = (votes((x + s * steps).flatten(0, 1)) for s in (1, -1))
    differences = (ahead - back).reshape(2000, 64, 2)
    averaged = ((differences[..., 1] - differences[..., 0])[..., None] * steps).mean(0)
    assert torch.cosine_similarity(slope.flatten(), averaged.flatten(), dim=0) > 0.5


LAYER = torch.nn.MultiheadAttention(4, 2).requires_grad_(False)
HEADS = (4, 2, LAYER.in_proj_weight, LAYER.in_proj_bias, None, None, False, 0.0)
HEADS = (*HEADS, LAYER.out_proj.weight, LAYER.out_proj.bias)
KEYS, MASK = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(4, 5)
COOLED = torch.nn.MultiheadAttention(4, 2).requires_grad_(False)
COOLED.load_state_dict(LAYER.state_dict())
COOLED.in_proj_weight[:4] *= 0.3
COOLED.in_proj_bias[:4] *= 0.3
COOL = (4, 2, COOLED.in_proj_weight, COOLED.in_proj_bias, *HEADS[4:])
# An operation as it is called, and the same with a gain of 0.3 before its curve.
COOLER = {
    "F.glu(torch.cat([x, 40 * x]), 0)": "x * torch.sigmoid(12 * x)",
    "F.glu(torch.cat([x, 40 * x], 1), dim=1)": "x * torch.sigmoid(12 * x)",
    "torch.softmax(40 * x, 1)": "torch.softmax(12 * x, 1)",
    "F.log_softmax(40 * x, dim=0)": "F.log_softmax(12 * x, dim=0)",
    "torch.tanh(40 * x)": "torch.tanh(12 * x)",
    "F.relu(40 * x)": "F.softplus(12 * x)",
    "(40 * x).clamp(-1, 1)": "12 * x",
    "F.scaled_dot_product_attention(x, *KEYS, scale=9.0)": "F.scaled_dot_product_attention(x, *KEYS, scale=2.7)",
    "F.scaled_dot_product_attention(x, *KEYS, MASK)": "F.scaled_dot_product_attention(0.3 * x, *KEYS)",
    "F.scaled_dot_product_attention(x, *KEYS, attn_mask=x @ KEYS[0].T, scale=1.0)": (
        "F.scaled_dot_product_attention(x, *KEYS, scale=0.6)"
    ),
    "F.multi_head_attention_forward(*[x.T[:, None]] * 3, *HEADS)[0]": (
        "F.multi_head_attention_forward(*[x.T[:, None]] * 3, *COOL)[0]"
    ),
    "F.multi_head_attention_forward(*[x.T[:, None]] * 3, *HEADS, need_weights=False)[0]": (
        "F.multi_head_attention_forward(*[x.T[:, None]] * 3, *COOL)[0]"
    ),
}


@pytest.mark.parametrize("expression", COOLER)
def test_a_saturated_operation_is_differentiated_where_it_is_not(tmp_path, expression):
    operation = (
        expression.split("(")[-2] if ".clamp(" in expression else expression.split("(")[0].split(".")[-1]
    )
    operation = operation.split(".")[-1]
    told = record(rewrite(rule("Gain", operation, gain=0.3, at={"file": FILE, "line": 1})))
    script = {"__name__": "attack", "__file__": str(tmp_path / "attack.py")}
    exec(compile(written(tmp_path, told).text, str(tmp_path / "attack.py"), "exec"), script)
    plain, made, slope = values(script, expression)
    assert torch.equal(plain, made)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cooler = eval(COOLER[expression], globals(), {"x": x})
    weights = torch.arange(made.numel()).reshape(made.shape)
    torch.testing.assert_close(slope, torch.autograd.grad((cooler * weights).sum(), x)[0])
