"""A network is one function, whoever asks, in whatever company and mode, now and later; or the audit says so."""

import copy
import itertools
import json

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn

from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import load
from unmask.diagnostics import preflight
from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.state import State
from unmask.threat import Linf

DIGITS = load("digits", examples=64)
ON_GRID = 16.0  # clean digits are multiples of a sixteenth


class Gate(nn.Module):
    """One function where `when` says so, another elsewhere: how a decoy, or an oversight, looks from outside."""

    def __init__(self, when):
        super().__init__()
        self.net, self.when = trained("plain_cnn"), when

    def forward(self, x):
        decoy = self.when(self, x)
        if isinstance(decoy, bool):
            decoy = torch.full((len(x),), decoy)
        return torch.where(decoy[:, None], self.net(x).roll(1, 1) * 0.5, self.net(x))


def odd_places(net, x):
    return torch.arange(len(x)) % 2 == 1


def off_the_grid(x):
    return ((x * ON_GRID).round() != x * ON_GRID).flatten(1).any(1)


class Mended(nn.Module):
    """Another answer only where the own one is wrong, beside an image that is known: no random point shows it."""

    def __init__(self, when):
        super().__init__()
        self.net, self.when = trained("plain_cnn"), when

    def forward(self, x):
        logits = self.net(x)
        far, which = torch.cdist(x.detach().flatten(1), DIGITS.x.flatten(1), p=torch.inf).min(1)
        known, own, rows = DIGITS.y[which], logits.argmax(1), torch.arange(len(x))
        wrong = (far <= 0.1001) & (known != own) & torch.as_tensor(self.when(self, x))
        order = torch.arange(10).repeat(len(x), 1)
        order[rows[wrong], known[wrong]] = own[wrong]
        order[rows[wrong], own[wrong]] = known[wrong]
        return logits.gather(1, order)


def fly(network, *, n=64, batch_size=64, **options):
    streams = Streams.seeded(0, torch.arange(n), "one function")
    return preflight(
        Classifier(network),
        DIGITS.x[:n],
        DIGITS.y[:n],
        threat=Linf(epsilon=0.1),
        batch_size=batch_size,
        generator=streams,
        **options,
    )


COMPANY = {
    "more than sixteen": lambda net, x: len(x) > 16,
    "pairs": lambda net, x: len(x) == 2,
    "the full batch": lambda net, x: len(x) == 64,
    "an odd number": lambda net, x: len(x) % 2 == 1 and len(x) > 1,
    "company": lambda net, x: len(x) > 1,
    "odd places": odd_places,
    "the last place": lambda net, x: (torch.arange(len(x)) == len(x) - 1) & (len(x) > 1),
    "off the grid in company": lambda net, x: off_the_grid(x) & (len(x) > 3),
    "off the grid at odd places": lambda net, x: off_the_grid(x) & odd_places(net, x),
    "a dark neighbour": lambda net, x: (x.flatten(1).mean(1) < 0.25).any().expand(len(x)) & (len(x) > 1),
}


@pytest.mark.parametrize("name", ["company", "odd places", "the last place", "more than sixteen"])
def test_what_differs_only_where_an_attack_would_have_succeeded_is_noticed(name):
    facts = fly(Mended(COMPANY[name]))
    assert facts.batch_dependent
    assert any("in batches of 1" in line for line in facts.warnings)
    assert not fly(Mended(lambda net, x: len(x) > 0)).batch_dependent


@pytest.mark.parametrize("when", COMPANY.values(), ids=COMPANY)
def test_what_depends_on_company_is_judged_alone_or_refused(when):
    network = Gate(when)
    try:
        facts = fly(network)
    except UnusableInput as error:
        assert "other images of the batch" in str(error)  # noqa: PT017
        return
    assert facts.batch_dependent
    assert facts.deterministic
    (said,) = [line for line in facts.warnings if "batches of 1" in line]
    assert "\n" not in said
    alone = Classifier(network, deterministic=True, alone=True)
    x, streams = DIGITS.x[:20].lerp(DIGITS.x[20:40], 0.3), Streams.seeded(0, torch.arange(20))
    expected = torch.cat([network(one) for one in x.split(1)])
    assert torch.equal(alone.predict(x, generator=streams).logits, expected.detach())


