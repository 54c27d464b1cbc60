"""The command line asks glibc to keep freed memory, unless the user said otherwise."""

import os
import types

import pytest

from unmask.cli import allocator


@pytest.fixture
def calls(monkeypatch):
    """What `mallopt` is called with, in an environment without settings of its own."""
    made = []
    library = types.SimpleNamespace(mallopt=lambda *pair: made.append(pair))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: library)
    for name in [n for n in os.environ if n.startswith("MALLOC_") or n == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    return made


def test_both_thresholds_are_raised(calls):
    allocator.keep_freed_memory()
    assert calls == [(-3, 2**30), (-1, 2**31 - 1)]


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_own_settings_win(calls, monkeypatch, name):
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=131072")
    allocator.keep_freed_memory()
    assert calls == []


def test_another_c_library_is_left_alone(calls, monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: types.SimpleNamespace())
    allocator.keep_freed_memory()
    assert calls == []
