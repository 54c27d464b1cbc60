"""Where standard error leads decides what is drawn there."""

import io
import os
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from unmask.cli.pipes import BARS, no_bars_in_logs, no_warnings_of_ours


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


def test_what_our_way_of_asking_makes_torch_warn_of_is_not_printed_and_what_a_user_does_is():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        no_warnings_of_ours()
        checkpoint(nn.Linear(2, 2), torch.zeros(1, 2), use_reentrant=True)
        float(torch.zeros(1, requires_grad=True))
        warnings.warn("None of the weights are mine", UserWarning, stacklevel=1)
    assert [str(one.message) for one in said] == ["None of the weights are mine"]