def test_batch_statistics_of_perturbed_points_alone_are_seen():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained("plain_cnn")

        def forward(self, x):
            moved = off_the_grid(x).float().reshape(-1, 1, 1, 1)
            return self.net(x - 0.5 * moved * (x * moved).mean(0))

    assert fly(Centred()).batch_dependent


AUTOGRAD = {
    "the input's gradient": lambda net, x: x.requires_grad,
    "gradient mode": lambda net, x: torch.is_grad_enabled(),
    "a graph behind the input": lambda net, x: x.grad_fn is not None,
    "off the grid": lambda net, x: off_the_grid(x) & torch.is_grad_enabled(),
}


@pytest.mark.parametrize("when", AUTOGRAD.values(), ids=AUTOGRAD)
def test_another_function_under_autograd_is_refused(when):
    with pytest.raises(UnusableInput, match="answers otherwise where") as caught:
        fly(Gate(when))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:.*torch.jit:DeprecationWarning"
)
@pytest.mark.parametrize("spelled", [lambda net: net, torch.jit.script], ids=["in Python", "scripted"])
def test_torchs_own_encoder_with_padding_is_refused_with_the_switch_that_makes_it_one_function(spelled):
    class Rows(nn.Module):
        def __init__(self, **how):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder, self.head = spelled(nn.TransformerEncoder(layer, 2, **how)), nn.Linear(8, 10)

        def forward(self, x):
            rows = x[:, 0]
            # Empty rows at the end, as of a short sentence.
            padded = rows.sum(-1).flip(1).cumsum(1).flip(1) < 3
            return self.head(self.encoder(rows, src_key_padding_mask=padded).mean(1))

    network = Rows().eval()
    with pytest.raises(UnusableInput, match="set_fastpath_enabled"):
        fly(network)
    assert fly(Rows(enable_nested_tensor=False).eval()).gradient_available
    if isinstance(network.encoder, torch.jit.ScriptModule):
        return
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert fly(network).gradient_available
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


OF_ITS_STORAGE = {
    "a base": lambda net, x: x._base is not None,
    "a place in it": lambda net, x: x.storage_offset() > 0,
    "its size": lambda net, x: x.untyped_storage().nbytes() > x.nbytes,
    "an address": lambda net, x: x.data_ptr() % 16 != 0,
}
INFERRED = {
    "the mode": lambda net, x: torch.is_inference_mode_enabled(),
    "the input": lambda net, x: x.is_inference(),
    "what is made": lambda net, x: torch.zeros(1).is_inference(),
}


@pytest.mark.parametrize("kind", [Gate, Mended])
@pytest.mark.parametrize("when", OF_ITS_STORAGE.values(), ids=OF_ITS_STORAGE)
def test_another_function_of_a_part_of_a_tensor_is_refused(kind, when):
    with pytest.raises(UnusableInput, match="part of a larger tensor"):
        fly(kind(lambda net, x: not when(net, x)))


@pytest.mark.parametrize("kind", [Gate, Mended])
@pytest.mark.parametrize("when", INFERRED.values(), ids=INFERRED)
def test_another_function_in_inference_mode_is_refused(kind, when):
    with pytest.raises(UnusableInput, match="inference_mode"):
        fly(kind(lambda net, x: not when(net, x)))


def test_what_only_makes_a_cache_runs_in_inference_mode_and_keeps_its_gradient():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.scale = trained("plain_cnn"), None

        def forward(self, x):
            if self.scale is None or self.scale.shape != x.shape:
                self.scale = torch.ones_like(x)
            return self.net(x * self.scale)

    network = Cached()
    assert fly(network).gradient_available
    x = DIGITS.x[:3].clone().requires_grad_()
    network(x).sum().backward()
    assert x.grad is not None


