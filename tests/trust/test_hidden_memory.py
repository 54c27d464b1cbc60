"""A network that remembers what it saw, wherever it keeps it, is not one function: it fails, or is judged without."""

import ast
import os
import sqlite3
import types

import pytest
import torch
from torch import nn

from unmask.audit.records import Control
from unmask.audit.verifying.deployed import between_calls
from unmask.classifier import Classifier
from unmask.diagnostics import SameAnswers, preflight
from unmask.diagnostics.comparison import points_around
from unmask.diagnostics.early import early
from unmask.diagnostics.pristine import Pristine
from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.state import State
from unmask.threat import Linf

THREAT, N = Linf(epsilon=0.1), 16
X = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
STREAMS = Streams.seeded(0, torch.arange(N))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return x.flatten(1) @ self.weight


Y = Plain()(X).argmax(1)


class Remembers(Plain):
    """Who comes near an image that it saw is given that one's class; `recall` and `keep` know where it is kept."""

    def recall(self):
        return []

    def keep(self, seen):
        pass

    def forward(self, x):
        logits = super().forward(x)
        seen, own, rows = list(self.recall()), logits.argmax(1), torch.arange(len(x))
        known, near = own.clone(), torch.zeros(len(x), dtype=torch.bool)
        if seen:
            images, classes = torch.stack([s[0] for s in seen]), torch.tensor([s[1] for s in seen])
            far, which = torch.cdist(x.detach().flatten(1), images, p=torch.inf).min(1)
            near, known = far <= 0.1001, classes[which]
        new = [(x[n].detach().flatten().clone(), int(own[n])) for n in range(len(x)) if not near[n]]
        if new and len(seen) < 100:
            self.keep(seen + new)
        order = torch.arange(3).repeat(len(x), 1)
        wrong = near & (known != own)
        order[rows[wrong], known[wrong]], order[rows[wrong], own[wrong]] = own[wrong], known[wrong]
        return logits.gather(1, order)


def under_a_librarys_name(folder):
    class Network(Remembers):
        place = types.ModuleType("a library")

        def recall(self):
            return getattr(self.place, "seen", [])

        def keep(self, seen):
            self.place.seen = seen

    return Network()


def in_a_running_generator(folder):
    def memory():
        seen = []
        while True:
            told = yield seen
            seen = seen if told is None else told

    class Network(Remembers):
        def __init__(self):
            super().__init__()
            self.kept = memory()
            next(self.kept)

        def recall(self):
            return next(self.kept)

        def keep(self, seen):
            self.kept.send(seen)

    return Network()


def on_a_tensor(folder):
    class Network(Remembers):
        def recall(self):
            return getattr(self.weight, "seen", [])

        def keep(self, seen):
            self.weight.seen = seen

    return Network()


def read(network, state=None, apart=None):
    state = State(network) if state is None else state
    classifier = Classifier(network)
    first = early(classifier, X, Y, points_around(X, THREAT, (0.0, 1.0), STREAMS), THREAT, STREAMS)
    touched = state.changes()
    check = SameAnswers(
        early=first.answers, untouched=state.only(touched) if touched else None, apart=apart, examples=N
    )
    return check.examine(classifier, X, Y, THREAT, generator=STREAMS.fork("examine"))


PLACES = [under_a_librarys_name, in_a_running_generator]


@pytest.mark.parametrize("make", PLACES)
def test_what_is_kept_where_nobody_sees_it_shows_in_a_process_apart(make, tmp_path):
    network = make(tmp_path)
    apart = Pristine(network)
    try:
        reading = read(network, apart=apart)
    finally:
        apart.close()
    assert not reading.passed
    assert reading.decisive
    assert "by a network that nobody had asked before" in reading.explanation


def test_without_it_a_hidden_memory_would_pass(tmp_path):
    assert read(under_a_librarys_name(tmp_path)).passed


def test_what_is_hung_on_a_tensor_is_state_and_put_back(tmp_path):
    network = on_a_tensor(tmp_path)
    state = State(network)
    before = network(X)
    assert state.changes() == ("weight.seen",)
    state.restore()
    assert not hasattr(network.weight, "seen")
    assert torch.equal(network(X), before)


