"""Where standard error leads decides what is drawn there."""

import io
import os

import pytest

from unmask.cli.pipes import BARS, no_bars_in_logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture
def asked(monkeypatch):
    """What libraries are asked for, beside a stream that they would draw on."""

    def ask(stream, **said):
        for name in BARS:
            monkeypatch.setenv(name, said.get(name, ""))
            if name not in said:
                monkeypatch.delenv(name)
        monkeypatch.setattr("sys.stderr", stream)
        no_bars_in_logs()
        return [os.environ.get(name) for name in BARS]

    return ask


def test_libraries_draw_bars_in_a_terminal_alone(asked):
    assert asked(Terminal()) == [None, None]
    for nobody in (io.StringIO(), closed(), None):
        assert asked(nobody) == ["1", "1"]


def test_what_the_user_says_goes_first(asked):
    assert asked(io.StringIO(), **{BARS[0]: "0"}) == ["0", "1"]