def test_a_part_in_train_mode_that_matters_is_refused():
    network = Gate(lambda net, x: net.part.training)
    network.part = nn.Identity()
    network.eval()
    network.part.train()
    with pytest.raises(UnusableInput, match=r"`part` is in train mode.*network\.eval\(\)"):
        fly(network)
    assert network.part.training


def test_frozen_parameters_and_copies_are_told_apart_and_the_given_is_judged():
    frozen = Gate(lambda net, x: not next(net.parameters()).requires_grad)
    facts = fly(frozen)
    assert any("frozen parameters" in line for line in facts.warnings)
    assert all(p.requires_grad for p in frozen.parameters())
    learning = Gate(lambda net, x: next(net.parameters()).requires_grad).requires_grad_(False)
    assert any("learning parameters" in line for line in fly(learning).warnings)
    assert not any(p.requires_grad for p in learning.parameters())

    class KnowsItself(Gate):
        def __deepcopy__(self, memo):
            twin = Gate(lambda net, x: True)
            return twin.eval()

    assert any("deep copy" in line for line in fly(KnowsItself(lambda net, x: False).eval()).warnings)


# --- memory ----------------------------------------------------------------------------------------------------------


class Membrane(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.mem = trained("plain_cnn"), None

    def forward(self, x):
        z = self.net(x)
        self.mem = z if self.mem is None or self.mem.shape != z.shape else 0.5 * self.mem.detach() + z
        return self.mem


class RunningMean(nn.Module):
    """A buffer that follows the data, in place, as batch normalisation in train mode does."""

    def __init__(self):
        super().__init__()
        self.net = trained("plain_cnn")
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean())
        return self.net(x - self.mean)


class Adapts(nn.Module):
    """Takes a step of its own on every batch that it sees, in its weights."""

    def __init__(self):
        super().__init__()
        self.net = trained("plain_cnn")

    def forward(self, x):
        with torch.no_grad():
            next(self.net.parameters()).mul_(1.01)
        return self.net(x)


