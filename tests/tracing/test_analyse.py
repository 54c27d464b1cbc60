import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.tracing.named import named
from tests.tracing.networks import HONEST, LOSING, RANDOM, Wrapped, line_of
from torch import nn

from unmask.classifier import Classifier, seeded
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


def images(batch=8):
    return 0.2 + 0.6 * torch.rand(batch, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def suspects(network, epsilon=0.2, batch=8):
    x = images(batch)
    y = torch.zeros(batch, dtype=torch.long)
    with torch.no_grad():
        torch.manual_seed(0)
        y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    return analyse(Classifier(network), x, y, Linf(epsilon=epsilon), seed=0, generator=generator)


@pytest.mark.parametrize("name", LOSING)
def test_names_the_line_where_the_gradient_is_lost(name):
    step, symptoms, text, inputs = LOSING[name]
    found = [s for s in suspects(Wrapped(step, inputs)).suspects if s.symptom.name in symptoms]
    assert found, name
    assert any(s.site.file.endswith("networks.py") and s.site.line in line_of(text) for s in found), [
        str(s.site) for s in found
    ]


@pytest.mark.parametrize("name", ["ranks", "filled twice", "put together"])
def test_what_follows_a_lost_gradient_is_not_named_again(name):
    step, symptoms, _, inputs = LOSING[name]
    assert {s.symptom.name for s in suspects(Wrapped(step, inputs)).suspects} <= symptoms | {"effect"}


@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_have_no_suspects(name):
    analysis = suspects(Wrapped(HONEST[name]))
    assert analysis.deterministic
    assert not analysis.suspects, [(s.symptom.name, s.operation) for s in analysis.suspects]


@pytest.mark.parametrize("name", RANDOM)
def test_names_the_line_that_draws(name):
    step, text = RANDOM[name]
    analysis = suspects(Wrapped(step))
    assert not analysis.deterministic
    (origin,) = analysis.where(*named("random"))
    assert origin.site.line in line_of(text)


def test_finds_the_ensemble_that_picks_a_member():
    import random

    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)) for _ in range(3))

        def forward(self, x):
            return self.members[random.randrange(3)](x)

    torch.manual_seed(0)
    (origin,) = suspects(Ensemble()).where(*named("random"))
    assert "random.randrange" in origin.site.code


def test_several_defects_at_once_are_all_named():
    def step(x):
        x = x + 0.05 * torch.randn_like(x)
        return torch.round(x * 8) / 8

    found = {s.symptom.name for s in suspects(Wrapped(step)).suspects}
    assert {"random", "zero"} <= found


def test_underflowing_logits_are_named():
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Wrapped(lambda x: x)

        def forward(self, x):
            return self.returned(self.inner(x) * 1e5)  # handed out here

        def returned(self, z):
            return z

    class Whole(Loud):
        def returned(self, z):
            return z.round().long()

    for network in (Loud(), Whole()):
        (found,) = suspects(network).where(*named("underflow"))
        assert "# handed out here" in found.site.code


def test_underflowing_logits_of_a_layer_without_a_line_are_named_by_their_layer():
    class Normalised(nn.Module):
        def forward(self, x):
            return (x - 0.5) / 0.1

    network = nn.Sequential(Normalised(), Wrapped(lambda x: x), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        network[2].weight *= 1e5
    (found,) = suspects(network).where(*named("underflow"))
    assert found.site.module == "2"
    assert "0.5" not in found.site.code


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_module_is_one_opaque_operation():
    class Quantise(nn.Module):
        def forward(self, x):
            return torch.round(x * 4) / 4

    scripted = torch.jit.script(Quantise())
    network = nn.Sequential(scripted, Wrapped(lambda x: x))
    (found,) = suspects(network).where(*named("zero"))
    assert found.kind == "opaque module"


def test_tracing_leaves_everything_as_it_was():
    import random

    import numpy as np

    network = Wrapped(lambda x: torch.round(x * 10) / 10)
    apply, call, from_numpy = torch.autograd.Function.apply, nn.Module.__call__, torch.from_numpy
    x, y = images(), torch.zeros(8, dtype=torch.long)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    analyse(Classifier(network), x, y, Linf(epsilon=0.2), seed=0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert nn.Module.__call__ is call
    assert torch.from_numpy is from_numpy
    assert torch.autograd.Function.apply == apply
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in network.parameters())


def test_sees_a_lie_in_a_random_network():
    flipped = LOSING["function, flipped"][0]
    analysis = suspects(Wrapped(lambda x: flipped(x + 0.1 * torch.randn_like(x))))
    assert {s.symptom.name for s in analysis.suspects} == {"random", "wrong"}


class Pruned(nn.Module):
    """Two layers of stochastic pruning with detached probabilities: drawn by `sample`, divided by what is kept."""

    def __init__(self, sample):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.first = nn.Linear(16, 32)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(32, 16, generator=generator) / 2)
        self.sample = sample
        self.second = Wrapped(lambda h: self.prune(torch.relu(h)), 32)

    def prune(self, h):
        p = h / h.sum(1, keepdim=True).clamp_min(1e-12)
        q = 1 - (1 - p) ** 32
        keep = self.sample(p.detach(), q.detach())
        return h * keep * (q + 1e-18).reciprocal()

    def forward(self, x):
        return self.second(self.prune(torch.relu(self.first(x.flatten(1)))))


