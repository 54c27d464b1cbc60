"""A network that every call makes slower ends in a line; one that is slow, or slow on some images, does not."""

import sqlite3
import time

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier, pace
from unmask.errors import UnusableInput
from unmask.randomness import Streams

X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))


def work(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def ask(classifier, x=X, times=1):
    for _ in range(times):
        classifier(x, generator=Streams.seeded(0, torch.arange(len(x))))


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(pace, "SPENT", 0.2)
    monkeypatch.setattr(pace, "FIRST", 3)
    monkeypatch.setattr(pace, "LONG", 0.001)


class Grows(nn.Module):
    """Works for a while for everything that it was ever asked."""

    def kept(self, x):
        raise NotImplementedError

    def forward(self, x):
        work(2e-4 * self.kept(x))
        return x


class InAList(Grows):
    def __init__(self):
        super().__init__()
        self.seen = []

    def kept(self, x):
        self.seen.extend(x)
        return len(self.seen)


def in_a_file(folder):
    class InAFile(Grows):
        def kept(self, x):
            with open(folder / "seen", "ab") as file:
                file.write(x.detach().numpy().tobytes())
            return (folder / "seen").stat().st_size // 24

    return InAFile()


def in_a_database(folder):
    class InADatabase(Grows):
        def kept(self, x):
            base = sqlite3.connect(folder / "seen.db")
            base.execute("pragma synchronous = off")
            base.execute("create table if not exists seen(x)")
            base.executemany("insert into seen values(?)", [(r.detach().numpy().tobytes(),) for r in x])
            base.commit()
            (count,) = base.execute("select count(*) from seen").fetchone()
            base.close()
            return count

    return InADatabase()


@pytest.mark.parametrize(
    "made", [lambda folder: InAList(), in_a_file, in_a_database], ids=["list", "file", "database"]
)
def test_what_grows_with_every_call_is_said(made, tmp_path):
    classifier = Classifier(made(tmp_path))
    began = time.process_time()
    with pytest.raises(
        UnusableInput, match=r"takes .* s for a question that took .* s at first: what it keeps"
    ):
        ask(classifier, times=20_000)
    assert time.process_time() - began < 30


def test_a_slow_network_is_asked_on():
    class Slow(nn.Module):
        def forward(self, x):
            work(0.02)
            return x

    ask(Classifier(Slow()), times=40)


def test_so_is_one_that_some_images_keep_busy():
    class Iterates(nn.Module):
        def forward(self, x):
            work(0.05 if x.mean() > 0.9 else 1e-4)
            return x

    classifier = Classifier(Iterates())
    ask(classifier, times=5)
    ask(classifier, torch.ones(4, 6), times=20)


def test_so_is_one_whose_repair_is_slower():
    classifier = Classifier(nn.Identity())
    ask(classifier, times=5)

    class Repaired(nn.Module):
        def forward(self, x):
            work(0.03)
            return x

    ask(classifier.replace(network=Repaired()), times=20)


def test_nobody_asks_a_quick_network_more_often():
    class Counts(nn.Module):
        calls = 0

        def forward(self, x):
            Counts.calls += 1
            return x

    ask(Classifier(Counts()), times=100)
    assert Counts.calls == 100