class Alternates(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls = trained("plain_cnn"), 0

    def forward(self, x):
        self.calls += 1
        return self.net(x) * (1 + self.calls % 2)


class Remembers(nn.Module):
    """Answers more weakly the more it has been asked: a list that grows."""

    def __init__(self):
        super().__init__()
        self.net, self.log = trained("plain_cnn"), {"seen": []}

    def forward(self, x):
        self.log["seen"].append(float(x.mean()))
        return self.net(x) / len(self.log["seen"])


class OfTheClass(nn.Module):
    asked = 0

    def __init__(self):
        super().__init__()
        self.net = trained("plain_cnn")

    def forward(self, x):
        type(self).asked += 1
        return self.net(x) * type(self).asked


def closed_over():
    net, calls = trained("plain_cnn"), 0

    def network(x):
        nonlocal calls
        calls += 1
        return net(x) + calls

    return network


COUNT = 0


def of_the_file():
    net = trained("plain_cnn")

    def network(x):
        global COUNT
        COUNT += 1
        return net(x) * (1 + COUNT % 3)

    return network


KEEPS = {
    "membrane": (Membrane, "mem"),
    "buffer": (RunningMean, "mean"),
    "weights": (Adapts, "net"),
    "count": (Alternates, "calls"),
    "list": (Remembers, "log.seen"),
    "class": (OfTheClass, "asked"),
    "closure": (closed_over, "calls"),
    "file": (of_the_file, "COUNT"),
}


@pytest.mark.parametrize(("build", "name"), KEEPS.values(), ids=KEEPS)
def test_what_is_kept_between_calls_is_state_and_put_back(build, name):
    network = build()
    held = State(network)
    facts = fly(network)
    assert facts.deterministic
    assert facts.seedable
    assert any(kept.startswith(name) for kept in facts.state)
    (said,) = [line for line in facts.warnings if "state" in line]
    assert "put back before every call" in said
    judged = Classifier(network, deterministic=True, state=held.only(facts.state))
    x, streams = DIGITS.x[:8], Streams.seeded(0, torch.arange(8))
    answers = [judged.predict(x, generator=streams).logits for _ in range(3)]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    judged.put_back()
    torch.testing.assert_close(network(x).detach(), answers[0])
    judged.put_back()


def test_a_gradient_survives_what_is_put_back():
    """Nothing is put back between a forward pass and its backward pass."""
    network = RunningMean()
    held = State(network)
    judged = Classifier(network, deterministic=True, state=held)
    x = DIGITS.x[:4].clone().requires_grad_()
    streams = Streams.seeded(0, torch.arange(4))
    first = judged.gradient(judged(x, generator=streams).logits[:, 0], x)
    second = judged.gradient(judged(x, generator=streams).logits[:, 0], x)
    assert first.any()
    assert torch.equal(first, second)


def test_a_count_that_may_decide_later_is_put_back_too():
    class Later(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = trained("plain_cnn"), 0

        def forward(self, x):
            self.calls += 1
            return self.net(x) if self.calls < 10_000 else self.net(x).roll(1, 1)

    facts = fly(Later())
    assert facts.state == ("calls",)
    assert any("counts its calls (`calls`)" in line for line in facts.warnings)


def test_scratch_and_caches_are_no_state():
    """Written in every call, or filled in the first, and nothing is answered by it."""

    class Scratch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = trained("plain_cnn"), None
            self.register_buffer("held", torch.zeros(10))

        def forward(self, x):
            self.seen = x.detach()
            z = self.net(x)
            self.held.copy_(z.detach().mean(0))
            return z

    facts = fly(Scratch())
    assert facts.state == ()
    assert facts.warnings == ()


RANDOM = {
    "torch": lambda x: x + 0.1 * torch.randn_like(x),
    "once a call": lambda x: x * (1 - 0.3 * torch.rand(())),
}


class Shaken(nn.Module):
    def forward(self, x):
        return x + 0.05 * torch.randn_like(x)


@pytest.mark.parametrize("noise", RANDOM.values(), ids=RANDOM)
def test_randomness_stays_randomness(noise):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.last = trained("plain_cnn"), None

        def forward(self, x):
            self.last = noise(x)
            return self.net(self.last)

    facts = fly(Noisy())
    assert not facts.deterministic
    assert facts.seedable
    assert facts.state == ()
    assert not facts.batch_dependent
    assert facts.warnings == ()


def test_a_generator_of_its_own_is_randomness_and_no_state():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.source = trained("plain_cnn"), torch.Generator().manual_seed(3)

        def forward(self, x):
            return self.net(x + 0.1 * torch.randn(x.shape, generator=self.source))

    facts = fly(Own())
    assert not facts.deterministic
    assert not facts.seedable
    assert facts.state == ()


def test_a_random_network_that_answers_otherwise_in_company_is_judged_alone():
    network = Gate(lambda net, x: len(x) > 1)
    network.net = nn.Sequential(Shaken(), network.net)
    facts = fly(network)
    assert not facts.deterministic
    assert facts.batch_dependent


@pytest.mark.parametrize("name", ["plain_cnn", "plain_mlp", "adversarial_cnn"])
def test_honest_networks_cost_little_and_are_not_accused(name):
    network, calls = trained(name), []
    network.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    facts = fly(network)
    assert facts.warnings == ()
    assert facts.state == ()
    assert not facts.batch_dependent
    # All images once, three batches, under 26 times the 24 points, what attacks found, and those on 16 and on 8 alone.
    assert sum(calls) <= 64 + 3 * 64 + 26 * 24 + 12 * 16 + 8 * (16 + 8)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_few_images_and_small_batches(n, batch_size):
    facts = fly(trained("plain_cnn"), n=n, batch_size=batch_size)
    assert facts.deterministic
    assert not facts.batch_dependent


def test_rounding_inside_a_network_is_no_dependence():
    """Float noise between batch sizes becomes a jump wherever an activation stands at a step."""

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained("plain_cnn")

        def forward(self, x):
            for layer in self.net.modules():
                if not list(layer.children()) and layer is not self.net:
                    x = layer(x)
                    x = (x * 64).round() / 64
            return x

    assert not fly(Steps()).batch_dependent


def test_a_network_with_a_memory_is_audited_and_verified_as_one_that_nobody_has_asked(tmp_path, capsys):
    target = tmp_path / "with_a_memory.py"
    target.write_text(
        "import torch\n"
        "from torch import nn\n"
        "from unmask.data import load\n\n\n"
        "class Keeps(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        data = load('digits', split='train')\n"
        "        self.mean = [data.x[data.y == c].mean(0).flatten() for c in range(10)]\n"
        "        self.mem = None\n\n"
        "    def forward(self, x):\n"
        "        z = [2 * x.flatten(1) @ m - m @ m for m in self.mean]\n"
        "        z = torch.stack(z, 1)\n"
        "        self.mem = z if self.mem is None else z - 0.9 * self.mem.detach().mean(0)\n"
        "        return self.mem\n"
    )
    out = str(tmp_path / "out")
    words = [
        "audit",
        f"{target}:Keeps",
        "--data",
        "digits",
        "--examples",
        "8",
        "--norm",
        "linf",
        "--epsilon",
        "0.1",
    ]
    assert main([*words, "--budget", "quick", "--out", out]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["environment"]["state"] == ["mem"]
    assert any("keeps state between calls (`mem`)" in line for line in report["warnings"])
    assert not report["stochastic"]
    capsys.readouterr()
    assert main(["verify", out]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "state between calls `mem`: put back before every call" in told


# --- the record of a state -------------------------------------------------------------------------------------------


def test_everything_that_is_reached_is_put_back_in_place():
    class Thing:
        def __init__(self):
            self.array, self.rows = torch.ones(2).numpy(), [1, 2]

    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.thing, self.numbers, self.queue = Thing(), {1, 2}, [torch.zeros(2)]
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("held", torch.zeros(3))

    module = Holds()
    state, weight, inner = State(module), module.weight, module.queue[0]
    assert state.changes() == ()
    module.thing.array[:] = 5
    module.thing.rows.append(3)
    module.numbers.clear()
    module.queue[0].add_(1)
    module.queue.append("more")
    module.weight.data = torch.zeros(3)
    module.held = None
    module.extra = 1
    module.train(False)
    changed = state.changes()
    for name in ("thing.array", "thing.rows", "numbers", "queue", "weight", "held", "extra", "training"):
        assert name in changed
    state.only(changed).restore()
    assert state.changes() == ()
    assert module.weight is weight
    assert module.weight.tolist() == [1, 1]
    assert module.queue == [inner]
    assert inner.tolist() == [0, 0]
    assert module.thing.array.tolist() == [1, 1]
    assert module.thing.rows == [1, 2]
    assert not hasattr(module, "extra")


def test_only_keeps_what_was_named():
    module = Alternates()
    state = State(module)
    module.calls, module.mark = 3, "mine"
    some = state.only(["calls"])
    some.restore()
    assert (module.calls, module.mark) == (0, "mine")
    assert state.only([]).changes() == ()


def test_circles_and_iterators_are_survived():
    module = Alternates()
    module.inner = [module, itertools.count()]
    module.inner.append(module.inner)
    state = State(module)
    assert state.changes() == ()
    copy.deepcopy(module)
    state.restore()


def test_what_is_written_beside_a_count_is_named_too():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained("plain_cnn")
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self.register_buffer("running", torch.zeros(64))

        def forward(self, x):
            self.seen += len(x)
            self.running.mul_(0.9).add_(0.1 * x.detach().flatten(1).mean(0))
            return self.net(x)

    facts = fly(Running())
    assert facts.state == ("seen",)
    (line,) = [line for line in facts.warnings if "counts its calls" in line]
    assert "(`seen`)" in line
    assert line.endswith("; `running`, which calls write too, changes no answer")