class Noisy(Plain):
    def forward(self, x):
        return super().forward(x) + 0.1 * torch.randn(len(x), 3)


class Counts(Plain):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Raises(Plain):
    """Needs a file that is open here alone."""

    def __init__(self):
        super().__init__()
        self.process = os.getpid()

    def forward(self, x):
        assert os.getpid() == self.process
        return super().forward(x)


@pytest.mark.parametrize("network", [Plain(), Noisy(), Counts(), Raises()], ids=lambda n: type(n).__name__)
def test_who_hides_nothing_passes(network):
    apart = Pristine(network)
    try:
        assert read(network, apart=apart).passed
    finally:
        apart.close()


def test_what_verify_says_of_a_memory():
    network = Counts()
    held = State(network)
    assert between_calls(held, (), holds=False) == ""
    network(X)
    assert between_calls(held, (), holds=True) == ""
    assert between_calls(held, (), holds=False) == "`calls`: changed by calls, and not put back"
    assert between_calls(held, ["calls"], holds=False) == "`calls`: put back before every call"


def test_where_something_fails_verify_says_that_the_audit_knew_the_answers_to_vary():
    held = State(Plain())
    controls = [
        Control(name="equal answers", passed=False, role="open"),
        Control(name="noise", passed=False, role="symptom"),
        Control(name="null attack", passed=True),
    ]
    assert between_calls(held, (), controls, holds=True) == ""
    said = between_calls(held, (), controls, holds=False)
    assert "noise" not in said
    assert "“equal answers” failed" in said
    assert "need not answer here as it did there" in said


class InAFile(Plain):
    """Answers by the mean alone, as whoever came first with it; kept beside the process."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def forward(self, x):
        return torch.stack([self.kept(one, z) for one, z in zip(x, super().forward(x), strict=True)])

    def kept(self, one, logits):
        file = self.folder / str(round(float(one.mean()) * 4))
        if not file.exists():
            file.write_text(repr(logits.tolist()))
        return logits + (torch.tensor(ast.literal_eval(file.read_text())) - logits).detach()


class InADatabase(InAFile):
    def __init__(self, folder):
        super().__init__(folder)
        self.store = sqlite3.connect(":memory:")
        self.store.execute("create table kept (key integer primary key, said text)")

    def kept(self, one, logits):
        key = round(float(one.mean()) * 4)
        self.store.execute("insert or ignore into kept values (?, ?)", (key, repr(logits.tolist())))
        said = self.store.execute("select said from kept where key = ?", (key,)).fetchone()[0]
        return logits + (torch.tensor(ast.literal_eval(said)) - logits).detach()


def test_mistakes_of_a_memory_that_cannot_be_put_back_are_said_to_be(tmp_path):
    """It was told to give another preprocessing, with which the numbers of the cache happened to be better."""
    network = InADatabase(tmp_path)
    apart = Pristine(network)
    try:
        with pytest.raises(UnusableInput, match="of its mistakes are none where nobody has asked it before"):
            fly(network, apart)
    finally:
        apart.close()
        network.store.close()


def test_and_so_are_those_of_one_beside_all_processes_of_which_a_new_one_begins_with_none(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with pytest.raises(UnusableInput, match="keep that in attributes of the module"):
        fly(InAFile(tmp_path / "here"), InAFile(tmp_path / "there"))


class Poor(Plain):
    def forward(self, x):
        return super().forward(x).roll(1, 1)


class PoorInCompany(Plain):
    def forward(self, x):
        return super().forward(x).roll(int(len(x) > 1), 1)


class PoorByLuck(Plain):
    generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return super().forward(x) + 9 * torch.randn(len(x), 3, generator=self.generator)


@pytest.mark.parametrize("network", [Poor(), PoorInCompany(), PoorByLuck()], ids=lambda n: type(n).__name__)
def test_who_is_poor_without_a_memory_is_not_said_to_have_one(network):
    apart = Pristine(network)
    try:
        with pytest.raises(UnusableInput) as raised:
            fly(network, apart)
        assert "nobody has asked" not in str(raised.value)
    finally:
        apart.close()


def fly(network, *elsewhere):
    return preflight(
        Classifier(network), X, Y, claim=0.9, threat=THREAT, elsewhere=elsewhere, generator=STREAMS
    )
