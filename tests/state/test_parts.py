"""What a network holds is read and put back as it is stored."""

from collections import OrderedDict

import pytest

from unmask.state import State


class Made(OrderedDict):
    """A table of classes that answers with a new instance whenever it is asked, as some libraries keep activations."""

    def __getitem__(self, name):
        return super().__getitem__(name)()


class Holding:
    def __init__(self):
        self.table = Made(first=list, second=dict)
        self.calls = 0


def test_a_table_that_answers_otherwise_than_it_stores_is_left_as_it_is():
    network = Holding()
    state = State(network)
    network.calls += 1
    assert state.changes() == ("calls",)
    state.restore()
    assert dict.__getitem__(network.table, "first") is list
    assert network.table["second"] == {}
    assert list(network.table) == ["first", "second"]


def test_what_is_stored_in_such_a_table_is_put_back():
    network = Holding()
    state = State(network)
    network.table["first"] = set
    network.table["third"] = tuple
    assert set(state.changes()) == {"table.first", "table.third"}
    state.restore()
    assert dict.__getitem__(network.table, "first") is list
    assert list(network.table) == ["first", "second"]


@pytest.mark.parametrize("key", [lambda n: n, lambda n: f"image {n}", lambda n: bytes([n, n])])
def test_a_cache_that_grows_is_put_back_whatever_it_is_given_later(key):
    class Caches:
        def __init__(self):
            self.memo, self.other = {key(0): 0.0}, {}

    network = Caches()
    state = State(network)
    network.memo[key(1)] = 1.0
    seen = state.only(state.changes())
    network.memo[key(2)], network.other[key(2)] = 2.0, 2.0
    seen.restore()
    assert network.memo == {key(0): 0.0}
    assert network.other == {key(2): 2.0}