def counted(p, q):
    drawn = torch.multinomial(torch.where(p.sum(1, keepdim=True) > 0, p, 1.0), 32, replacement=True)
    counts = torch.zeros_like(p).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=p.dtype))
    return (counts.to(torch.int64) > 0).to(p.dtype)


def compared(p, q):
    return (torch.rand_like(q) < q).to(q.dtype)


@pytest.mark.parametrize("sample", [counted, compared])
def test_what_only_steers_a_draw_is_not_shattered(sample):
    """No gradient leads through the draw, so that `detach` before it and casts after it lose none."""
    network = Pruned(sample)
    analysis = suspects(network)
    assert {s.symptom.name for s in analysis.suspects} == {"random"}, [
        (s.symptom.name, s.operation, s.site.line) for s in analysis.suspects
    ]
    (repair,) = propose(analysis)
    assert repair.name == "undefended"
    assert "keeps the dropped neurons" in repair.at[analysis.origins[0].group]
    # The closed form: the gradient of the same network that drops nothing.
    x = images().requires_grad_()
    with seeded(0, x.device):
        (repaired,) = torch.autograd.grad(Rewritten(network, repair.rewrite)(x)[:, 0].sum(), x)
    undefended = undefended_gradient(network, x)
    assert F.cosine_similarity(repaired.flatten(), undefended.flatten(), dim=0) > 0.8


def undefended_gradient(network, x):
    logits = network.second.read_out(torch.relu(torch.relu(network.first(x.flatten(1)))))
    return torch.autograd.grad(logits[:, 0].sum(), x)[0]


def test_a_cut_beside_the_draw_is_still_named():
    """The same detached probability that also scales the kept neurons carries a gradient of its own."""

    def step(x):
        p = (x / x.sum(1, keepdim=True)).detach()
        keep = torch.rand_like(x) < (16 * p).clamp(0.3, 0.9)
        return keep * p * 16

    assert {s.symptom.name for s in suspects(Wrapped(step)).suspects} >= {"random", "cut"}


def test_noise_seeded_by_the_input_is_a_cut_that_jumps():
    def step(x):
        rows = []
        for image in x:
            keyed = torch.Generator().manual_seed(int(image.sum().item() * 1e5))
            rows.append(image + 0.1 * torch.randn(image.shape, generator=keyed))
        return torch.stack(rows)

    analysis = suspects(Wrapped(step))
    assert analysis.deterministic
    (cut,) = analysis.where(*named("cut"))
    assert cut.share > 0.5
    assert cut.statistics["jump"] > 0.8


def test_a_staircase_jumps_less_the_smaller_the_move():
    (found,) = suspects(Wrapped(lambda x: torch.round(x * 10) / 10)).where(*named("zero"))
    assert found.statistics["jump"] < 0.6


def test_noise_of_a_generator_that_nobody_can_seed_is_random_and_no_cut():
    """It comes from NumPy and differs from run to run, but nothing of the input went there."""
    own = np.random.default_rng()

    def step(x):
        return x + torch.from_numpy(own.normal(0, 0.1, size=tuple(x.shape)).astype("float32"))

    analysis = suspects(Wrapped(step))
    assert not analysis.deterministic
    assert {s.symptom.name for s in analysis.suspects} == {"random"}
